"""PURE: licences and other counters of the whole cluster: never more in use than there are, on whatever nodes.

A licence is taken when an attempt is assigned and given back when it has ended, so that a task never starts without those it
asked for. Who is short of one keeps it from those behind, else what asks for many would wait for ever; with ``backfill: skip``
all that is passed may wait for ever, and this too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from jarvis.scheduler.filters import Reason

Licenses = tuple[tuple[str, int], ...]
"""(name, how many), as a placement class has them."""
WORD = "Licenses"


@dataclass(slots=True)
class Pool:
    """Of the whole cluster: ``total`` as the settings say, ``used`` by attempts that have not ended."""

    total: Mapping[str, int] = field(default_factory=dict)
    keeps: bool = True
    """Whether what is short of one keeps it from those behind."""
    used: dict[str, int] = field(default_factory=dict)

    def take(self, licenses: Mapping[str, int]) -> None:
        for name, count in licenses.items():
            self.used[name] = self.used.get(name, 0) + count

    def give_back(self, licenses: Mapping[str, int]) -> None:
        for name, count in licenses.items():
            self.used[name] -= count

    def free(self, name: str) -> int:
        """Below 0 where the settings name fewer than are in use."""
        return self.total.get(name, 0) - self.used.get(name, 0)


class Spare:
    """What may still be given, in the course of a cycle that gives it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._given: dict[str, int] = {}
        self._kept: set[str] = set()
        self._reserved: list[tuple[float, Licenses]] = []
        self.too_long = False
        """The last one had to wait only because it would not end before a reservation begins."""

    def has(self, licenses: Licenses, until: float) -> bool:
        """Whether all of them are there for one that ends by an instant; if not, they are kept from whoever asks later. What has a
        reservation finds its own when that begins."""
        self.too_long = False
        if any(name in self._kept for name, _ in licenses):
            return False
        if not all(self._left(name) >= count for name, count in licenses):
            if self._pool.keeps:
                self._kept.update(name for name, _ in licenses)
            return False
        self.too_long = bool(self._reserved) and not all(
            self._left(n) - self._reserved_of(n, until) >= count for n, count in licenses
        )
        return not self.too_long

    def _left(self, name: str) -> int:
        return self._pool.free(name) - self._given.get(name, 0)

    def _reserved_of(self, name: str, until: float) -> int:
        """By what starts before an instant."""
        return sum(dict(licenses).get(name, 0) for start, licenses in self._reserved if start < until)

    def reserve(self, licenses: Licenses, start: float) -> None:
        self._reserved.append((start, licenses))

    def give(self, licenses: Licenses) -> None:
        for name, count in licenses:
            self._given[name] = self._given.get(name, 0) + count


def short(pool: Pool, licenses: Mapping[str, int]) -> list[str]:
    """Names of which not enough are free."""
    return sorted(name for name, count in licenses.items() if pool.free(name) < count)


def unknown_or_too_many(pool: Pool, licenses: Mapping[str, int]) -> Reason | None:
    """Why a request can never be met."""
    for name, count in sorted(licenses.items()):
        if name not in pool.total:
            known = ", ".join(sorted(pool.total)) or "none"
            return Reason(name, f"there is no licence {name}; the settings name: {known}")
        if count > pool.total[name]:
            return Reason(name, f"there are {pool.total[name]} {name} in all, wanted {count}")
    return None
