"""PURE: the task queue: what could start, by placement class, in order within it.

Entries are hints: whether one still counts is decided by the state of its element when it is looked at, so holding or
cancelling needs no search here. Work grows with the classes that have entries, not with the tasks queued.
"""

from bisect import insort
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from jarvis.core.resources import Resources
from jarvis.core.task import Constraint, TaskSpec


class PlacementClass(NamedTuple):
    """Tasks with the same shape and constraints are one class: what one of them cannot have, none can."""

    resources: tuple[tuple[str, int], ...]
    constraints: tuple[Constraint, ...]
    tolerations: tuple[str, ...]
    kind: str
    queue: str
    balancer: str

    @property
    def need(self) -> Resources:
        """Shared by all who ask: never to be changed."""
        return _vector(self.resources)


@lru_cache(4096)
def _vector(resources: tuple[tuple[str, int], ...]) -> Resources:
    return dict(resources)


def class_of(spec: TaskSpec) -> PlacementClass:
    return PlacementClass(
        tuple(sorted(spec.resources.items())),
        spec.constraints,
        spec.tolerations,
        spec.kind,
        spec.queue,
        spec.balancer or "",
    )


class Entry(NamedTuple):
    """Sorts by priority (higher first), then submission, then position in the array."""

    rank: int
    task: int
    position: int
    is_range: bool = False
    """Stands for all positions of an array from ``position`` on that have no row of their own."""


class _ClassQueue:
    """Sorted entries with a head that moves on; arrivals in order cost an append."""

    __slots__ = ("entries", "head")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.head = 0

    def push(self, entry: Entry) -> None:
        if not self.entries or self.entries[-1] <= entry:
            self.entries.append(entry)
        else:
            insort(self.entries, entry, lo=self.head)

    def drop_head(self, count: int) -> None:
        self.head += count
        if self.head > 1024 and self.head * 2 > len(self.entries):
            del self.entries[: self.head]
            self.head = 0


class TaskQueue:
    """All classes with what waits in them."""

    def __init__(self) -> None:
        self._classes: dict[PlacementClass, _ClassQueue] = {}

    def push(self, placement_class: PlacementClass, entry: Entry) -> None:
        queue = self._classes.get(placement_class)
        if queue is None:
            queue = self._classes[placement_class] = _ClassQueue()
        queue.push(entry)

    def classes(self) -> list[PlacementClass]:
        return list(self._classes)

    def entries(self, placement_class: PlacementClass) -> Iterator[Entry]:
        """In order, without taking anything out."""
        queue = self._classes.get(placement_class)
        if queue is not None:
            for at in range(queue.head, len(queue.entries)):
                yield queue.entries[at]

    def drop_head(self, placement_class: PlacementClass, count: int) -> None:
        """Forget the first ``count`` entries of a class: they were placed or no longer count."""
        queue = self._classes.get(placement_class)
        if queue is None:
            return
        queue.drop_head(count)
        if queue.head >= len(queue.entries):
            del self._classes[placement_class]

    def __len__(self) -> int:
        return sum(len(queue.entries) - queue.head for queue in self._classes.values())
