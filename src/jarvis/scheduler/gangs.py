"""PURE: gangs: attempts with several ranks, each on a node of its own, that start together, end together and never are partial.

Such an attempt is one row with one token: its ranks are written, and so decided, together. It lasts until every rank is over;
the first that does not end well has all others stopped, and only when nothing is left of it does its element go on.
"""

from collections.abc import Iterable, Iterator

from jarvis.core.attempt import Attempt, Placement, Rank, Usage
from jarvis.core.effects import Gang, Stop, ToNode
from jarvis.core.inputs import Ended, Started
from jarvis.core.retry import Ending
from jarvis.core.states import INFRA_CAUSES, Cause, State
from jarvis.core.task import ADDRESS_LABEL, Element, Task
from jarvis.scheduler.cluster import Cluster, Placed
from jarvis.scheduler.cycle import Decision
from jarvis.scheduler.task_queue import class_of
from jarvis.scheduler.turn import Turn

PORTS = range(20_000, 30_000)
"""Of which rank 0 gets one: below those that systems give to outgoing connections."""
NODE_STEP = 997
"""Between ports of nodes for the same number: several nodes may be one machine, and a prime spreads them."""


def assign(turn: Turn, decision: Decision) -> None:
    """As any attempt, with a rank on each of the nodes; every message follows the one commit that holds them all."""
    turn.assign(decision)
    cluster = turn.cluster
    attempt, task = cluster.attempts[decision.key], cluster.tasks[decision.key.task]
    ranks = [Rank(node=attempt.node, number=attempt.number)]
    for rank, node in enumerate(decision.others, 1):
        view = cluster.nodes[node]
        number = view.node.next_number
        view.node.next_number = number + 1
        turn.changes.nodes[node] = view.node
        ranks.append(Rank(node=node, number=number))
        placed = Placed(
            decision.key, decision.placement_class, task.spec.resources, False, until=decision.until,
            latest=decision.latest, rank=rank,
        )  # fmt: skip
        view.place(number, placed)
        if task.spec.keys:
            cluster.carriers.add(task.spec, node)
    attempt.ranks = tuple(ranks)
    attempt.placements = tuple(Placement(at, rank.node, task.spec.resources) for at, rank in enumerate(ranks))
    element = cluster.elements[decision.key]
    for rank in range(len(ranks)):
        say(turn, task, element, attempt, rank)


def say(turn: Turn, task: Task, element: Element, attempt: Attempt, rank: int) -> None:
    """Queue the assignment of a rank for its node; also used to say it again."""
    array = task.spec.array
    position = 0 if array is None else array.position_of(element.index) or 0
    told = told_to(turn.cluster, attempt, rank)
    at = attempt.ranks[rank]
    turn.send_assignment(task, element, attempt, position, element.cause or "", rank=(at.node, at.number, told))


def told_to(cluster: Cluster, attempt: Attempt, rank: int) -> Gang:
    """What a rank is told of the others. The port hangs on rank 0's number, so that no two attempts of a node have the same one
    soon, and one whose port was taken gets another with its next attempt."""
    port = PORTS[(attempt.number + NODE_STEP * attempt.node) % len(PORTS)]
    return Gang(rank, tuple(_address(cluster, at.node) for at in attempt.ranks), port)


def _address(cluster: Cluster, node: int) -> str:
    view = cluster.nodes.get(node)
    return "" if view is None else view.node.labels.get(ADDRESS_LABEL, view.node.name)


def on_rank_started(turn: Turn, placed: Placed, attempt: Attempt, fact: Started) -> None:
    """The element is ``starting`` while some ranks run, ``running`` when all have begun."""
    _begun(turn, placed, attempt, max(turn.now - fact.age, attempt.assigned_at))
    _follow(turn, placed, attempt, fact.state)


def _begun(turn: Turn, placed: Placed, attempt: Attempt, at: float) -> None:
    rank = attempt.ranks[placed.rank]
    rank.started_at = at if rank.started_at is None else rank.started_at
    attempt.started_at = rank.started_at if attempt.started_at is None else attempt.started_at
    turn.touch_attempt(attempt)


def _follow(turn: Turn, placed: Placed, attempt: Attempt, said: State) -> None:
    element = turn.cluster.elements[placed.key]
    all_run = said is State.RUNNING and all(rank.started_at is not None for rank in attempt.ranks)
    if element.state is State.ASSIGNED or (element.state is State.STARTING and all_run):
        attempt.state = State.RUNNING if all_run else State.STARTING
        turn.move(turn.cluster.tasks[placed.key.task], element, attempt.state)


