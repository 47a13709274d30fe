"""SERVICE: what has ended long ago goes, in small batches, and its space comes back."""

import asyncio
import logging

from jarvis.core.errors import JarvisError
from jarvis.state.store import Store

log = logging.getLogger("jarvis.retention")

BATCH = 500
EVERY_S = 60.0
PAUSE_S = 0.05


class Retention:
    """By age, and by size: above ``max_bytes`` the oldest go earlier."""

    def __init__(self, store: Store, keep_s: float, keep_events_s: float, max_bytes: int) -> None:
        self._store, self._keep_s, self._keep_events_s, self._max_bytes = store, keep_s, keep_events_s, max_bytes

    async def run(self) -> None:
        while True:
            try:
                await self.run_once(await self._store.now())
            except JarvisError as error:
                log.warning("retention waits: %s", error)
            await asyncio.sleep(EVERY_S)

    async def run_once(self, now: float) -> int:
        """Remove what is due; the number of tasks removed."""
        removed = 0
        while gone := await self._store.task_delete_ended(now - self._keep_s, BATCH):
            removed += len(gone)
            await asyncio.sleep(PAUSE_S)
        while await self._store.event_delete_before(now - self._keep_events_s, BATCH):  # noqa: ASYNC110 - a pause between batches
            await asyncio.sleep(PAUSE_S)
        if (await self._store.counts()).database_bytes > self._max_bytes:
            removed += len(await self._store.task_delete_ended(now, BATCH))
        await self._store.space_return()
        return removed
