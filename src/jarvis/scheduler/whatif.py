"""PURE: what if: would this start now, when, and what would have to change? Asked of the very engine that places.

A question changes nothing: it works on a cluster that shares what is on nodes and has a queue and candidates of its own. What waits
already has found no room in the last cycle, so only what has a reservation stands before the one that is asked about.

What one question is answered by, up to ``TRIALS_MOST`` trials, shares what is looked up of nodes (:func:`to_ask`): which suit, and
when they have room. A trial copies nothing that grows with the tasks or nodes there are.
"""

from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from heapq import merge
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from jarvis.core.gpus import Room, ask_of, pick
from jarvis.core.ids import ElementKey
from jarvis.core.resources import BYTE_NAMES, Resources, fits, format_amount, written
from jarvis.core.states import State
from jarvis.core.task import Task, TaskSpec
from jarvis.scheduler.cluster import Cluster
from jarvis.scheduler.cycle import Policy, plan_cycle
from jarvis.scheduler.filters import unsuitable
from jarvis.scheduler.licenses import free_at
from jarvis.scheduler.near import said
from jarvis.scheduler.outlook import Outlook
from jarvis.scheduler.policy import licenses
from jarvis.scheduler.policy.backfill import NEVER, Backfill
from jarvis.scheduler.pools import Known, Pools
from jarvis.scheduler.task_queue import Entry, Lane, TaskQueue

BYTE_STEPS = 64
"""Into so many parts what a node has free is divided when less memory is tried."""
TRIALS_MOST = 64
"""Trials of changes a question: the halvings of a request for five resources, with some for all else. Beyond, nothing is tried."""
PLANNED_MOST = 1000
"""Tasks that stand before it, in all trials of a question together."""
HEADS_MOST = 32
"""Heads of lanes that are asked along, the best in rank."""
LANE_MOST, LANE_LOOK = 32, 100
AHEAD_MOST = 64
"""Of those before it that an expected start is planned with."""


StartWith = Callable[[TaskSpec], int | None]
"""The node on which a task would start now if it asked for that."""
RESERVE_ALL = Backfill("conservative", depth=AHEAD_MOST + 1, look=10 * AHEAD_MOST, always=True)


class Change(NamedTuple):
    """What would let it start at once: the words for it, the spec that it makes, and the node where it then starts."""

    text: str
    spec: TaskSpec
    node: int


def to_ask(cluster: Cluster, now: float) -> Cluster:
    """The same cluster, for several questions at one instant, in the course of which nothing changes."""
    return replace(cluster, pools=Pools(cluster.pools.filters, Known()), outlook=Outlook(cluster.nodes, now))


def question(cluster: Cluster, tasks: Iterable[Task]) -> Cluster:
    """A cluster to ask, in which these alone are queued. It shares nodes, elements and holdings; queue, candidates and shapes are
    its own, and so is what it adds to the tasks."""
    asked = replace(
        cluster, queue=TaskQueue(), pools=Pools(cluster.pools.filters, cluster.pools.known),
        tasks=ChainMap({}, cluster.tasks), shapes=dict(cluster.shapes), elements={}, by_task={}, named_ahead={},
        timers=[], victims_looked_at=NEVER,
    )  # fmt: skip
    for task in tasks:
        asked.tasks[task.id] = task
        asked.enqueue(task)
    return asked


def as_task(spec: TaskSpec, project: str, user: str, now: float, ident: int) -> Task:
    """A task that nobody submitted, queued as if it had just been."""
    alone = msgspec.structs.replace(spec, array=None)
    return Task(id=ident, uuid="", project=project, user=user, spec=alone, submitted_at=now, state=State.QUEUED)


def starts(
    cluster: Cluster, policy: Policy, task: Task, now: float, known: dict[int, Task] | None = None
) -> int | None:
    """The node on which it would start now; None when it would wait. ``known``: what stands before it, if that was asked."""
    first = before(cluster, policy) if known is None else known
    asked = question(cluster, [*(other for ident, other in first.items() if ident != task.id), task])
    policy = replace(policy, ahead_seconds=0.0)
    for decision in plan_cycle(asked, policy, now, seed=cluster.last_seq).decisions:
        if decision.key.task == task.id:
            return decision.node
    return None