def note_end(turn: Turn, placed: Placed, attempt: Attempt, fact: Ended) -> None:
    """What the node says of the rank's end; of rank 0 the attempt's outputs are those that people see."""
    rank = attempt.ranks[placed.rank]
    rank.usage, rank.stdout, rank.stderr = fact.usage, fact.stdout, fact.stderr
    if placed.rank == 0:
        attempt.stdout, attempt.stderr = fact.stdout, fact.stderr
        attempt.output, attempt.artifacts = fact.output, fact.artifacts
    if fact.usage is not None:
        _begun(turn, placed, attempt, max(turn.now - fact.age - fact.usage.wall_s, attempt.assigned_at))
        if any(other.cause is None for other in attempt.ranks if other is not rank):
            _follow(turn, placed, attempt, State.RUNNING)


def rank_over(turn: Turn, placed: Placed, ending: Ending, message: str = "") -> Ending | None:
    """A rank has ended, is lost or was given back: its room is free. The end of the whole attempt when it was the last."""
    cluster, attempt = turn.cluster, turn.cluster.attempts[placed.key]
    rank = attempt.ranks[placed.rank]
    rank.cause, rank.exit_code, rank.signal = ending.cause, ending.exit_code, ending.signal
    rank.ended_at, rank.message = turn.now, message
    view = cluster.nodes.get(rank.node)
    if view is not None:
        view.remove(rank.number)
        cluster.pools.touch(rank.node)
    turn.touch_attempt(attempt)
    if not rank.went_well:
        rank.failed_first = not any(other.failed_first for other in attempt.ranks)
        _stop_others(turn, placed, attempt)
    if any(other.cause is None for other in attempt.ranks):
        return None
    return _whole_end(turn, placed, attempt)


def _on(turn: Turn, rank: Rank) -> str:
    view = turn.cluster.nodes.get(rank.node)
    return "" if view is None else f" on {view.node.name}"


def _words(rank: Rank) -> str:
    if rank.message or rank.cause is not Cause.EXIT:
        return rank.message or f"it ended by {rank.cause}"
    return f"it ended with exit code {rank.exit_code}"


def _stop_others(turn: Turn, placed: Placed, attempt: Attempt) -> None:
    """Once: if its end was asked for already, they were told so."""
    task, element = turn.cluster.tasks[placed.key.task], turn.cluster.elements[placed.key]
    if element.state is State.CANCELLING or all(rank.cause is not None for rank in attempt.ranks):
        return
    turn.move(task, element, State.CANCELLING)
    stop_ranks(turn, attempt, Cause.CANCELLED, task.spec.grace)


def stop_ranks(turn: Turn, attempt: Attempt, cause: Cause, grace: float) -> None:
    """Tell every node that still has a rank of it to end that."""
    for node, number in alive(attempt):
        turn.effects.append(ToNode(node, Stop(number=number, cause=cause, grace_s=grace), turn.cause_id))


def each_rank(attempts: Iterable[Attempt]) -> Iterator[tuple[Attempt, int]]:
    """Every attempt, a gang's with each of its ranks that are not over."""
    for attempt in attempts:
        if not attempt.ranks:
            yield attempt, 0
            continue
        for at, rank in enumerate(attempt.ranks):
            if rank.cause is None:
                yield attempt, at


def alive(attempt: Attempt) -> list[tuple[int, int]]:
    """(node, number) of what is not over of an attempt, also of one that is no gang."""
    if not attempt.ranks:
        return [(attempt.node, attempt.number)]
    return [(rank.node, rank.number) for rank in attempt.ranks if rank.cause is None]


def _whole_end(turn: Turn, placed: Placed, attempt: Attempt) -> Ending:
    """Well if all ended well. The loss of a node explains whatever else the ranks ended by; else the first failure counts."""
    at = _decisive(attempt)
    rank = attempt.ranks[at]
    assert rank.cause is not None
    usages = [other.usage for other in attempt.ranks if other.usage is not None]
    if usages:
        attempt.usage = _sum(usages)
        task = turn.cluster.tasks[placed.key.task]
        turn.cluster.learn(class_of(task.spec), task, attempt.usage, rank.cause, turn.now)
    attempt.exit_code, attempt.signal, attempt.message = rank.exit_code, rank.signal, rank.message
    if not rank.went_well:
        attempt.message = f"rank {at}{_on(turn, rank)}: {_words(rank)}"
    turn.cluster.elements[placed.key].node = rank.node
    return Ending(rank.cause, rank.exit_code, rank.signal)


def _decisive(attempt: Attempt) -> int:
    """The rank by whose end that of the attempt is judged."""
    lost = [at for at, rank in enumerate(attempt.ranks) if rank.cause in INFRA_CAUSES]
    first = [at for at, rank in enumerate(attempt.ranks) if rank.failed_first]
    return next(iter(lost + first), 0)


def _sum(usages: list[Usage]) -> Usage:
    """Of all ranks together; the time of the longest, the memory of the largest."""
    return Usage(
        max(u.wall_s for u in usages), sum(u.cpu_user_s for u in usages), sum(u.cpu_system_s for u in usages),
        max(u.max_rss for u in usages), sum(u.read for u in usages), sum(u.written for u in usages),
    )  # fmt: skip
