"""PURE: what found no room in a cycle: whatever asks for as much of everything finds none either.

Room only shrinks while a cycle places. So of many classes that no longer fit, few are searched for through all nodes: the smallest.
The nodes on which there is room that is kept for a reservation are looked at one by one: who asks may be over before it is needed.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from jarvis.core.resources import Resources
from jarvis.scheduler.pools import Group, Pool
from jarvis.scheduler.task_queue import PlacementClass

if TYPE_CHECKING:
    from jarvis.scheduler.cluster import Cluster

KEPT_MOST = 16
"""Needs of a group, none of which is as large as another."""
FEW = 16
"""Nodes on which room is kept, up to which it is known where else there is none."""
UNKNOWN = 1 << 60


class Refused(NamedTuple):
    """What found room nowhere but on nodes where it is ``kept`` for others."""

    need: Resources
    kept: tuple[int, ...]


class Refusals:
    """By group: the smallest needs for which none of its nodes had room but a few, on which it is kept for others.
    ``ahead_seconds``: as in the limits of a choice."""

    __slots__ = ("_ahead", "_ahead_seconds", "_estimates", "_groups", "_largest")

    def __init__(self, cluster: "Cluster", ahead_seconds: float) -> None:
        self._groups: dict[Group, list[Refused]] = {}
        self._estimates, self._largest, self._ahead_seconds = cluster.estimates, cluster.largest, ahead_seconds
        self._ahead: dict[PlacementClass, bool] = {}

    def note(self, pool: Pool, *, is_first: bool, kept: Sequence[int] = ()) -> None:
        """Every node of the group was looked at, and none had room for now but those where it is ``kept``. ``is_first``: nothing
        was placed before that."""
        if not _is_about_amounts(pool) or len(kept) > FEW:
            return
        others = [refused for refused in self._of(pool.group) if not _covers(pool.need, refused.need)]
        self._groups[pool.group] = [*others[-KEPT_MOST + 1 :], Refused(pool.need, tuple(kept))]
        if is_first and not kept and pool.group.refused is not None:
            pool.group.refused[:] = [refused.need for refused in self._groups[pool.group] if not refused.kept]

    def where(self, pool: Pool) -> tuple[int, ...] | None:
        """The only nodes of the group that may have room for it, and none may be given it ahead; None where that is not known."""
        refused = self._of(pool.group)
        if not refused or not _is_about_amounts(pool):
            return None
        found = next((one.kept for one in refused if _covers(one.need, pool.need)), None)
        return None if found is None or self.may_go_ahead(pool.placement_class) else found

    def _of(self, group: Group) -> list[Refused]:
        known = self._groups.get(group)
        if known is None and group.refused:
            known = self._groups[group] = [Refused(need, ()) for need in group.refused]
        return known or []

    def may_go_ahead(self, placement_class: PlacementClass) -> bool:
        """Whether a node as large as the largest may be given it ahead of room."""
        known = self._ahead.get(placement_class)
        if known is None:
            known = self._ahead[placement_class] = self._is_short(placement_class)
        return known

    def _is_short(self, placement_class: PlacementClass) -> bool:
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
