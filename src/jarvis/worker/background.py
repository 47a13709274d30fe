"""What the agent does beside all else and nobody waits for. Where that is done for an attempt, a defect in it ends the attempt."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from jarvis.worker.logs import exhausted
from jarvis.worker.machine import Work

log = logging.getLogger("jarvis.agent")


class Background:
    """One per agent. ``lacking``: no descriptors are left. ``broke``: a defect ended what was done for the attempt of a Work."""

    def __init__(self, lacking: Callable[[OSError], None], broke: Callable[[Work, Exception], None]) -> None:
        self._lacking, self._broke = lacking, broke
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, coroutine: Coroutine[Any, Any, None], stands_for: Work | None = None) -> None:
        """See :class:`Spawn`."""
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(partial(self._done, stands_for))

    def _done(self, stands_for: Work | None, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or not isinstance(error := task.exception(), Exception):
            return
        if (lack := exhausted(task)) is not None:
            self._lacking(lack)
            return
        log.error("a background task failed", exc_info=error)
        if stands_for is not None:
            self._broke(stands_for, error)
