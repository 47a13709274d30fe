"""PURE: the task queue: what could start, by placement class, in order within it.

Entries are hints: whether one still counts is decided by the state of its element when it is looked at, so holding or
cancelling needs no search here. Work grows with the classes that have entries, not with the tasks queued. Within a class each
owner has a lane of its own, so that fairness between owners costs no search either.
"""

from bisect import insort
from collections.abc import Collection, Iterator
from functools import lru_cache
from heapq import merge
from itertools import islice
from operator import le
from typing import NamedTuple

import msgspec

from jarvis.core.resources import Resources, times
from jarvis.core.task import Affinity, Constraint, Preference, TaskSpec


class PlacementClass(NamedTuple):
    """Tasks with the same shape and constraints are one class: what one of them cannot have, none can."""

    resources: tuple[tuple[str, int], ...]
    constraints: tuple[Constraint, ...]
    tolerations: tuple[str, ...]
    kind: str
    queue: str
    balancer: str
    nodes: int = 1
    licenses: tuple[tuple[str, int], ...] = ()
    keys: tuple[str, ...] = ()
    affinities: tuple[Affinity, ...] = ()
    preferences: tuple[Preference, ...] = ()

    @property
    def need(self) -> Resources:
        """On each node. Shared by all who ask: never to be changed."""
        return _vector(self.resources)

    @property
    def whole(self) -> Resources:
        """On all nodes together, as :attr:`need`."""
        return _vector(self.resources, self.nodes)


_new_class = tuple.__new__
"""Half of the time of a call by names, which counts when all that waits is put into the queue of a new leader."""


@lru_cache(4096)
def _vector(resources: tuple[tuple[str, int], ...], nodes: int = 1) -> Resources:
    return times(dict(resources), nodes)


def class_of(spec: TaskSpec) -> PlacementClass:
    resources = spec.resources
    return _new_class(
        PlacementClass,
        (
            tuple(sorted(resources.items()) if len(resources) > 1 else resources.items()),
            spec.constraints,
            spec.tolerations,
            spec.kind,
            spec.queue,
            spec.balancer or "",
            spec.nodes,
            tuple(sorted(spec.licenses.items())) if spec.licenses else (),
            spec.keys,
            spec.affinities,
            spec.preferences,
        ),
    )


class Entry(msgspec.Struct, gc=False, frozen=True, order=True):
    """Sorts by rank (what the order of the policy says, lower first), then submission, then position in the array. No tuple: those
    are larger, and the collector of cycles would look at a million of them at once.

    Steps of a workflow stand where it was submitted (``first``), the one with the longest path behind it first (``path``,
    negative).
    """

    rank: float
    first: int
    path: float
    task: int
    position: int
    is_range: bool = False
    """Stands for all positions of an array from ``position`` on that have no row of their own."""


class Lane:
    """What one owner has queued of one class: sorted entries with a head that moves on; arrivals in order cost an append."""

    __slots__ = ("entries", "head", "number", "placement_class", "project", "user")

    def __init__(self, placement_class: PlacementClass, project: str, user: str, number: int) -> None:
        self.placement_class, self.project, self.user, self.number = placement_class, project, user, number
        self.entries: list[Entry] = []
        self.head = 0

    def push(self, entry: Entry) -> None:
        if not self.entries or self.entries[-1] <= entry:
            self.entries.append(entry)
        else:
            insort(self.entries, entry, lo=self.head)

    def push_many(self, entries: list[Entry]) -> None:
        """In ascending order, they cost one comparison."""
        ascending = all(map(le, entries, islice(entries, 1, None)))
        if ascending and (not self.entries or self.entries[-1] <= entries[0]):
            self.entries += entries
        else:
            for entry in entries:
                self.push(entry)

    def drop_head(self, count: int) -> None:
        self.head += count
        if self.head > 1024 and self.head * 2 > len(self.entries):
            del self.entries[: self.head]
            self.head = 0

    def waiting(self) -> Iterator[Entry]:
        """In order, without taking anything out."""
        for at in range(self.head, len(self.entries)):
            yield self.entries[at]

    def __len__(self) -> int:
        return len(self.entries) - self.head


class TaskQueue:
    """All classes with the lanes of their owners."""

    def __init__(self) -> None:
        self._classes: dict[PlacementClass, dict[tuple[str, str], Lane]] = {}
        self._lanes = 0

    def push(self, placement_class: PlacementClass, entry: Entry, project: str = "", user: str = "") -> None:
        self._lane(placement_class, project, user).push(entry)

    def push_many(self, placement_class: PlacementClass, entries: list[Entry], project: str, user: str) -> None:
        self._lane(placement_class, project, user).push_many(entries)

    def _lane(self, placement_class: PlacementClass, project: str, user: str) -> Lane:
        lanes = self._classes.get(placement_class)
        if lanes is None:
            lanes = self._classes[placement_class] = {}
        lane = lanes.get((project, user))
        if lane is None:
            self._lanes += 1
            lane = lanes[project, user] = Lane(placement_class, project, user, self._lanes)
        return lane

    def classes(self) -> list[PlacementClass]:
        return list(self._classes)

    def has(self, placement_class: PlacementClass) -> bool:
        return placement_class in self._classes

    def lanes(self, placement_class: PlacementClass) -> Collection[Lane]:
        return self._classes.get(placement_class, {}).values()

    def entries(self, placement_class: PlacementClass) -> Iterator[Entry]:
        """Of all owners in order, without taking anything out."""
        return merge(*(lane.waiting() for lane in self.lanes(placement_class)))

    def drop_head(self, lane: Lane, count: int) -> None:
        """Forget the first ``count`` entries of a lane: they were placed or no longer count."""
        lane.drop_head(count)
        if not len(lane):
            lanes = self._classes[lane.placement_class]
            del lanes[lane.project, lane.user]
            if not lanes:
                del self._classes[lane.placement_class]

    def __len__(self) -> int:
        return sum(len(lane) for lanes in self._classes.values() for lane in lanes.values())
