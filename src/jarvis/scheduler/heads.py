"""PURE: what is next: the heads of the lanes, and the line that they stand in, by fairness between owners and rank within."""

from collections.abc import Iterator, Mapping
from heapq import heapify, heappop, heapreplace
from typing import Protocol

from jarvis.core.parked import ParkedTask, unpark
from jarvis.core.resources import Resources, add
from jarvis.core.states import State
from jarvis.core.task import Task
from jarvis.scheduler.cluster import Cluster
from jarvis.scheduler.policy.fairness import dominant
from jarvis.scheduler.pools import Pool
from jarvis.scheduler.task_queue import Entry, Lane

Place = tuple[Entry, int]
"""Where a lane's first entry stands by rank alone: unlike that of any other lane."""


class Head:
    """The next element of a lane that still counts, walking its entries without taking them out.

    ``entry`` is the first one as it stands in the lane until somebody asks (``settle``) whether it still counts.
    """

    __slots__ = (
        "_at", "_before", "_cluster", "_kept", "_settled", "_walked", "consumed", "entry", "lane", "pool", "position", "task",
    )  # fmt: skip

    def __init__(self, cluster: Cluster, lane: Lane, pool: Pool) -> None:
        self._cluster, self.lane, self.pool = cluster, lane, pool
        self._at = lane.head
        self._kept = self._settled = False
        self._before: Entry | None = None
        self._walked = 0
        """The array whose range was met: another range of it has nothing to add."""
        self.consumed = 0
        self.entry: Entry | None = lane.entries[lane.head]
        self.task: Task | None = None
        self.position = 0

    def settle(self) -> bool:
        """Look at the first entry in earnest. False when this changed what is first."""
        if self._settled:
            return True
        self._settled = True
        first = self.entry
        self._next_entry()
        return self.entry == first

    def advance(self) -> None:
        """Behind the element just placed."""
        if self.entry is not None and self.entry.is_range:
            self.position += 1
            if self._settle_range():
                return
        self._consume()
        self._next_entry()

    def follow(self, most: int, before: Place | None) -> list[Task]:
        """Go on over up to so many single tasks that count, have the same time limit and come before that place in the line, as
        if each had been placed and passed; the last one is now the first."""
        entries, tasks, at, found = self.lane.entries, self._cluster.tasks, self._at, list[Task]()
        if self._cluster.stands or self.task is None:
            return found
        limit = self.task.spec.time_limit
        for place in range(at, min(at + most, len(entries))):
            entry = entries[place]
            task = tasks.get(entry.task)
            if task is None or task.state is not State.QUEUED or entry.is_range or entry == self._before:
                break
            if type(task) is ParkedTask:
                unpark(task)
            if task.spec.array is not None or task.spec.time_limit != limit:
                break
            if before is not None and (entry, self.lane.number) > before:
                break
            self._before = entry
            found.append(task)
        if found:
            self._at += len(found)
            self.consumed += 0 if self._kept else len(found)
            self.entry, self.task, self.position = self._before, found[-1], entries[self._at - 1].position
        return found

    def follow_array(self, most: int) -> range:
        """Go on over up to so many elements of the array that it stands at, as if each had been placed and passed; the last one is
        now the first. Their positions."""
        task, entry = self.task, self.entry
        assert task is not None
        assert entry is not None
        plain = entry.is_range and task.spec.array is not None and task.spec.array.throttle is None
        if not plain or self._cluster.named_ahead.get(task.id):
            return range(0)
        found = range(self.position + 1, min(self.position + 1 + most, task.size))
        self.position += len(found)
        return found

    def skip_task(self) -> None:
        """Behind this entry without consuming it: it keeps its place."""
        self._kept = True
        self._next_entry()

    def _consume(self) -> None:
        """Only an unbroken row of entries at the head can be forgotten; later ones are seen to be spent next time."""
        if not self._kept:
            self.consumed += 1

    def _next_entry(self) -> None:
        entries, tasks = self.lane.entries, self._cluster.tasks
        while self._at < len(entries):
            entry = entries[self._at]
            self._at += 1
            task = tasks.get(entry.task)
            if type(task) is ParkedTask and task.state is State.QUEUED:
                unpark(task)
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
        stands = self._cluster.stands
        if stands and stands.get(task.key_at(entry.position), entry.rank) != entry.rank:
            return False
        if task.spec.array is None:
            return task.state is State.QUEUED
        return self._cluster.state_at(task, entry.position) is State.QUEUED

    def _settle_range(self) -> bool:
        """Move past positions that have a row of their own; False at the end of the array."""
        task = self.task
        assert task is not None
        named = self._cluster.named_ahead.get(task.id, ())
        while self.position < task.size and self.position in named:
            self.position += 1
        return self.position < task.size


class Line(Protocol):
    """Who is next. Only the first one may be sent back (``again``) or out (``drop``)."""

    def first(self) -> Head | None: ...

    def place(self) -> Place:
        """Of the first one, which may yet be found not to count. Only where there is one."""
        ...

    def again(self, placed: bool) -> None:
        """The first one has moved on to its next element, because this one was placed or passed over."""
        ...

    def drop(self) -> None:
        """The first one is out for this cycle."""
        ...

    def only_open(self) -> "Line":
        """Without those whose class fits nowhere."""
        ...

    def __bool__(self) -> bool: ...


