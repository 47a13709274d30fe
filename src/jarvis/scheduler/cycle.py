"""PURE: plan_cycle: snapshot in, plan out; nothing is changed until the reactor applies the plan.

The same function places in production, in simulation and in what-if.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush, heapreplace
from typing import NamedTuple

from jarvis.core import resources as vector
from jarvis.core.ids import ElementKey
from jarvis.core.resources import Resources
from jarvis.core.states import State
from jarvis.core.task import Task
from jarvis.scheduler.cluster import Cluster, NodeView
from jarvis.scheduler.filters import eligible_reason
from jarvis.scheduler.load_balancer import SCORES, Candidate
from jarvis.scheduler.task_queue import Entry, PlacementClass

AHEAD_SECONDS = 0.1
"""Estimated work assigned ahead of free room, per node and class."""
AHEAD_MOST = 2048
"""Assignments ahead, per node and class, however short they are."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Settings of a cycle."""

    balancer: str = "least_loaded"
    queue_balancers: dict[str, str] = field(default_factory=dict)
    budget: int = 4096
    """Placements a cycle, so that renewal and acknowledgements are never kept waiting (about 10 ms)."""
    ahead_seconds: float = AHEAD_SECONDS
    ahead_most: int = AHEAD_MOST


class Decision(NamedTuple):
    """One element goes to one node."""

    key: ElementKey
    position: int
    node: int
    ahead: bool
    placement_class: PlacementClass


@dataclass(slots=True)
class Plan:
    """What a cycle decided. ``consumed`` entries at the head of each class are placed or no longer count."""

    decisions: list[Decision] = field(default_factory=list)
    consumed: dict[PlacementClass, int] = field(default_factory=dict)
    blocked: set[PlacementClass] = field(default_factory=set)
    exhausted: bool = False
    """The budget ended it: there may be more to place at once."""


def plan_cycle(cluster: Cluster, policy: Policy, seed: int = 0) -> Plan:
    """Place what is queued, in order, as far as room and budget go."""
    return _Cycle(cluster, policy, seed).run()


class _Head:
    """The next element of a class that still counts, walking its entries without taking them out."""

    __slots__ = ("_before", "_cluster", "_entries", "_kept", "_walked", "consumed", "entry", "position", "task")

    def __init__(self, cluster: Cluster, entries: Iterator[Entry]) -> None:
        self._cluster, self._entries = cluster, entries
        self._kept = False
        self._before: Entry | None = None
        self._walked = 0
        """The array whose range was met: another range of it has nothing to add."""
        self.consumed = 0
        self.entry: Entry | None = None
        self.task: Task | None = None
        self.position = 0
        self._next_entry()

    def advance(self) -> None:
        """Behind the element just placed."""
        if self.entry is not None and self.entry.is_range:
            self.position += 1
            if self._settle_range():
                return
        self._consume()
        self._next_entry()

    def skip_task(self) -> None:
        """Behind this entry without consuming it: a throttled array keeps its place at the head."""
        self._kept = True
        self._next_entry()

    def _consume(self) -> None:
        """Only an unbroken row of entries at the head can be forgotten; later ones are seen to be spent next time."""
        if not self._kept:
            self.consumed += 1

    def _next_entry(self) -> None:
        for entry in self._entries:
            task = self._cluster.tasks.get(entry.task)
            if task is not None and self._counts(task, entry):
                self.entry = self._before = entry
                self.task = task
                if not entry.is_range:
                    self.position = entry.position
                    return
                self._walked = task.id
                self.position = max(entry.position, task.next_position)
                if self._settle_range():
                    return
            self._consume()
        self.entry = self.task = None

    def _counts(self, task: Task, entry: Entry) -> bool:
        """What was queued twice (held and released meanwhile) counts once."""
        if entry == self._before:
            return False
        if entry.is_range:
            return task.base is State.QUEUED and task.id != self._walked
        return self._cluster.state_at(task, entry.position) is State.QUEUED

    def _settle_range(self) -> bool:
        """Move past positions that have a row of their own; False at the end of the array."""
        task = self.task
        assert task is not None
        named = self._cluster.named_ahead.get(task.id, ())
        while self.position < task.size and self.position in named:
            self.position += 1
        return self.position < task.size