def before(cluster: Cluster, policy: Policy, each: int = 1) -> dict[int, Task]:
    """What has a reservation, and what may get one in the next cycle, as shares have changed: the heads of lanes, at least so many
    of each."""
    if policy.backfill.name == "skip":
        return {}
    reserved = [key.task for key in cluster.reservations]
    heads = _heads(cluster, LANE_MOST if policy.backfill.name == "conservative" else each)
    found: dict[int, Task] = {}
    for ident in [*reserved, *heads]:
        task = cluster.tasks.get(ident)
        if task is not None:
            found[ident] = as_task(task.spec, task.project, task.user, task.submitted_at, ident)
    return found


def _heads(cluster: Cluster, each: int) -> list[int]:
    """The best in rank of the first of each lane."""
    lanes = [lane for c in cluster.queue.classes() for lane in cluster.queue.lanes(c)]
    first = merge(*(islice(_live(cluster, lane), each) for lane in lanes))
    return [entry.task for entry in islice(first, HEADS_MOST)]


def _live(cluster: Cluster, lane: Lane) -> Iterator[Entry]:
    """Entries that still count."""
    for entry in islice(lane.waiting(), LANE_LOOK):
        task = cluster.tasks.get(entry.task)
        if task is not None and State.QUEUED in (task.state, task.base):
            yield entry


# ---------------------------------------------------------------- what would have to change


