"""Who waits is woken by what it waits for, and by nothing else."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from jarvis.api.event_hub import EventHub
from jarvis.bus.buses.memory import MemoryBus
from jarvis.core.event import Event
from jarvis.core.ids import SOLO
from jarvis.state.stores.memory import MemoryStore


class Told:
    """A hub that watches, and what is told to it."""

    def __init__(self, hub: EventHub, bus: MemoryBus) -> None:
        self.hub, self._bus = hub, bus

    async def tell(self, seq: int, kind: str, task: int, index: int = SOLO) -> None:
        while self.hub.seen < seq:  # it tells nobody when it begins to watch
            self._bus.publish([Event(seq, 0.0, kind, task, index)])
            await asyncio.sleep(0)

    def look(self, *tasks: int, ended: tuple[int, ...] = ()) -> None:
        """Somebody asks the store, which knows the end of some."""
        with self.hub.reading("ann", "r", frozenset(tasks)) as place:
            self.hub.looked(place, tasks, set(ended))


@pytest.fixture
async def told() -> AsyncIterator[Told]:
    bus = MemoryBus()
    hub = EventHub(bus, MemoryStore())
    running = asyncio.create_task(hub.run())
    yield Told(hub, bus)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_what_is_known_to_live_is_not_asked_for_again_until_it_ends(told: Told) -> None:
    told.look(1)
    assert told.hub.may_have_ended([1]) == [1], "nobody can know before events come"
    await told.tell(1, "queued", 1)
    told.look(1, 2, 3, 4, ended=(3,))
    assert told.hub.may_have_ended([1, 2, 3, 4, 5]) == [3, 5]
    await told.tell(2, "succeeded", 1)
    await told.tell(3, "failed", 4, index=7)
    assert told.hub.may_have_ended([1, 2, 3, 4, 5]) == [1, 3, 4, 5], "an array may have ended with its element"


async def test_after_events_that_did_not_come_everybody_asks_again(told: Told) -> None:
    await told.tell(1, "queued", 1)
    told.look(1)
    await told.tell(3, "queued", 2)
    assert told.hub.may_have_ended([1]) == [1]


async def test_who_waits_for_results_looks_again_after_events_that_did_not_come(told: Told) -> None:
    await told.tell(1, "queued", 1)
    with told.hub.reading("ann", "r", frozenset((1,))) as place:
        await told.tell(2, "queued", 2)
        assert not place.changed.is_set()
        await told.tell(4, "queued", 2)
        assert place.changed.is_set()
        assert place.ended is None


async def test_who_waits_for_an_array_looks_when_the_last_may_have_ended(told: Told) -> None:
    with told.hub.waiting_for_end(1) as last:
        last.look()
        await told.tell(1, "succeeded", 1, index=0)
        waiting = asyncio.create_task(last.wait(3))
        for seq, (kind, index) in enumerate([("failed", 1), ("assigned", 2), ("running", 2)], 2):
            await told.tell(seq, kind, 1, index)
        assert not last.changed.is_set(), "two of three at most, if the store did not know of the first"
        await told.tell(5, "succeeded", 2, index=2)
        assert not last.changed.is_set(), "that is another task's"
        await told.tell(6, "succeeded", 1, index=2)
        await asyncio.wait_for(waiting, 5.0)


async def test_who_waits_for_an_array_hears_of_ends_while_the_store_is_asked(told: Told) -> None:
    with told.hub.waiting_for_end(1) as last:
        last.look()
        await told.tell(1, "succeeded", 1, index=0)
        await told.tell(2, "succeeded", 1, index=1)
        await asyncio.wait_for(last.wait(2), 1.0)


@pytest.mark.parametrize(("seq", "task"), [(2, 1), (5, 9)])
async def test_who_waits_for_an_array_looks_when_it_is_cancelled_and_when_events_did_not_come(
    told: Told, seq: int, task: int
) -> None:
    await told.tell(1, "queued", 1)
    with told.hub.waiting_for_end(1) as last:
        last.look()
        await told.tell(seq, "cancelled", task)
        await asyncio.wait_for(last.wait(1_000), 1.0)


async def test_what_was_stored_a_moment_ago_is_known_to_live_where_no_other_server_is(told: Told) -> None:
    told.hub.fresh([1])
    assert told.hub.may_have_ended([1]) == [1], "nobody can know before events come"
    await told.tell(1, "queued", 1)
    told.hub.fresh([2, 3])
    await told.tell(2, "succeeded", 2)
    assert told.hub.may_have_ended([1, 2, 3]) == [1, 2]
    several = EventHub(MemoryBus(), MemoryStore(), poll_s=2.0)
    several.fresh([4])
    assert several.may_have_ended([4]) == [4], "another server may have ended it by now"


async def test_what_ends_while_the_store_is_asked_is_asked_for_again(told: Told) -> None:
    await told.tell(1, "queued", 1)
    with told.hub.reading("ann", "r", frozenset({1, 2, 3})) as place:
        await told.tell(2, "succeeded", 1)
        told.hub.looked(place, [1, 2], set())
        with told.hub.reading("ann", "r", frozenset({3})):
            told.hub.looked(place, [3], set())
    assert told.hub.may_have_ended([1, 2, 3]) == [1, 3], "who was replaced does not listen any more"


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
