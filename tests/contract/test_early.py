"""Few tasks are told of before they are durable, so that what the leader decides about them is written with them."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.contract.harness import key, new

from jarvis.bus.buses.memory import MemoryBus
from jarvis.core.errors import JarvisError, StoreUnavailable
from jarvis.core.inputs import TasksTaken
from jarvis.core.states import State
from jarvis.core.task import Dependency, NewTask
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.scheduler import Scheduler
from jarvis.state.blob_stores.memory import MemoryBlobStore
from jarvis.state.state_manager import FEW, StateManager
from jarvis.state.store import Accepted, Store, Submission
from jarvis.state.stores.sqlite import SqliteStore
from jarvis.utils.clock import Clock


class Bed:
    """A real store, and in its process a leader, which takes a turn when it is told to, and who submits."""

    def __init__(self, store: SqliteStore) -> None:
        self.store, self.bus = store, MemoryBus()
        self.manager = StateManager(store, MemoryBlobStore(), self.bus)
        self.leader = Scheduler(store, self.bus, Clock(lambda: 1000.0, lambda: 1000.0), Policy, "test")

    def submit(self, *tasks: NewTask) -> asyncio.Task[list[Accepted | JarvisError]]:
        return asyncio.create_task(self.manager.submit([Submission(tasks)]))

    async def turn(self) -> list[int]:
        """Of the leader, with what it is told; of which tasks."""
        inputs = await self.bus.take(5)
        await self.leader.run_once(inputs)
        return [task.id for item in inputs if isinstance(item, TasksTaken) for task in item.tasks]

    async def lose(self) -> None:
        """Something goes along, after which the transaction cannot be committed."""

        def unit(c: sqlite3.Connection) -> None:
            c.execute("ROLLBACK")

        with pytest.raises(StoreUnavailable):
            await self.store._writer.do(unit)


@pytest.fixture
async def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bed]:
    """In which a commit waits as long as it takes."""
    monkeypatch.setattr("jarvis.state.stores.sqlite.writer.FOLLOW_S", 60.0)
    store = SqliteStore(tmp_path / "state", clock=lambda: 1000.0)
    await store.open()
    made = Bed(store)
    await made.leader.start()
    await made.leader.run_once([])
    yield made
    await store.close()


async def test_a_task_and_what_is_decided_about_it_take_one_sync(bed: Bed) -> None:
    before = bed.store._writer.commits
    submitted = bed.submit(new(), new())
    assert await bed.turn() == [1, 2]
    assert await submitted == [Accepted(range(1, 3), 1000.0)]
    assert bed.store._writer.commits == before + 1
    assert [task.state for task in await bed.store.task_get_many([1, 2])] == [State.QUEUED] * 2
    assert not bed.bus._inbox, "nobody is told twice"


async def test_what_comes_meanwhile_is_not_kept_waiting(bed: Bed) -> None:
    before = bed.store._writer.commits
    submitted = bed.submit(new())
    while not bed.bus._inbox:  # noqa: ASYNC110 - it is told from another thread
        await asyncio.sleep(0.001)
    assert list(await bed.store.task_ids_reserve(3)) == [2, 3, 4]
    assert await submitted == [Accepted(range(1, 2), 1000.0)]
    assert bed.store._writer.commits == before + 1
    assert await bed.turn() == [1]
    assert bed.store._writer.commits == before + 2


async def test_among_others_nobody_is_told_early(bed: Bed) -> None:
    begun, held = threading.Event(), threading.Event()

    def unit(c: sqlite3.Connection) -> bool:
        begun.set()
        return held.wait(60)

    first = asyncio.create_task(bed.store._writer.do(unit))
    assert await asyncio.to_thread(begun.wait, 60)
    both = [bed.submit(new()), bed.submit(new())]
    while bed.store._writer._queue.qsize() < 2:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0.001)
    held.set()
    assert await first
    assert [a.ids[0] for (a,) in await asyncio.gather(*both) if isinstance(a, Accepted)] == [1, 2]
    assert await bed.turn() == [1, 2]


@pytest.mark.parametrize("tasks", [[new()] * (FEW + 1), [new(after=(Dependency("afterany", 1),))]])
async def test_many_tasks_and_those_that_depend_on_others_are_durable_first(bed: Bed, tasks: list[NewTask]) -> None:
    first = bed.submit(new())
    await bed.turn()
    await first
    before = bed.store._writer.commits
    await bed.submit(*tasks)
    assert bed.store._writer.commits == before + 1
    assert {task.state for task in await bed.store.task_get_many([2])} == {State.SUBMITTED}
    assert await bed.turn() == list(range(2, len(tasks) + 2))


async def test_without_a_leader_a_commit_waits_a_moment(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jarvis.state.stores.sqlite.writer.FOLLOW_S", 0.01)
    (answer,) = await bed.submit(new())
    assert isinstance(answer, Accepted)
    assert [task.state for task in await bed.store.task_get_many([1])] == [State.SUBMITTED]
    assert await bed.turn() == [1]


async def test_the_end_of_the_writer_does_not_wait(bed: Bed) -> None:
    submitted = bed.submit(new())
    await bed.bus.take(5)
    await bed.store._writer.stop()
    assert await submitted == [Accepted(range(1, 2), 1000.0)]


async def test_a_repeat_is_told_to_nobody(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jarvis.state.stores.sqlite.writer.FOLLOW_S", 0.01)
    for _ in range(2):
        await bed.manager.submit([Submission([new()], key())])
    assert await bed.turn() == [1]
    assert not bed.bus._inbox


async def test_what_was_told_of_and_lost_is_not_decided_about(bed: Bed) -> None:
    """Its id is no other task's either: the leader would run the one that it was told of."""
    submitted = bed.submit(new("lost"))
    while not bed.bus._inbox:  # noqa: ASYNC110 - it is told from another thread
        await asyncio.sleep(0.001)
    await bed.lose()
    with pytest.raises(StoreUnavailable):
        await submitted
    with pytest.raises(StoreUnavailable, match="could not be stored"):
        await bed.turn()
    await bed.leader.rebuild()
    assert not bed.leader.cluster.tasks
    again = bed.submit(new("kept"))
    assert await bed.turn() == [2]
    assert await again == [Accepted(range(2, 3), 1000.0)]
    assert [(t.id, t.spec.name, t.state) for t in await bed.store.task_get_many([1, 2])] == [(2, "kept", State.QUEUED)]


async def test_what_is_reserved_passes_over_what_was_lost(bed: Bed) -> None:
    submitted = bed.submit(new("lost"))
    await bed.bus.take(5)
    await bed.lose()
    with pytest.raises(StoreUnavailable):
        await submitted
    assert list(await bed.store.task_ids_reserve(1)) == [2]


async def test_who_is_told_early_hears_what_is_answered(store: Store) -> None:
    told: list[list[Accepted | JarvisError]] = []
    answers = await store.task_insert_many([Submission([new()])], lambda answers: told.append(list(answers)))
    assert told in ([answers], []), "once, or never where others write to the store"