class RankLine:
    """By rank alone."""

    def __init__(self, heads: list[Head]) -> None:
        self._heads = heads
        self._order = [(head.entry, head.lane.number, head) for head in heads if head.entry is not None]
        heapify(self._order)

    def first(self) -> Head | None:
        order = self._order
        while order:
            head = order[0][2]
            if head.settle():
                return head
            self.again(placed=False)
        return None

    def again(self, placed: bool) -> None:
        _, number, head = self._order[0]
        if head.entry is None:
            heappop(self._order)
        else:
            heapreplace(self._order, (head.entry, number, head))

    def place(self) -> Place:
        return self._order[0][:2]

    def second(self) -> Place | None:
        """Where the next head stands; it may yet be found not to count."""
        return min((place[:2] for place in self._order[1:3]), default=None)

    def drop(self) -> None:
        heappop(self._order)

    def only_open(self) -> "RankLine":
        return RankLine([head for _, _, head in self._order if head.pool.is_open])

    def __bool__(self) -> bool:
        return bool(self._order)


class _Share:
    """What an owner holds in the course of the cycle, as a fraction of its weight."""

    __slots__ = ("capacity", "held", "past", "weight")

    def __init__(self, held: Resources, past: float, weight: float, capacity: Resources) -> None:
        self.held, self.past, self.weight, self.capacity = dict(held), past, weight, capacity

    def value(self) -> float:
        return (dominant(self.held, self.capacity) + self.past) / self.weight

    def grow(self, need: Resources) -> float:
        held = self.held
        for name, amount in need.items():
            held[name] = held.get(name, 0) + amount
        return self.value()


class FairLine:
    """The owner with the lowest share, down a tree of which the leaves are lines by rank.

    Of equal ones, who hold nothing above all, the one whose first task stood first when the cycle began: else a stream of new
    owners would pass for ever one that waits for much room, and take away what was reserved for it.
    """

    def __init__(self, branches: "list[tuple[_Share, Line]]") -> None:
        self._order = [(share.value(), line.place(), share, line) for share, line in branches]
        self._order.sort(key=lambda branch: branch[:2])

    def first(self) -> Head | None:
        while self._order:
            head = self._order[0][3].first()
            if head is not None:
                return head
            heappop(self._order)
        return None

    def again(self, placed: bool) -> None:
        _, place, share, line = self._order[0]
        need = line_need(line) if placed else None
        line.again(placed)
        if need is not None:
            heapreplace(self._order, (share.grow(need), place, share, line))

    def drop(self) -> None:
        self._order[0][3].drop()

    def place(self) -> Place:
        return self._order[0][1]

    def only_open(self) -> "FairLine":
        return FairLine([(share, line) for _, _, share, of in self._order if (line := of.only_open())])

    def __bool__(self) -> bool:
        return bool(self._order)


def line_need(line: Line) -> Resources:
    """What the first of a line asks for; the same for all of its lane."""
    while isinstance(line, FairLine):
        line = line._order[0][3]  # noqa: SLF001 - its own kind
    assert isinstance(line, RankLine)
    return line._order[0][2].lane.placement_class.whole  # noqa: SLF001 - of the same file


def by_tier(heads: list[Head], tiers: Mapping[str, int]) -> Iterator[list[Head]]:
    """The highest first."""
    sorted_in: dict[int, list[Head]] = {}
    for head in heads:
        sorted_in.setdefault(tiers.get(head.lane.placement_class.queue, 0) if tiers else 0, []).append(head)
    for tier in sorted(sorted_in, reverse=True):
        yield sorted_in[tier]


def fair_line(cluster: Cluster, heads: list[Head], now: float, given: Mapping[str, Resources]) -> Line:
    """Projects, and users within each. One owner alone needs no shares. ``given``: what the cycle gave to projects already."""
    projects: dict[str, dict[str, list[Head]]] = {}
    for head in heads:
        if head.entry is None:
            continue  # what is guaranteed came first, and used it up
        projects.setdefault(head.lane.project, {}).setdefault(head.lane.user, []).append(head)
    if len(projects) == 1 and len(next(iter(projects.values()))) == 1:
        return RankLine(heads)
    ledger, capacity = cluster.ledger, cluster.capacity
    tree: list[tuple[_Share, Line]] = []
    for project, users in projects.items():
        leaves: list[tuple[_Share, Line]] = []
        for user, own in users.items():
            holding = ledger.of(project, user)
            share = _Share(holding.held, ledger.past(holding, capacity, now), 1.0, capacity)
            leaves.append((share, RankLine(own)))
        holding = ledger.of(project)
        held = add(holding.held, given[project]) if project in given else holding.held
        share = _Share(held, ledger.past(holding, capacity, now), cluster.weight_of(project), capacity)
        tree.append((share, FairLine(leaves) if len(leaves) > 1 else leaves[0][1]))
    return FairLine(tree)
