"""Loops that a process lives by: one that ends on a defect is told, and begins anew after a pause that grows."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger("jarvis.keeper")

FIRST_S, MOST_S = 0.5, 30.0
"""Before it begins anew: at first, and at most, as it is doubled each time."""
SOUND_S = 60.0
"""What ran for so long before a defect waits as after the first."""
TOLD_S = 60.0
"""For so long a defect is told; longer than any pause, so that what does not run is told all the while."""


class Keeper:
    """One per process. ``fatal``: what a loop does not begin anew after, because only another process helps."""

    def __init__(self, fatal: Callable[[Exception], bool] = lambda error: False) -> None:
        self._fatal = fatal
        self._defects: dict[str, tuple[float, str]] = {}
        """Loop → when it ended on a defect last, and on which."""
        self._troubles: dict[str, str] = {}
        """What else people must know, as long as it is so."""

    async def keep(self, name: str, run: Callable[[], Awaitable[None]], most_s: float = MOST_S) -> None:
        """Until it has ended by itself. ``most_s``: the longest pause of one that everybody waits for."""
        now, pause = asyncio.get_running_loop().time, FIRST_S
        while True:
            begun = now()
            try:
                return await run()
            except Exception as error:
                if self._fatal(error):
                    raise
                pause = FIRST_S if now() - begun > SOUND_S else min(pause, most_s)
                self._defects[name] = (now(), _said(error))
                log.exception("%s ended on a defect; it begins anew in %g s", name, pause)
            await asyncio.sleep(pause)
            pause *= 2

    def tell(self, name: str, trouble: str) -> None:
        """What a loop goes on with and cannot mend by itself, for people; empty when it is gone."""
        self._troubles[name] = trouble

    def troubles(self) -> str:
        """Which loops ended on a defect lately and what else was told, for people; empty when all is well."""
        now = asyncio.get_running_loop().time()
        lately = {name: (now - at, what) for name, (at, what) in self._defects.items() if now - at < TOLD_S}
        ended = [f"{name} ended on a defect {ago:.0f} s ago: {what}" for name, (ago, what) in lately.items()]
        return "; ".join([*ended, *filter(None, self._troubles.values())])


def _said(error: Exception) -> str:
    """Of several at once, the first."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