class _Cycle:
    """One run: overlays hold what this cycle has placed so far."""

    def __init__(self, cluster: Cluster, policy: Policy, seed: int) -> None:
        self.cluster, self.policy, self.seed = cluster, policy, seed
        self.plan = Plan()
        self.used: dict[int, Resources] = {}
        self.ahead: dict[tuple[int, PlacementClass], int] = {}
        self.allowed: dict[tuple[int, PlacementClass], int] = {}
        self.turns: dict[int, int] = {}
        self.same_task: dict[tuple[int, int], int] = {}
        self.running: dict[int, int] = {}
        self.pools: dict[tuple[PlacementClass, int], list[tuple[float, int]]] = {}

    def run(self) -> Plan:
        # 1. heads of all classes, best first
        queue = self.cluster.queue
        heads = {c: _Head(self.cluster, queue.entries(c)) for c in queue.classes()}
        order = [(head.entry, number, c) for number, (c, head) in enumerate(heads.items()) if head.entry is not None]
        heapify(order)
        # 2. place the best head; a class that fits nowhere is out for this cycle
        while order:
            if len(self.plan.decisions) >= self.policy.budget:
                self.plan.exhausted = True
                break
            _, number, placement_class = heappop(order)
            head = heads[placement_class]
            if self._place(placement_class, head) and head.entry is not None:
                heappush(order, (head.entry, number, placement_class))
        # 3. what the queue can forget
        self.plan.consumed = {c: head.consumed for c, head in heads.items() if head.consumed}
        return self.plan

    def _place(self, placement_class: PlacementClass, head: _Head) -> bool:
        """Place the head's element, or find the class blocked. True while the class goes on."""
        task = head.task
        assert task is not None
        if self._throttled(task):
            head.skip_task()
            return True
        chosen = self._choose(placement_class, task)
        if chosen is None:
            self.plan.blocked.add(placement_class)
            return False
        node, is_ahead = chosen
        self.plan.decisions.append(Decision(task.key_at(head.position), head.position, node, is_ahead, placement_class))
        self._account(placement_class, task, node, is_ahead)
        head.advance()
        return True

    def _throttled(self, task: Task) -> bool:
        array = task.spec.array
        if array is None or array.throttle is None:
            return False
        return self.cluster.on_nodes.get(task.id, 0) + self.running.get(task.id, 0) >= array.throttle

    def _account(self, placement_class: PlacementClass, task: Task, node: int, is_ahead: bool) -> None:
        if is_ahead:
            at = (node, placement_class)
            self.ahead[at] = self._ahead_count(node, placement_class) + 1
        else:
            self.used[node] = vector.add(self._used(node), placement_class.need)
        self.turns[node] = self.turns.get(node, 0) + 1
        self.running[task.id] = self.running.get(task.id, 0) + 1
        self.same_task[node, task.id] = self.same_task.get((node, task.id), 0) + 1

    def _used(self, node: int) -> Resources:
        used = self.used.get(node)
        return self.cluster.nodes[node].used if used is None else used

    def _ahead_count(self, node: int, placement_class: PlacementClass) -> int:
        count = self.ahead.get((node, placement_class))
        return self.cluster.nodes[node].ahead.get(placement_class, 0) if count is None else count

    # nodes are kept in a heap per class by score; an entry is right when its score still is

    def _choose(self, placement_class: PlacementClass, task: Task) -> tuple[int, bool] | None:
        at = (placement_class, task.id if self._balancer(placement_class) == "spread" else 0)
        pool = self.pools.get(at)
        if pool is None:
            pool = self.pools[at] = self._pool(placement_class, task)
        while pool:
            score, node = pool[0]
            room = self._room(self.cluster.nodes[node], placement_class)
            if room is None:
                heappop(pool)
                continue
            current = self._score(placement_class, node, task)
            if current == score or len(pool) == 1:
                return node, room
            heapreplace(pool, (current, node))
        return None

    def _pool(self, placement_class: PlacementClass, task: Task) -> list[tuple[float, int]]:
        pool = [
            (self._score(placement_class, node, task), node)
            for node, view in self.cluster.nodes.items()
            if eligible_reason(view, placement_class) is None and self._room(view, placement_class) is not None
        ]
        heapify(pool)
        return pool

    def _room(self, view: NodeView, placement_class: PlacementClass) -> bool | None:
        """False: fits now; True: may be assigned ahead; None: neither."""
        node = view.node.id
        if not view.ahead:
            free = vector.subtract(view.node.resources, self._used(node))
            if vector.fits(placement_class.need, free):
                return False
        return True if self._ahead_count(node, placement_class) < self._ahead_allowed(view, placement_class) else None

    def _ahead_allowed(self, view: NodeView, placement_class: PlacementClass) -> int:
        at = (view.node.id, placement_class)
        allowed = self.allowed.get(at)
        if allowed is None:
            estimate = self.cluster.estimates.get(placement_class)
            slots = min((view.node.resources.get(n, 0) // a for n, a in placement_class.resources if a), default=1)
            seconds = self.policy.ahead_seconds * max(slots, 1)
            allowed = 0 if estimate is None else min(self.policy.ahead_most, int(seconds / max(estimate, 1e-6)))
            self.allowed[at] = allowed
        return allowed

    def _score(self, placement_class: PlacementClass, node: int, task: Task) -> float:
        name = self._balancer(placement_class)
        view = self.cluster.nodes[node]
        turn = self.turns.get(node, 0) + (view.node.next_number if name == "round_robin" else 0)
        return SCORES[name](
            Candidate(
                node, view.node.resources, self._used(node), self._ahead_count(node, placement_class),
                self.same_task.get((node, task.id), 0), turn, self.seed,
            )
        )  # fmt: skip

    def _balancer(self, placement_class: PlacementClass) -> str:
        chosen = self.policy.queue_balancers.get(placement_class.queue, self.policy.balancer)
        return placement_class.balancer if placement_class.balancer in SCORES else chosen
