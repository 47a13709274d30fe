"""The clock that shells inject: monotonic between looks at the database's clock, and never backwards."""

import time
from collections.abc import Callable


class Clock:
    """Estimate of database time, seconds since 1970."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._monotonic = monotonic
        self._offset = wall() - monotonic()
        self._last = 0.0

    def now(self) -> float:
        """Seconds since 1970; never less than what was given before."""
        self._last = max(self._last, self._monotonic() + self._offset)
        return self._last

    def sync(self, database_now: float) -> None:
        """Take over what the database's clock said just now."""
        self._offset = database_now - self._monotonic()
