"""Numbers that are over for good, as ranges: they come almost in order, so a million of them is a handful of ranges."""

from __future__ import annotations

from bisect import bisect_right

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class Settled:
    """A set of whole numbers that only grows. Everything below ``floor`` is in it."""

    def __init__(self, floor: int = 0) -> None:
        self.floor = floor
        self._starts: list[int] = []
        self._ends: list[int] = []
        """Ranges [start, end), ascending, never touching each other, all above the floor."""

    def __contains__(self, number: int) -> bool:
        if number < self.floor:
            return True
        at = bisect_right(self._starts, number) - 1
        return at >= 0 and number < self._ends[at]

    def add(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            if number >= self.floor:
                at = bisect_right(self._starts, number)
                if not at or number >= self._ends[at - 1]:
                    self._add(at, number)

    def raise_floor(self, floor: int) -> None:
        """Everything below is settled, so ranges there need not be remembered."""
        if floor <= self.floor:
            return
        self.floor = floor
        gone = bisect_right(self._starts, floor)
        if gone and self._ends[gone - 1] > floor:
            self.floor = self._ends[gone - 1]
        del self._starts[:gone], self._ends[:gone]

    @property
    def ranges(self) -> int:
        return len(self._starts)

    def pairs(self) -> list[list[int]]:
        """[start, end) of each range above the floor."""
        return [list(pair) for pair in zip(self._starts, self._ends)]  # noqa: B905 - as long as each other

    def add_range(self, start: int, end: int) -> None:
        """All of [start, end)."""
        start = max(start, self.floor)
        if start >= end:
            return
        self.add([start])
        at = bisect_right(self._starts, start) - 1
        if self._ends[at] >= end:
            return
        last = at + 1
        while last < len(self._starts) and self._starts[last] <= end:
            end = max(end, self._ends[last])
            last += 1
        self._ends[at] = end
        del self._starts[at + 1 : last], self._ends[at + 1 : last]

    def _add(self, at: int, number: int) -> None:
        """Before the range ``at``."""
        joins_left = at > 0 and self._ends[at - 1] == number
        joins_right = at < len(self._starts) and self._starts[at] == number + 1
        if joins_left and joins_right:
            self._ends[at - 1] = self._ends.pop(at)
            del self._starts[at]
        elif joins_left:
            self._ends[at - 1] = number + 1
        elif joins_right:
            self._starts[at] = number
        else:
            self._starts.insert(at, number)
            self._ends.insert(at, number + 1)
