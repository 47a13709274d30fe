"""The bus of one process: queues and wake-ups."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence

from jarvis.core.effects import AckFrame, Effect, ToNode, ToSession
from jarvis.core.event import Event
from jarvis.core.inputs import Input, TasksTaken

INBOX_LIMIT = 20_000
"""Inputs (tasks and facts counted singly) that may wait for the leader."""
WATCHER_LIMIT = 1_000
"""Batches of events that may wait for a slow watcher before it is ended."""


class MemoryBus:
    """Everything stays in this process; bounded as the port says."""

    def __init__(self) -> None:
        self._inbox: deque[Input] = deque()
        self._waiting = 0
        self._arrived = asyncio.Event()
        self._outbox: asyncio.Queue[ToNode | ToSession | AckFrame] = asyncio.Queue()
        self._watchers: set[asyncio.Queue[list[Event] | None]] = set()

    def offer(self, item: Input) -> bool:
        size = len(item.tasks) if isinstance(item, TasksTaken) else 1
        if self._waiting and self._waiting + size > INBOX_LIMIT:
            self._arrived.set()
            return False
        self._inbox.append(item)
        self._waiting += size
        self._arrived.set()
        return True

    async def take(self, timeout: float) -> list[Input]:
        if not self._inbox:
            self._arrived.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._arrived.wait()
            except TimeoutError:
                return []
        items = list(self._inbox)
        self.drop_inputs()
        return items

    def drop_inputs(self) -> None:
        """Nobody takes them any more."""
        self._inbox.clear()
        self._waiting = 0
        self._arrived.clear()

    def dispatch(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, ToNode | ToSession | AckFrame):
                self._outbox.put_nowait(effect)

    async def sessions(self) -> AsyncIterator[ToNode | ToSession | AckFrame]:
        while True:
            yield await self._outbox.get()

    def publish(self, events: Sequence[Event]) -> None:
        batch = list(events)
        if not batch:
            return
        for watcher in list(self._watchers):
            if watcher.qsize() >= WATCHER_LIMIT:
                self._watchers.discard(watcher)
                watcher.put_nowait(None)
            else:
                watcher.put_nowait(batch)

    async def watch(self) -> AsyncIterator[list[Event]]:
        queue: asyncio.Queue[list[Event] | None] = asyncio.Queue()
        self._watchers.add(queue)
        try:
            while (batch := await queue.get()) is not None:
                yield batch
        finally:
            self._watchers.discard(queue)
