"""A server that became the leader and could not begin lets others, and itself, lead at once; and goes on trying."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from jarvis.bus.buses.memory import MemoryBus
from jarvis.core.errors import JarvisError, StaleEpoch, StoreUnavailable
from jarvis.core.task import Task
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.leader import Election
from jarvis.scheduler.scheduler import Scheduler
from jarvis.state.stores.memory import MemoryStore
from jarvis.utils.clock import Clock


class FailsOnce(MemoryStore):
    """The first reading of what lives goes wrong."""

    def __init__(self, error: JarvisError) -> None:
        super().__init__()
        self._error: JarvisError | None = error

    async def task_list_live(self, after: int, limit: int) -> list[Task]:
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return await super().task_list_live(after, limit)


class Slow(MemoryStore):
    """Reading what lives takes until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.reading, self.go_on = asyncio.Event(), asyncio.Event()

    async def task_list_live(self, after: int, limit: int) -> list[Task]:
        self.reading.set()
        await self.go_on.wait()
        return await super().task_list_live(after, limit)


@asynccontextmanager
async def electing(store: MemoryStore) -> AsyncIterator[Election]:
    scheduler = Scheduler(store, MemoryBus(), Clock(), Policy, "s", lease_s=10.0)
    election = Election(scheduler)
    running = asyncio.create_task(election.run())
    try:
        yield election
    finally:
        election.stop()
        await running


@pytest.mark.parametrize("error", [StoreUnavailable("away"), StaleEpoch("epoch 1 is over, 2 leads")])
async def test_what_could_not_begin_does_not_hold_the_lease(error: JarvisError) -> None:
    store = FailsOnce(error)
    async with electing(store) as election:
        async with asyncio.timeout(30):
            while not election.leads:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
        told = await store.takeover_list(10)
    assert [t.cause for t in told] == ["handed over", "the first leader"]


async def test_it_is_known_as_the_leader_before_it_has_read_the_store() -> None:
    """Others see who leads in the store, and their nodes say Hello at once: that must not be dropped."""
    store = Slow()
    async with electing(store) as election:
        await store.reading.wait()
        assert election.leads
        assert election.known.is_set()
        store.go_on.set()
