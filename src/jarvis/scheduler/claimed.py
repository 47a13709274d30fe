"""PURE: what comes before everything in a cycle: what others were stopped for, and what projects are guaranteed."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from jarvis.core.ids import ElementKey
from jarvis.core.node import NodeState
from jarvis.core.task import Task
from jarvis.scheduler.cluster import Cluster
from jarvis.scheduler.heads import Head, RankLine
from jarvis.scheduler.policy.preemption import Claim
from jarvis.scheduler.pools import Pool
from jarvis.scheduler.task_queue import class_of

if TYPE_CHECKING:
    from jarvis.scheduler.cycle import Cycle

# ---------------------------------------------------------------- what others were stopped for


def place_claimed(cycle: "Cycle") -> None:
    """Each claim's task starts if it can, anywhere unless others have a start reserved, which elsewhere it might put off; else its
    room is kept as long as a victim is on its way out."""
    live = dict(_live_claims(cycle))
    for claim, task, _, pool in live.values():
        keep_room(cycle, claim, task, pool)
    for key, (claim, task, position, pool) in live.items():
        for node in claim.nodes:
            cycle.choice.give_back(node, cycle.seconds(task))
        if not cycle.within(task, pool):
            continue
        is_free = cycle.cluster.reservations.keys() <= {key}
        if cycle.place(pool, task, position, () if is_free else claim.nodes):
            cycle.taken.add(key)
        elif is_coming(cycle.cluster, claim):
            cycle.taken.add(key)
            cycle.plan.claims[key] = claim
            keep_room(cycle, claim, task, pool)
            cycle.will_have(task, pool)


def keep_room(cycle: "Cycle", claim: Claim, task: Task, pool: Pool) -> None:
    """On every node of a claim."""
    for node in claim.nodes:
        cycle.choice.keep(node, pool.need, cycle.seconds(task))


def is_coming(cluster: Cluster, claim: Claim) -> bool:
    """Whether room is still on its way: a victim has not ended, or what was given ahead is not taken back yet."""
    for view in (cluster.nodes[node] for node in claim.nodes):
        if view.ahead or any(n in view.placed and view.placed[n].key == key for key, n in claim.victims):
            return True
    return False


def _live_claims(cycle: "Cycle") -> Iterator[tuple[ElementKey, tuple[Claim, Task, int, Pool]]]:
    """Those whose task still waits, on nodes that may still take it."""
    for key, claim in cycle.cluster.claims.items():
        task = cycle.cluster.tasks.get(key.task)
        position = None if task is None else cycle.position_of(task, key)
        if task is None or position is None:
            continue
        pool = cycle.pool(class_of(task.spec))
        if all(_may_take(cycle, node, pool) for node in claim.nodes):
            yield key, (claim, task, position, pool)


def _may_take(cycle: "Cycle", node: int, pool: Pool) -> bool:
    """Whether the task may still start there; a node that is only cut off for the moment may come back with the victims."""
    view = cycle.cluster.nodes.get(node)
    if view is None or view.node.state is NodeState.LOST:
        return False
    return view.session is None or (node in pool.group.members and cycle.choice.suits(pool, node))


# ---------------------------------------------------------------- what is guaranteed


def place_covered(cycle: "Cycle", heads: list[Head]) -> None:
    """What projects are guaranteed comes before what others would get, by rank alone, as far as there is room."""
    guarantees = cycle.guarantees
    line = RankLine([head for head in heads if guarantees and head.lane.project in guarantees.of])
    while (head := line.first()) is not None and len(cycle.plan.decisions) < cycle.policy.budget:
        task = head.task
        assert task is not None
        if not cycle.covers(task) or not cycle.within(task, head.pool):
            line.drop()
        elif cycle.throttled(task) or task.key_at(head.position) in cycle.taken:
            cycle.skip(line, head)
        elif cycle.place(head.pool, task, head.position):
            head.advance()
            line.again(placed=True)
        else:
            line.drop()
