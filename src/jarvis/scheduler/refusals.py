"""PURE: what found no room in a cycle: whatever asks for as much of everything finds none either.

Room only shrinks while a cycle places. So of many classes that no longer fit, few are searched for through all nodes: the smallest.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jarvis.core.resources import Resources
from jarvis.scheduler.pools import Group, Pool
from jarvis.scheduler.task_queue import PlacementClass

if TYPE_CHECKING:
    from jarvis.scheduler.cluster import Cluster

KEPT_MOST = 16
"""Needs of a group, none of which is as large as another."""
UNKNOWN = 1 << 60


class Refusals:
    """By group: the smallest needs for which none of its nodes had room. ``ahead_seconds``: as in the limits of a choice."""

    __slots__ = ("_ahead_seconds", "_estimates", "_groups", "_largest")

    def __init__(self, cluster: "Cluster", ahead_seconds: float) -> None:
        self._groups: dict[Group, list[Resources]] = {}
        self._estimates, self._largest, self._ahead_seconds = cluster.estimates, cluster.largest, ahead_seconds

    def note(self, pool: Pool, *, is_first: bool) -> None:
        """Every node of the group was looked at, and none had room for now. ``is_first``: nothing was placed before that."""
        if not _is_about_amounts(pool):
            return
        kept = [need for need in self._of(pool.group) if not _covers(pool.need, need)]
        self._groups[pool.group] = [*kept[-KEPT_MOST + 1 :], pool.need]
        if is_first and pool.group.refused is not None:
            pool.group.refused[:] = self._groups[pool.group]

    def cover(self, pool: Pool) -> bool:
        """Whether it is known that no node of the group has room for it, and that none may be given it ahead."""
        needs = self._of(pool.group)
        if not needs or not _is_about_amounts(pool):
            return False
        return any(_covers(need, pool.need) for need in needs) and not self._may_go_ahead(pool.placement_class)

    def _of(self, group: Group) -> Sequence[Resources]:
        return self._groups.get(group, group.refused or ())

    def _may_go_ahead(self, placement_class: PlacementClass) -> bool:
        """Whether a node as large as the largest may."""
        seconds = self._estimates.get(placement_class)
        if seconds is None:
            return False
        slots = min(
            (self._largest.get(n, UNKNOWN) // amount for n, amount in placement_class.resources if amount), default=1
        )
        return self._ahead_seconds * max(slots, 1) >= seconds


def _is_about_amounts(pool: Pool) -> bool:
    """Whether there is room for it on a node hangs on nothing but how much it asks for."""
    return not (pool.affine or pool.gpu)


def _covers(small: Resources, need: Resources) -> bool:
    """Whether a need asks for all that a small one asks for, and for no less of it. What is named is asked for, were it 0: a node
    may be overcommitted."""
    return all(need.get(name, -1) >= amount for name, amount in small.items())