class Trials:
    """Asks where the task would start with other requests, until it has asked so often as one question may."""

    def __init__(self, cluster: Cluster, policy: Policy, task: Task, now: float) -> None:
        self._cluster = cluster if cluster.outlook is not None else to_ask(cluster, now)
        self._policy, self._task, self._now = policy, task, now
        self._before = before(cluster, policy)
        self.left = min(TRIALS_MOST, PLANNED_MOST // (len(self._before) + 1))

    def __call__(self, spec: TaskSpec) -> int | None:
        if not self.left:
            return None
        self.left -= 1
        task = self._task
        asked = as_task(spec, task.project, task.user, task.submitted_at, task.id)
        return starts(self._cluster, self._policy, asked, self._now, self._before)


def changes(cluster: Cluster, policy: Policy, task: Task, now: float) -> list[Change]:
    """Single changes of the request that let it start at once, each tried: the most that it may ask for, one constraint less, one
    taint more tolerated, a shorter limit."""
    start_with = Trials(cluster, policy, task, now)
    otherwise = [*_otherwise(cluster, task.spec, start_with), *_shorter(cluster, task.spec, start_with, now)]
    return [*_smaller(cluster, task.spec, start_with), *_on_fewer_nodes(task.spec, start_with), *otherwise]


def _smaller(cluster: Cluster, spec: TaskSpec, start_with: StartWith) -> Iterator[Change]:
    """The most of each resource with which it would start. What starts with some starts with less, so it is found by halving."""
    rooms = [
        (view.free, view.gpus) for view in cluster.nodes.values()
        if unsuitable(view, spec.constraints, spec.tolerations, spec.kind, spec.nodes > 1) is None
    ]  # fmt: skip
    for name in sorted(spec.resources):
        most, wanted = max(_most(rooms, spec.resources, name), 0), spec.resources[name]
        unit = max(most // BYTE_STEPS, 1) if name in BYTE_NAMES else 1000
        low, high, best = 0, -(-most // unit), None
        while low < high:
            steps = (low + high + 1) // 2 if best is not None or high * unit < most else high
            amount = written(name, min(steps * unit, most))
            less = msgspec.structs.replace(spec, resources={**spec.resources, name: amount})
            node = start_with(less)
            if node is None:
                high = steps - 1
            else:
                low, best = steps, (amount, less, node)
        if best is not None:
            amount, less, node = best
            text = f"{format_amount(name, amount)} {name} instead of {format_amount(name, wanted)} starts now on "
            yield Change(text + cluster.nodes[node].node.name, less, node)


def _on_fewer_nodes(spec: TaskSpec, start_with: StartWith) -> Iterator[Change]:
    """The most nodes on which a gang would start, likewise by halving."""
    low, high, best = 0, spec.nodes - 1, None
    while low < high:
        nodes = (low + high + 1) // 2
        fewer = msgspec.structs.replace(spec, nodes=nodes)
        node = start_with(fewer)
        if node is None:
            high = nodes - 1
        else:
            low, best = nodes, (fewer, node)
    if best is not None:
        yield Change(f"on {low} node{'s' if low > 1 else ''} instead of {spec.nodes} it starts now", *best)


def _otherwise(cluster: Cluster, spec: TaskSpec, start_with: StartWith) -> Iterator[Change]:
    for text, other in _candidates(cluster, spec):
        node = start_with(other)
        if node is not None:
            yield Change(text.format(node=cluster.nodes[node].node.name), other, node)


def _candidates(cluster: Cluster, spec: TaskSpec) -> Iterator[tuple[str, TaskSpec]]:
    for constraint in spec.constraints:
        rest = tuple(c for c in spec.constraints if c != constraint)
        said = constraint.label + constraint.op.replace("exists", "") + constraint.value
        yield (
            f"without the constraint {said} it starts now on {{node}}",
            msgspec.structs.replace(spec, constraints=rest),
        )
    for affinity in spec.affinities:
        if not affinity.weight:
            others = tuple(a for a in spec.affinities if a != affinity)
            said = f"{affinity.kind} {affinity.key}" + (f"@{affinity.label}" if affinity.label else "")
            text = f"without being {said} it starts now on {{node}}"
            yield text, msgspec.structs.replace(spec, affinities=others)
    for name in licenses.short(cluster.licenses, spec.licenses):
        left = max(cluster.licenses.free(name), 0)
        fewer = {**spec.licenses, name: left} if left else {n: c for n, c in spec.licenses.items() if n != name}
        text = f"with {left} {name} instead of {spec.licenses[name]} it starts now on {{node}}"
        yield text, msgspec.structs.replace(spec, licenses=fewer)
    for taint in sorted(_alone(spec, (view.node.taints for view in cluster.nodes.values()))):
        more = (*spec.tolerations, taint)
        yield f"tolerating {taint} it starts now on {{node}}", msgspec.structs.replace(spec, tolerations=more)


def _alone(spec: TaskSpec, nodes: Iterable[tuple[str, ...]]) -> set[str]:
    """Taints that keep it from a node which has no other that does."""
    barred = ([taint for taint in taints if taint not in spec.tolerations] for taints in {*nodes})
    return {taints[0] for taints in barred if len(taints) == 1}


def _shorter(cluster: Cluster, spec: TaskSpec, start_with: StartWith, now: float) -> Iterator[Change]:
    """The longest limit with which it would be over before something begins that is in its way, by halving: what is over sooner is
    in the way of less."""
    begins = {start for _, start in cluster.reservations.values()} | {b.begin for b in cluster.bookings.values()}
    seconds = sorted({float(int(start - now) - 1) for start in begins if now < start < NEVER})
    seconds = [s for s in seconds if s >= 1 and (spec.time_limit is None or s < spec.time_limit)]
    low, high, best = 0, len(seconds), None
    while low < high:
        middle = (low + high) // 2
        less = msgspec.structs.replace(spec, time_limit=seconds[middle])
        node = start_with(less)
        if node is None:
            high = middle
        else:
            low, best = middle + 1, (seconds[middle], less, node)
    if best is not None:
        limit, less, node = best
        name = cluster.nodes[node].node.name
        yield Change(f"with a time limit of {limit:.0f} s it starts now on {name}", less, node)


def _most(rooms: list[tuple[Resources, Room]], need: Resources, name: str) -> int:
    """The most of one resource that some node has free together with all else that is asked, and less than is asked: what is
    there and still refused may be kept for others."""
    rest = {other: amount for other, amount in need.items() if other != name}
    most, ask = 0, ask_of(rest)
    for free, room in rooms:
        if fits(rest, free) and (ask is None or pick(room, ask) is not None):
            most = max(most, _gpu_most(room, name) if name in ("gpu", "gpu_memory") else free.get(name, 0))
    return min(most, need[name] - (1 if name in BYTE_NAMES else 1000))


def _gpu_most(room: Room, name: str) -> int:
    """Whole GPUs that nobody has, else the largest share; of memory the most that one has."""
    if name == "gpu_memory":
        return max(room.memory, default=0)
    whole = 1000 * sum(amount == 1000 for amount in room.useful)
    return whole or max(room.parts, default=0)


# ---------------------------------------------------------------- when


def expected(
    cluster: Cluster, policy: Policy, task: Task, ahead: list[Task], now: float
) -> tuple[float | None, float | None]:
    """(earliest, latest) expected start, from the limits of what runs: if nothing went before it, and with a reservation for
    everything that does. None where what is known does not tell."""
    if task.spec.licenses:
        return _with_licenses(cluster, policy, task, ahead, now)
    cluster = _reopening(cluster, now)
    alone = _reservation(cluster, policy, [task], task, now)
    behind = _reservation(cluster, policy, [*ahead[:AHEAD_MOST], task], task, now) if len(ahead) <= AHEAD_MOST else None
    return alone, behind


def _reopening(cluster: Cluster, now: float) -> Cluster:
    """The same, in which nodes under maintenance are some that take tasks: their bookings say from when on."""
    closed = {ident: view for ident, view in cluster.nodes.items() if view.closed} if cluster.bookings else {}
    if not closed:
        return cluster
    nodes = cluster.nodes | {ident: replace(view, closed="") for ident, view in closed.items()}
    return to_ask(replace(cluster, nodes=nodes), now)


def _with_licenses(
    cluster: Cluster, policy: Policy, task: Task, ahead: list[Task], now: float
) -> tuple[float | None, float | None]:
    """Room and licences apart: it starts when both are there. Nothing is told behind others that ask for the same licences."""
    free = free_at(cluster, task.spec, now)
    asks = task.spec.licenses.keys()
    others = [_without_licenses(other) for other in ahead if not other.spec.licenses.keys() & asks]
    alone, behind = expected(cluster, policy, _without_licenses(task), others, now)
    return (
        None if alone is None or free is None else max(alone, free),
        None if behind is None or free is None or len(others) < len(ahead) else max(behind, free),
    )


def _without_licenses(task: Task) -> Task:
    return as_task(
        msgspec.structs.replace(task.spec, licenses={}), task.project, task.user, task.submitted_at, task.id
    )  # fmt: skip


def _reservation(cluster: Cluster, policy: Policy, tasks: list[Task], task: Task, now: float) -> float | None:
    asked = question(cluster, tasks)
    return start_in(asked, policy, task, now)


def start_in(
    asked: Cluster, policy: Policy, task: Task, now: float, backfill: Backfill = RESERVE_ALL
) -> float | None:  # fmt: skip
    """When a task starts in a cluster to ask; None where what is known does not tell."""
    asked.reservations = {}
    asked.claims = {}
    plan = plan_cycle(asked, replace(policy, backfill=backfill, ahead_seconds=0.0), now, seed=asked.last_seq)
    for decision in plan.decisions:
        if decision.key.task == task.id:
            return now
    for reservation in plan.reservations:
        if reservation.key == ElementKey(task.id):
            return reservation.start
    return None


def plan_task(cluster: Cluster, policy: Policy, spec: TaskSpec, owner: tuple[str, str], now: float) -> dict[str, Any]:
    """Whether a task like this would start now, wait or never run, before anybody submits it."""
    from jarvis.scheduler.explain import never_fits, queued_reasons  # which builds on this module
    from jarvis.scheduler.preempted import barred, would_preempt
    from jarvis.scheduler.quotas import allows

    refused = never_fits(cluster, spec) or allows(cluster, *owner, spec, 0)
    if refused is not None:
        return {
            "verdict": "never",
            "node": None,
            "summary": str(refused),
            "reasons": [],
            "changes": [],
            "earliest": None,
            "earliest_s": None,
        }
    cluster = to_ask(cluster, now)
    task = as_task(spec, *owner, now, ident=1 << 62)
    node = starts(cluster, policy, task, now)
    if node is not None:
        name, there = cluster.nodes[node].node.name, said(cluster.holders, spec, node)
        summary = f"it starts now on {name}" + (f", which holds {there}" if there else "")
        return {
            "verdict": "now", "node": name, "summary": summary, "reasons": [], "changes": [],
            "earliest": now, "earliest_s": 0.0,
        }  # fmt: skip
    reasons = queued_reasons(cluster, task, now)
    preempts, held_back = would_preempt(cluster, policy, task, now)
    none = (barred(cluster, policy, task, now), held_back) if preempts is None else ()
    reasons = [reason for reason in (preempts, *reasons, *none) if reason is not None]
    earliest, _ = expected(cluster, policy, task, [], now)
    if earliest is not None and (preempts or any(none)):
        earliest = now  # it need not wait for any end that is known
    return {
        "verdict": "wait", "node": None,
        "summary": "it waits: " + ("; ".join(r.text for r in reasons) or "others go first"),
        "reasons": [{"reason": r.word, "text": r.text} for r in reasons],
        "changes": [change.text for change in changes(cluster, policy, task, now)],
        "earliest": earliest,
        "earliest_s": None if earliest is None else round(earliest - now, 3),
    }  # fmt: skip
