"""PURE: when each node has room by what is on it alone: made as far as somebody looks, and kept while nothing on nodes changes.

A cycle looks here before it looks at what it placed and reserved itself, because that only takes room away: a node begins no
earlier than it would without. So the earliest of many nodes is found by looking closely at those few that could be it.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from heapq import heappop, heapreplace, merge
from typing import TYPE_CHECKING

from jarvis.core.resources import Resources, fits, subtract
from jarvis.scheduler.policy.backfill import NEVER, Horizon
from jarvis.scheduler.task_queue import PlacementClass

if TYPE_CHECKING:
    from jarvis.scheduler.cluster import NodeView

SOON = 1.0
"""Seconds until the end of what should have ended."""
Starts = list[tuple[float, int]]
"""(instant, node), ascending."""


class Outlook:
    """The horizons of nodes on which nothing is reserved, as of an instant."""

    def __init__(self, nodes: "Mapping[int, NodeView]", now: float) -> None:
        self.nodes, self.now = nodes, now
        self._horizons: dict[int, Horizon] = {}
        self._rooms: dict[int, tuple[Resources, float]] = {}
        """What is free on a node, and when the first of what is there is expected to end."""
        self._starts: dict[PlacementClass, Starts] = {}

    def horizon(self, node: int) -> Horizon:
        """To look at, not to take anything from: that is done with a copy."""
        found = self._horizons.get(node)
        if found is None:
            view = self.nodes[node]
            found = self._horizons[node] = Horizon(self.now, view.free, view.ends_from(self.now))
        return found

    def first(self, node: int, need: Resources) -> float:
        """From when on it has room; NEVER when the known ends do not make any."""
        return self.horizon(node).first(need)

    def starts(self, need: Resources, nodes: Iterable[int]) -> Starts:
        """Of these nodes, from when on they may have room: not before the first of what is on them ends. A heap as well."""
        return sorted((at, node) for node in nodes if (at := self._not_before(node, need)) != NEVER)

    def _not_before(self, node: int, need: Resources) -> float:
        room = self._rooms.get(node)
        if room is None:
            view = self.nodes[node]
            room = self._rooms[node] = view.free, max(view.ends[0][0], self.now) if view.ends else NEVER
        return self.now if fits(need, room[0]) else room[1]

    def starts_of(self, placement_class: PlacementClass, nodes: Callable[[], Iterable[int]]) -> Starts:
        """As :meth:`starts`, of a class whose ``nodes`` are the same whenever it is asked: a list of the caller's own."""
        found = self._starts.get(placement_class)
        if found is None:
            found = self._starts[placement_class] = self.starts(placement_class.need, nodes())
        return list(found)


def soonest(could: Starts, earliest: Callable[[int], float]) -> tuple[float, int] | None:
    """The first of the nodes, in their order, that begins no later than any other: they ``could`` begin at the earliest at these
    instants (a heap, which is used up), and do at what ``earliest`` tells of one, which costs more."""
    does: dict[int, float] = {}
    while could:
        start, node = could[0]
        at = does.get(node)
        if at is None:
            at = does[node] = earliest(node)
        if at == start:
            return start, node
        if at == NEVER:
            heappop(could)
        else:
            heapreplace(could, (at, node))
    return None


class Changed:
    """The horizons of nodes as a cycle changes them. ``used`` and ``placed``: what it placed on each; ``taken``: of those nodes on
    which something is reserved or kept."""

    __slots__ = ("_outlook", "_placed", "_taken", "_used", "seen")

    def __init__(
        self, outlook: Outlook, used: dict[int, Resources], placed: dict[int, list[tuple[float, Resources]]],
        taken: dict[int, Horizon],
    ) -> None:  # fmt: skip
        self._outlook, self._used, self._placed, self._taken = outlook, used, placed, taken
        self.seen: dict[int, Horizon] = {}
        """Of nodes that are not among the taken ones, as they stood when somebody looked."""

    def is_it(self, node: int) -> bool:
        return node in self._used or node in self._taken

    def horizon(self, node: int) -> Horizon:
        """To take from."""
        horizon = self._taken.get(node)
        if horizon is None:
            horizon = self._taken[node] = self.look(node)
            self.seen.pop(node, None)
        return horizon

    def look(self, node: int) -> Horizon:
        """To look at."""
        horizon = self._taken.get(node, self.seen.get(node))
        if horizon is None:
            horizon = self.seen[node] = self._as_it_stands(node)
        return horizon

    def forget_unreserved(self, kept: Collection[int], nodes: Collection[int]) -> None:
        """What was reserved from now on could have begun, were it not for something else than room: it keeps nothing for long,
        except on ``nodes``, where something is reserved next."""
        for node in [n for n, h in self._taken.items() if not (h.is_taken or n in kept or n in nodes)]:
            del self._taken[node]

    def _as_it_stands(self, node: int) -> Horizon:
        used, own = self._used.get(node), self._placed.get(node)
        if used is None:
            return self._outlook.horizon(node).copy()
        view, now = self._outlook.nodes[node], self._outlook.now
        ends = view.ends_from(now)
        if own:  # as they are now: what is placed later is taken from the horizon itself
            ends = merge(ends, tuple(own), key=when)
        return Horizon(now, subtract(view.node.resources, used), ends)


def when(end: tuple[float, Resources]) -> float:
    return end[0]
