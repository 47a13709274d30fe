"""PURE: reservations, and what may start before them without delaying them.

``none``: what is first and does not fit holds up all others. ``skip``: it is passed over, and may be for ever. ``easy``: it gets
the earliest start that the ends of what runs allow (Lifka, JSSPP'95; Mu'alem and Feitelson, TPDS'01), and others start before
it as far as they end by then or leave it its room. ``conservative``: everything that waits gets one, as far as ``depth`` goes.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import tee
from typing import Literal, get_args

from jarvis.core import resources as vector
from jarvis.core.resources import Resources
from jarvis.scheduler.policy.order import Times

BackfillName = Literal["none", "skip", "easy", "conservative"]
BACKFILLS: tuple[str, ...] = get_args(BackfillName)

NEVER = float("inf")
Freed = tuple[float, float, Resources]
"""(from when, until when, what) is free although it was thought to be taken."""


@dataclass(frozen=True, slots=True)
class Backfill:
    """How what waits is passed. ``depth``: reservations a cycle of ``conservative``."""

    name: str = "skip"
    depth: int = 100
    order: str = "policy"
    """Of what starts before a reservation: as the policy orders, by ``submission``, or ``shortest`` first."""
    extra: bool = True
    """Of ``easy``: whether what ends later than the reservation begins may use the room that it leaves. ``conservative`` plans
    everything, so that nothing is left."""
    keep: bool = False
    """Whether what got a reservation stays first until it starts, whatever comes meanwhile."""
    look: int = 1000
    """Entries looked at behind a reservation, a cycle."""
    times: Times = "limit"
    """By what the ends of tasks are expected: their limits, or the upper bounds of what is predicted."""
    bound: Literal["low", "seconds", "high"] = "high"
    """Which figure of a prediction counts."""
    always: bool = False
    """Reserve although nothing has room, for who asks when something would start."""

    @property
    def reserves(self) -> bool:
        return self.name in ("easy", "conservative")

    @property
    def looks(self) -> bool:
        """Whether it matters, before anything is placed, if anything has room."""
        return self.name == "skip" or not self.always


class Horizon:
    """What is free on one node from now on, as steps that are made as far as somebody looks; a reservation takes its room out.

    ``ends``: (instant, resources given back then), ascending and later than ``now``.
    """

    __slots__ = ("_ends", "_later", "_next", "_taken", "free", "taken_from", "taken_to", "times")

    def __init__(self, now: float, free: Resources, ends: Iterable[tuple[float, Resources]]) -> None:
        self.times: list[float] = [now]
        self.free: list[Resources] = [free]
        self._ends = iter(ends)
        self._next = next(self._ends, None)
        self._later: list[tuple[float, int, Resources]] = []
        """Ends of reservations, as a heap."""
        self._taken = 0
        self.taken_from = NEVER
        """The earliest begin of a reservation that does not begin now."""
        self.taken_to = now
        """The latest begin of a reservation: from here on, room only grows."""

    def earliest(self, need: Resources, seconds: float, after: float = 0.0) -> float:
        """The first instant, not before ``after``, from which ``need`` is free for ``seconds``; NEVER when the known ends do not
        make room."""
        begin: float | None = None
        step = self._cut(after) if after > self.times[0] else 0
        while True:
            at = self.times[step]
            if begin is not None and at >= begin + seconds:
                return begin
            if not vector.fits(need, self.free[step]):
                begin = None
            elif begin is None:
                begin = at
            if begin is not None and at >= self.taken_to:
                return begin
            step += 1
            if step == len(self.times) and not self._extend():
                return NEVER if begin is None else begin

    def first(self, need: Resources) -> float:
        """As :meth:`earliest`, of one from which nothing was taken: there room only grows."""
        while not vector.fits(need, self.free[-1]):
            if not self._extend():
                return NEVER
        return self.times[bisect_left(self.free, True, key=lambda free: vector.fits(need, free))]

    def copy(self) -> "Horizon":
        """Of one from which nothing was taken, to take from; what it still has to make, each makes for itself."""
        self._ends, ends = tee(self._ends)
        other = Horizon(self.times[0], self.free[0], ())
        other.times, other.free = list(self.times), list(self.free)
        other._ends, other._next = ends, self._next
        return other

    def fits(self, need: Resources, begin: float, end: float) -> bool:
        """Whether ``need`` is free from ``begin`` until just before ``end``."""
        step = self._step_at(begin)
        while True:
            if not vector.fits(need, self.free[step]):
                return False
            if self.times[step] >= self.taken_to:
                return True
            step += 1
            if (step == len(self.times) and not self._extend()) or self.times[step] >= end:
                return True

    def fits_beside(self, need: Resources, end: float, freed: Iterable[Freed]) -> bool:
        """Whether ``need`` is free from now until just before ``end``, if what is ``freed`` is, too: parts of what it knows itself,
        so that one begins or is over at the begin of a step."""
        step, freed = 0, list(freed)
        while True:
            at, free = self.times[step], self.free[step]
            for begin, until, back in freed:
                if begin <= at < until:
                    free = vector.add(free, back)
            if not vector.fits(need, free):
                return False
            step += 1
            if at >= self.taken_to or (step == len(self.times) and not self._extend()) or self.times[step] >= end:
                return True

    def take(self, need: Resources, begin: float, end: float) -> None:
        """``need`` is spoken for from ``begin`` until ``end``."""
        first = self._cut(begin)
        last = self._cut(end) if end <= self.times[-1] else len(self.times)
        for step in range(first, last):
            self.free[step] = vector.subtract(self.free[step], need)
        if last == len(self.times) and end != NEVER:
            self._taken += 1
            heappush(self._later, (end, self._taken, need))
        if begin > self.times[0]:
            self.taken_from, self.taken_to = min(self.taken_from, begin), max(self.taken_to, begin)

    @property
    def is_taken(self) -> bool:
        """Whether anything is reserved in it."""
        return self.taken_to > self.times[0]

    def _extend(self) -> bool:
        """Make the next step, with everything known that ends at its instant; False when nothing more is known."""
        after = self.times[-1]
        made = False
        while (end := self._peek()) is not None and (not made or end[0] <= self.times[-1]):
            at, need = end
            self._pop(end)
            if at > after and not made:
                self.times.append(at)
                self.free.append(vector.add(self.free[-1], need))
                made = True
            else:
                self.free[-1] = vector.add(self.free[-1], need)
        return made

    def _peek(self) -> tuple[float, Resources] | None:
        ended, later = self._next, self._later
        if later and (ended is None or later[0][0] < ended[0]):
            return later[0][0], later[0][2]
        return ended

    def _pop(self, end: tuple[float, Resources]) -> None:
        if end is self._next:
            self._next = next(self._ends, None)
        else:
            heappop(self._later)

    def _step_at(self, at: float) -> int:
        """The step that an instant lies in."""
        while self.times[-1] < at and self._extend():
            pass
        return bisect_right(self.times, at) - 1

    def _cut(self, at: float) -> int:
        """The step that begins at an instant, made if there was none."""
        step = self._step_at(at)
        if self.times[step] != at:
            step += 1
            self.times.insert(step, at)
            self.free.insert(step, self.free[step - 1])
        return step
