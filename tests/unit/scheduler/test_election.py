"""A server that became the leader and could not begin lets others, and itself, lead at once; and goes on trying."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from jarvis.bus.buses.memory import MemoryBus
from jarvis.core.errors import LeadershipHeld, StaleEpoch, StoreUnavailable
from jarvis.core.task import Task
from jarvis.scheduler import leader
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.leader import Election
from jarvis.scheduler.scheduler import Scheduler
from jarvis.state.coordination import Leadership
from jarvis.state.stores.memory import MemoryStore
from jarvis.utils.clock import Clock


class FailsOnce(MemoryStore):
    """The first reading of what lives goes wrong."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error: Exception | None = error

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


class Held(MemoryStore):
    """Somebody else leads, until it is gone."""

    def __init__(self, left_s: float, early_s: float) -> None:
        super().__init__()
        self._left_s, self._early_s = left_s, early_s
        self.asked, self.gone = asyncio.Event(), False

    async def leadership_acquire(self, holder: str, lease_s: float = 0.0) -> Leadership:
        self.asked.set()
        if not self.gone:
            raise LeadershipHeld("x", self._left_s, self._early_s)
        return await super().leadership_acquire(holder, lease_s)


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


@pytest.mark.parametrize(
    "error", [StoreUnavailable("away"), StaleEpoch("epoch 1 is over, 2 leads"), RuntimeError("a defect")]
)
async def test_what_could_not_begin_does_not_hold_the_lease(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader, "DEFECT_S", 0.0)
    store = FailsOnce(error)
    async with electing(store) as election:
        async with asyncio.timeout(30):
            while not election.leads:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
        told = await store.takeover_list(10)
    assert [t.cause for t in told] == ["handed over", "the first leader"]


@pytest.mark.parametrize("how", ["told", "when the lease ends", "when it may be found gone"])
async def test_a_standby_looks_when_it_is_worth_it(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader, "WATCH_S", 60.0)
    store = Held(left_s=0.2 if how == "when the lease ends" else 50.0, early_s=0.2 if "gone" in how else 0.0)
    async with asyncio.timeout(30), electing(store) as election:
        await store.asked.wait()
        store.gone = True
        if how == "told":
            election.wake()
        while not election.leads:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)


async def test_others_are_told_when_it_begins_to_lead_and_when_it_stops() -> None:
    told: list[bool] = []
    scheduler = Scheduler(MemoryStore(), MemoryBus(), Clock(), Policy, "s", lease_s=10.0)
    election = Election(scheduler, tell=lambda: told.append(election.leads))
    running = asyncio.create_task(election.run())
    await election.known.wait()
    election.stop()
    await running
    assert told == [True, False]


async def test_it_is_known_as_the_leader_before_it_has_read_the_store() -> None:
    """Others see who leads in the store, and their nodes say Hello at once: that must not be dropped."""
    store = Slow()
    async with electing(store) as election:
        await store.reading.wait()
        assert election.leads
        assert election.known.is_set()
        store.go_on.set()


async def test_a_lone_leader_begins_anew_after_a_defect_and_pauses_for_longer_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    defects, pauses = [ValueError("a defect"), KeyError("another"), ValueError("a third")], list[float]()

    def policy() -> Policy:
        if scheduler.leadership.epoch and scheduler.heartbeat.turns and defects:
            raise defects.pop(0)
        return Policy()

    async def wait(self: Election, patience: float) -> None:
        pauses.append(patience)
        assert scheduler.finished and not self.leads
        told.append(scheduler.heartbeat.last_error)

    told: list[str] = []
    monkeypatch.setattr(Election, "_wait", wait)
    scheduler = Scheduler(MemoryStore(), MemoryBus(), Clock(), policy, "s")
    election = Election(scheduler)
    running = asyncio.create_task(election.run())
    async with asyncio.timeout(30):
        while defects or not election.leads or scheduler.finished:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
    election.stop()
    await running
    assert pauses[:3] == [leader.DEFECT_S, 2 * leader.DEFECT_S, 4 * leader.DEFECT_S]
    assert told[:3] == ["ValueError: a defect", "KeyError: 'another'", "ValueError: a third"]
    assert scheduler.leadership.epoch == 4
