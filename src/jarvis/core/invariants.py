"""What must hold whatever happens; each check derives its truth from scratch and names the first thing that is wrong."""

from collections import Counter
from collections.abc import Iterable, Mapping

from jarvis.core.attempt import Attempt
from jarvis.core.ids import ElementKey
from jarvis.core.node import Node
from jarvis.core.resources import Resources, add, fits
from jarvis.core.states import LIVE, ON_NODE, State, rollup
from jarvis.core.task import Element, Task


class InvariantBroken(AssertionError):
    """A rule of the system does not hold: a defect of Jarvis, never of a user."""


def require(holds: bool, text: str) -> None:
    if not holds:
        raise InvariantBroken(text)


def check_elements(tasks: Mapping[int, Task], elements: Mapping[ElementKey, Element]) -> None:
    """Live elements belong to live tasks, and a task's state and counts are those of its elements."""
    for key, element in elements.items():
        require(key.task in tasks, f"element {key} has no live task")
        require(element.state in LIVE, f"element {key} is held in memory at its end ({element.state})")
    for task in tasks.values():
        if task.spec.array is None:
            own = elements.get(ElementKey(task.id))
            require(
                own is None or own.state is task.state,
                f"task {task.id} is {task.state}, its element {own and own.state}",
            )
        else:
            require(sum(task.counts.values()) == task.size, f"task {task.id} counts {task.counts} of {task.size}")
            require(task.state is rollup(task.counts), f"task {task.id} is {task.state}, counts say {task.counts}")


def check_counts(task: Task, states: Iterable[State]) -> None:
    """An array's counts against the states of all its elements."""
    actual = Counter(states)
    require(dict(actual) == task.counts, f"task {task.id} counts {task.counts}, its elements are {dict(actual)}")


def check_attempts(elements: Mapping[ElementKey, Element], attempts: Mapping[ElementKey, Attempt]) -> None:
    """Exactly the elements on nodes have a current attempt, and it carries their number and token."""
    for key, attempt in attempts.items():
        element = elements.get(key)
        require(element is not None, f"attempt of {key} without an element")
        assert element is not None
        require(element.state in ON_NODE, f"{key} is {element.state} with a current attempt")
        require(element.attempt == attempt.attempt and element.token == attempt.token, f"{key} and its attempt differ")
    for key, element in elements.items():
        require(element.state not in ON_NODE or key in attempts, f"{key} is {element.state} without an attempt")


def check_gangs(
    tasks: Mapping[int, Task], elements: Mapping[ElementKey, Element], attempts: Mapping[ElementKey, Attempt]
) -> None:
    """A gang is never partial: its attempt has all ranks, each on a node of its own; while it lasts some rank is not over, and once
    one did not end well, all others are being stopped."""
    for key, attempt in attempts.items():
        wanted, ranks = tasks[key.task].spec.nodes, attempt.ranks
        nodes = {rank.node for rank in ranks}
        require(len(ranks) == len(nodes) == wanted, f"{key} has {len(ranks)} ranks on {len(nodes)} nodes, not {wanted}")
        placed = [(placement.rank, placement.node) for placement in attempt.placements]
        require(placed == [(at, rank.node) for at, rank in enumerate(ranks)], f"{key} is placed on {placed}")
        require((attempt.node, attempt.number) == (ranks[0].node, ranks[0].number), f"{key} is not where its rank 0 is")
        require(any(rank.cause is None for rank in ranks), f"{key} lasts, and all of its ranks are over")
        failed = any(rank.cause is not None and not rank.went_well for rank in ranks)
        stopping = elements[key].state is State.CANCELLING
        require(stopping or not failed, f"{key} is {elements[key].state}, and a rank of it has failed")
        waits = elements[key].state is State.ASSIGNED and any(rank.started_at is not None for rank in ranks)
        require(not waits, f"{key} is assigned, and a rank of it has begun")


def check_node(node: Node, used: Resources, holding: Iterable[Resources]) -> None:
    """What a node is thought to hold is the sum of what runs there, and not more than it has."""
    total: Resources = {}
    for need in holding:
        total = add(total, need)
    names = set(total) | set(used)
    require(all(total.get(n, 0) == used.get(n, 0) for n in names), f"node {node.name}: used {used}, sum {total}")
    require(fits(total, node.resources), f"node {node.name}: {total} placed on {node.resources}")
