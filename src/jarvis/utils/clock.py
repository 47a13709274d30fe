"""The clock that shells inject: monotonic between looks at the database's clock, and never backwards."""

import time
from collections.abc import Callable

SLOWEST = 0.5


class Clock:
    """Estimate of database time, seconds since 1970."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._monotonic = monotonic
        self._offset = wall() - monotonic()
        self._last, self._since = 0.0, monotonic()
        """The latest instant that was told as the database's own, and when: what follows more slowly counts from there."""

    def now(self) -> float:
        """Seconds since 1970; never less than what was given before. A database whose clock was set back is waited for at half
        the speed: with time at a standstill nothing would time out."""
        at = self._monotonic()
        slowly = self._last + SLOWEST * (at - self._since)
        if at + self._offset < slowly:
            return slowly
        self._last, self._since = at + self._offset, at
        return self._last

    def sync(self, database_now: float) -> None:
        """Take over what the database's clock said just now."""
        self._offset = database_now - self._monotonic()
