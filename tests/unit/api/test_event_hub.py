"""Who waits is woken by what it waits for, and by nothing else."""

import asyncio
import contextlib

from jarvis.api.event_hub import EventHub
from jarvis.bus.buses.memory import MemoryBus
from jarvis.core.event import Event
from jarvis.state.stores.memory import MemoryStore


async def test_the_events_of_a_workflows_steps_do_not_wake_who_waits_for_its_end() -> None:
    bus = MemoryBus()
    hub = EventHub(bus, MemoryStore())
    running = asyncio.create_task(hub.run())
    with hub.waiting(7) as anything, hub.waiting(7, frozenset({"workflow.succeeded"})) as end:
        while not anything.is_set():  # the hub tells nobody when it begins to watch
            bus.publish([Event(1, 0.0, "step.succeeded", 7)])
            await asyncio.sleep(0)
        assert not end.is_set()
        bus.publish([Event(2, 0.0, "workflow.succeeded", 8), Event(3, 0.0, "workflow.succeeded", 7)])
        async with asyncio.timeout(30):
            await end.wait()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
