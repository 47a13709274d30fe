"""What lies on this node of what tasks may need: looked at again and again, because images are pulled and removed by others, too,
and files go when room is needed."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from jarvis.core.holdings import Holdings, worth_telling
from jarvis.worker.file_sets import FileSets

LOOK_S = 10.0
SOON_S = 0.2
"""After a set of files was made: others that are made together are told together."""
AGAIN_S = 60.0
"""So often it is said although nothing has changed: a word that got lost is made good."""


class Holding:
    """Said with heartbeats. ``found`` is all that was worth telling at the last look."""

    def __init__(self) -> None:
        self.found: Holdings = {}
        self._said: Holdings | None = None
        """In this session, if anything was."""
        self._said_at = 0.0

    async def keep_looking(self, sets: FileSets, images: Callable[[], Awaitable[Holdings]]) -> None:
        """Until cancelled. ``images``: bytes of each image by each of its names."""
        while True:
            self.found = worth_telling(await images() | await sets.held())
            with suppress(TimeoutError):
                await asyncio.wait_for(sets.made_some.wait(), LOOK_S)
                sets.made_some.clear()
                await asyncio.sleep(SOON_S)

    def welcomed(self, now: float) -> None:
        """In a new session the leader knows of nothing."""
        self._said, self._said_at = None, now

    def to_say(self, now: float) -> Holdings | None:
        """What is to be said now; it counts as said."""
        if self._said is None and not self.found:
            return None
        if self.found == self._said and now - self._said_at < AGAIN_S:
            return None
        self._said, self._said_at = self.found, now
        return self._said
