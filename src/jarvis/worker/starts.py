"""Starts of what is usually over in a moment: they are told when it is not, because an end tells when it began."""

import asyncio
import time
from collections.abc import Callable

WAITS_S = 0.005
"""So long a start waits for its end. Told at once, it would be a frame and a turn of the leader just before the end's own."""


class Starts:
    """``tell`` is given the number and the age, in seconds, of what has begun and is not over."""

    def __init__(self, tell: Callable[[int, float], None]) -> None:
        self._tell = tell
        self._begun: dict[int, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begun(self, number: int) -> None:
        self._begun[number] = time.monotonic()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WAITS_S, self._due)

    def over(self, number: int) -> None:
        self._begun.pop(number, None)

    def _due(self) -> None:
        """Those that have waited long enough; what began since waits for the next time."""
        now = time.monotonic()
        due = [(number, at) for number, at in self._begun.items() if now - at >= WAITS_S / 2]
        for number, at in due:
            del self._begun[number]
            self._tell(number, now - at)
        self._timer = asyncio.get_running_loop().call_later(WAITS_S, self._due) if self._begun else None
