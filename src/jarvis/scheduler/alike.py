"""PURE: many alike tasks at once: what they have in common is worked out once, and each gets only what is its own.

What comes of it is what comes of one after the other: same rows, same events in the same order, same room. Whatever is out of the
common (arrays, gangs, licences, any end but one that went well) goes its way one by one.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby, repeat
from operator import attrgetter, itemgetter
from typing import NamedTuple

import msgspec

from jarvis.core.attempt import Attempt, Placement
from jarvis.core.effects import Assignment
from jarvis.core.ids import SOLO, ElementKey, fencing_token
from jarvis.core.inputs import Ended, Fact
from jarvis.core.parked import unpark
from jarvis.core.states import HELD_BY_USER, Cause, State, may_follow
from jarvis.core.task import Element, Task
from jarvis.scheduler import gangs
from jarvis.scheduler.cluster import Cluster, NodeView, Placed
from jarvis.scheduler.cycle import Decision
from jarvis.scheduler.placement import add_to_ranges, on_task_taken
from jarvis.scheduler.task_queue import Entry, PlacementClass, class_of
from jarvis.scheduler.turn import Turn

_new_key = tuple.__new__
_encode = msgspec.msgpack.Encoder().encode
_shape = attrgetter(
    "resources", "constraints", "tolerations", "queue", "balancer", "nodes", "licenses", "keys", "affinities", "preferences",
    "priority", "time_limit", "after", "hold", "begin", "deadline", "array", "origin",
)  # fmt: skip
"""Of a spec: what its class, its rank and its way to the queue hang on, beside its kind."""
_together = itemgetter(*(Decision._fields.index(name) for name in ("node", "ahead", "placement_class", "others")))
_EXIT = str(Cause.EXIT)
_MAY_SUCCEED = frozenset(state for state in State if may_follow(state, State.SUCCEEDED))


# ---------------------------------------------------------------- taken in


def take(turn: Turn, tasks: Sequence[Task], ended: dict[int, State]) -> None:
    """New rows enter memory, and the queue."""
    at = 0
    while at < len(tasks):
        run = _fresh(turn.cluster, tasks, at)
        if not run:
            on_task_taken(turn, tasks[at], ended)
        elif run[0].spec.hold:
            _hold_back(turn, run)
        else:
            _enqueue(turn, run)
        at += len(run) or 1


def _fresh(cluster: Cluster, tasks: Sequence[Task], at: int) -> list[Task]:
    """Those from here on that are new, have nothing to wait for but their release, and stand in line as the first of them does."""
    first, known, run = tasks[at], cluster.tasks, list[Task]()
    spec = first.spec
    waits = spec.after or spec.begin is not None or spec.deadline is not None
    if waits or spec.array is not None or spec.origin is not None or "gpu" in spec.resources:
        return run
    if cluster.order_of(spec.queue).times == "predicted":
        return run
    shape, calls, contains = _shape(spec), spec.function is None, spec.container is None
    project, user, when = first.project, first.user, first.submitted_at
    for place in range(at, len(tasks)):
        task = tasks[place]
        own = task.spec
        if _shape(own) != shape or (own.function is None) is not calls or (own.container is None) is not contains:
            break
        if task.id in known or task.state is not State.SUBMITTED or task.submitted_at != when:
            break
        if task.user != user or task.project != project:
            break
        known[task.id] = task
        run.append(task)
    return run


def _hold_back(turn: Turn, tasks: list[Task]) -> None:
    """Until their users release them."""
    first = tasks[0]
    turn.cluster.ledger.count_task(first.project, first.user, len(tasks))
    for task in tasks:
        task.state, task.base, task.reason = State.HELD, State.HELD, HELD_BY_USER
    turn.events_alike(State.HELD, _keys(tasks), detail={"reason": HELD_BY_USER})
    add_to_ranges(turn.changes.held, tasks)


def _keys(tasks: list[Task]) -> list[ElementKey]:
    return [_new_key(ElementKey, (task.id, SOLO)) for task in tasks]


def _enqueue(turn: Turn, tasks: list[Task]) -> None:
    cluster, first = turn.cluster, tasks[0]
    cluster.ledger.count_task(first.project, first.user, len(tasks))
    for task in tasks:
        task.state = State.QUEUED
    turn.events_alike(State.QUEUED, _keys(tasks))
    add_to_ranges(turn.changes.queued, tasks)
    cluster.foretell(tasks, turn.now)
    rank = cluster.entry_of(first, 0).rank
    entries = [Entry(rank, task.id, 0.0, task.id, 0) for task in tasks]
    cluster.queue.push_many(class_of(first.spec), entries, first.project, first.user)


# ---------------------------------------------------------------- assigned


def assign(turn: Turn, decisions: Sequence[Decision]) -> None:
    """What a cycle decided becomes so."""
    for _, group in groupby(decisions, _together):
        run = list(group)
        tasks = [turn.cluster.tasks[decision.key.task] for decision in run] if len(run) > 1 else []
        simple = bool(tasks) and _is_simple(run[0].placement_class)
        if simple and (all(_is_first(turn.cluster, task) for task in tasks) or _are_next(turn.cluster, tasks[0], run)):
            _assign_first(turn, run, tasks)
        else:
            for decision in run:
                if decision.others:
                    gangs.assign(turn, decision)
                else:
                    turn.assign(decision)


def _is_simple(placement_class: PlacementClass) -> bool:
    """Whether nothing but amounts changes on a node when one of them comes or goes."""
    c = placement_class
    return (
        c.nodes == 1
        and not (c.licenses or c.keys or c.affinities)
        and "gpu" not in c.need
        and "gpu_memory" not in c.need
    )


def _is_first(cluster: Cluster, task: Task) -> bool:
    """Whether its attempt is the first of a task that has no array."""
    return task.state is State.QUEUED and task.spec.array is None and task.id not in cluster.by_task


def _are_next(cluster: Cluster, task: Task, run: list[Decision]) -> bool:
    """Whether these are elements of an array in a row, from the first on that has no row of its own."""
    if task.spec.array is None or task.base is not State.QUEUED or cluster.named_ahead.get(task.id):
        return False
    begin, of = task.next_position, task.id
    return all(decision.position == at and decision.key[0] == of for at, decision in enumerate(run, begin))


def _assign_first(turn: Turn, decisions: list[Decision], tasks: list[Task]) -> None:
    """First attempts, on the same node, of single tasks or of the next elements of an array."""
    cluster, changes, now = turn.cluster, turn.changes, turn.now
    view = cluster.nodes[decisions[0].node]
    node, ident, token = view.node, view.node.id, fencing_token(cluster.incarnation, 1)
    placements = (Placement(0, ident, tasks[0].spec.resources),)
    changes.nodes[ident] = node
    placed: dict[int, Placed] = {}
    for number, (decision, task) in enumerate(zip(decisions, tasks, strict=True), node.next_number):
        if type(task) is not Task:
            unpark(task)
        key = of, index = decision.key
        if index == SOLO:
            task.state, task.reason = State.ASSIGNED, ""
        element = Element(task=of, index=index, state=State.ASSIGNED, attempt=1, token=token, node=ident)
        attempt = Attempt(
            task=of,
            index=index,
            attempt=1,
            token=token,
            node=ident,
            number=number,
            placements=placements,
            assigned_at=now,
        )
        cluster.elements[key] = changes.elements[key] = element
        cluster.by_task.setdefault(of, set()).add(index)
        cluster.attempts[key] = changes.attempts_new[of, index, 1] = attempt
        changes.tasks[of] = task
        placed[number] = Placed(
            key,
            decision.placement_class,
            decision.placement_class.need,
            decision.ahead,
            False,
            decision.until,
            decision.latest,
            held=decision.held,
        )
    node.next_number += len(tasks)
    view.place_alike(placed, decisions[0].placement_class)
    _hold(turn, decisions[0].placement_class, tasks, 1)
    turn.events_alike(State.ASSIGNED, [decision.key for decision in decisions], repeat(1), ident)
    if tasks[0].spec.array is not None:
        turn.count(tasks[0], State.QUEUED, State.ASSIGNED, len(tasks))
        tasks[0].next_position += len(tasks)
        turn.send_elements(tasks[0], token, ident, zip(placed, decisions, strict=True))
    else:
        turn.send(ident, [_assignment(number, token, task, now) for number, task in zip(placed, tasks, strict=True)])


def _hold(turn: Turn, placement_class: PlacementClass, tasks: list[Task], sign: int) -> None:
    """What their owners hold, in all."""
    for (project, user), count in Counter(map(_owner, tasks)).items():
        turn.cluster.ledger.change(project, user, placement_class.need, turn.now, sign * count)


_owner = attrgetter("project", "user")


def _assignment(number: int, token: int, task: Task, now: float) -> Assignment:
    spec = task.spec
    deadline = None if spec.deadline is None else max(spec.deadline - now, 0.0)
    return Assignment(
        number, token, 1, task.id, SOLO, task.project, task.user, msgspec.Raw(_encode(spec)), 0, 1, "", deadline
    )  # fmt: skip


# ---------------------------------------------------------------- ended


class _Left(NamedTuple):
    """What ended, in the order of its ends."""

    placed: dict[int, Placed]
    tasks: list[Task]
    attempts: list[int]


def succeed(turn: Turn, view: NodeView, facts: Sequence[Fact], at: int) -> int:
    """Record ends that went well, from this fact on, as far as they are of the same class; how many."""
    cluster, left = turn.cluster, _Left({}, [], [])
    placement_class: PlacementClass | None = None
    for place in range(at, len(facts)):
        fact = facts[place]
        if type(fact) is not Ended or fact.cause is not Cause.EXIT or fact.exit_code != 0 or fact.drain or fact.held:
            break
        placed = view.placed.get(fact.number)
        if placed is None or placed.placement_class is not placement_class:
            if placed is None or placement_class is not None or not _is_simple(placed.placement_class):
                break
            placement_class = placed.placement_class
        task, attempt = cluster.tasks[placed.key.task], cluster.attempts.get(placed.key)
        if attempt is None or attempt.token != fact.token or attempt.number != fact.number:
            break
        if cluster.elements[placed.key].state not in _MAY_SUCCEED:
            break
        if fact.usage is not None:
            cluster.learn(placement_class, task, fact.usage, fact.cause, turn.now)
        del view.placed[fact.number]
        left.placed[fact.number] = placed
        left.tasks.append(task)
        left.attempts.append(attempt.attempt)
        _close(turn, placed.key, task, attempt, fact)
    if placement_class is not None and left.tasks:
        _give_back(turn, view, placement_class, left)
    return len(left.tasks)


def _close(turn: Turn, key: ElementKey, task: Task, attempt: Attempt, fact: Ended) -> None:
    """The rows of an end."""
    cluster, changes, now = turn.cluster, turn.changes, turn.now
    del cluster.attempts[key]
    if attempt.started_at is None and fact.usage is not None:
        attempt.started_at = max(now - fact.age - fact.usage.wall_s, attempt.assigned_at)
    attempt.state, attempt.cause, attempt.message, attempt.ended_at = State.SUCCEEDED, fact.cause, fact.message, now
    attempt.exit_code, attempt.signal, attempt.usage = 0, fact.signal, fact.usage
    attempt.stdout, attempt.stderr = fact.stdout, fact.stderr
    attempt.result, attempt.result_digest, attempt.output = fact.result, fact.result_digest, fact.output
    attempt.artifacts = fact.artifacts
    at = (key[0], key[1], attempt.attempt)
    if at not in changes.attempts_new:
        changes.attempts[at] = attempt
    element = changes.elements[key] = cluster.elements[key]
    if task.started_at is None:
        task.started_at = now
    changes.tasks[task.id] = task
    if key[1] == SOLO:
        task.state, task.reason, task.ended_at = State.SUCCEEDED, "", now
        cluster.forget_solo(key)
        turn.ended_tasks.append(task)
        if task.spec.origin is not None:
            turn.steps_ended.append(task)
    else:
        turn.element_succeeded(task, element)
    element.state, element.reason, element.node, element.wish = State.SUCCEEDED, "", None, ""
    element.exit_code, element.signal, element.cause = 0, fact.signal, _EXIT


def _give_back(turn: Turn, view: NodeView, placement_class: PlacementClass, left: _Left) -> None:
    """What they held."""
    turn.recorded(view.node.id, left.placed)
    view.leave_alike(left.placed, placement_class)
    turn.cluster.pools.touch(view.node.id, len(left.tasks))
    _hold(turn, placement_class, left.tasks, -1)
    for (project, user), count in Counter(_owner(task) for task in left.tasks if task.spec.array is None).items():
        turn.cluster.ledger.count_task(project, user, -count)
    keys = [placed.key for placed in left.placed.values()]
    turn.events_alike(State.SUCCEEDED, keys, left.attempts, detail={"cause": _EXIT, "exit_code": 0})
