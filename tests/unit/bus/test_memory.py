"""The bus within one process."""

import asyncio

from jarvis.bus.buses.memory import MemoryBus
from jarvis.core.event import Event


async def test_a_commit_without_events_wakes_nobody() -> None:
    bus, heard = MemoryBus(), []

    async def watch() -> None:
        async for batch in bus.watch():
            heard.append(batch)  # noqa: PERF401 - it has no end

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    event = Event(seq=1, at=1.0, task=1, kind="queued")
    bus.publish([])
    bus.publish([event])
    await asyncio.sleep(0.01)
    watching.cancel()
    assert heard == [[event]]
