"""What a standby read ahead is exactly what a rebuild would read, whatever changed meanwhile, and is read no second time."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from tests.contract.harness import Ticking, attempt, commit, element, end, insert, move, new
from tests.servers.postgres import shared

from jarvis.core.changes import Changes
from jarvis.core.ids import ElementKey
from jarvis.core.states import State
from jarvis.core.task import ArraySpec, Task
from jarvis.state import persistence
from jarvis.state.coordination import Leadership
from jarvis.state.store import Live
from jarvis.state.stores.postgres import PostgresStore, read_ahead
from jarvis.state.stores.postgres.read_ahead import ReadAhead

ROUNDS = 30


@pytest.fixture
def url() -> str:
    return shared().database()


@pytest.fixture
async def leader(url: str, clock: Ticking) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(url, clock=clock)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def standby(url: str, clock: Ticking) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(url, clock=clock)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def lead(leader: PostgresStore) -> Leadership:
    return await leader.leadership_acquire("leader")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Ids of the tasks that were read from rows."""
    found: list[int] = []
    plain = persistence.task_from_row

    def counted(row: tuple) -> Task:  # type: ignore[type-arg]
        found.append(row[0])
        return plain(row)

    monkeypatch.setattr(read_ahead, "task_from_row", counted)
    return found


async def everything(ahead: ReadAhead, limit: int = 7) -> Live:
    """All pages of a rebuild."""
    found = Live([], [], [])
    page = await ahead.take(0, limit)
    while page.tasks:
        found.tasks.extend(page.tasks)
        found.elements.extend(page.elements)
        found.attempts.extend(page.attempts)
        page = await ahead.take(page.tasks[-1].id, limit)
    return found


async def assign(store: PostgresStore, lead: Leadership, ident: int) -> None:
    (task,) = await store.task_get_many([ident])
    task.state = State.ASSIGNED
    mine = attempt(ident)
    elements = {ElementKey(ident): element(ident)}
    changes = Changes(tasks={ident: task}, elements=elements, attempts_new={(ident, mine.index, 1): mine})
    await store.leader_commit(lead, changes)


async def test_what_did_not_change_is_read_once(
    leader: PostgresStore, standby: PostgresStore, lead: Leadership, read: list[int]
) -> None:
    ids = await insert(leader, *[new() for _ in range(20)])
    await standby.ahead.read()
    assert read == ids
    read.clear()
    await standby.ahead.read()
    assert read == []
    await move(leader, lead, ids[3], State.QUEUED)
    await end(leader, lead, ids[4], at=5.0)
    (late,) = await insert(leader, new("late"))
    found = await everything(standby.ahead)
    assert read == [ids[3], late]
    assert [task.id for task in found.tasks] == [*ids[:4], *ids[5:], late]
    assert found.tasks[3].state is State.QUEUED
    assert len(standby.ahead) == 0


async def test_what_has_come_to_a_node_comes_with_its_attempt(
    leader: PostgresStore, standby: PostgresStore, lead: Leadership
) -> None:
    ids = await insert(leader, *[new() for _ in range(3)])
    await assign(leader, lead, ids[0])
    await standby.ahead.read()
    await assign(leader, lead, ids[2])
    found = await everything(standby.ahead)
    assert [e.task for e in found.elements] == [a.task for a in found.attempts] == [ids[0], ids[2]]


async def test_a_rebuild_does_not_wait_for_the_reading(
    leader: PostgresStore, standby: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is in the middle of it ends with the page that it is at, and leaves nothing behind."""
    monkeypatch.setattr(read_ahead, "PAGE", 2)
    ids = await insert(leader, *[new() for _ in range(6)])
    reached, go_on = asyncio.Event(), asyncio.Event()
    plain = read_ahead._tasks

    async def held(*args: object) -> dict[int, read_ahead.Kept]:
        found = await plain(*args)  # type: ignore[arg-type]
        if ids[2] in found and not reached.is_set():
            reached.set()
            await go_on.wait()
        return found

    monkeypatch.setattr(read_ahead, "_tasks", held)
    reading = asyncio.create_task(standby.ahead.read())
    await reached.wait()
    found = await everything(standby.ahead)
    go_on.set()
    await reading
    assert [task.id for task in found.tasks] == ids
    assert len(standby.ahead) == 0


async def test_no_more_is_kept_than_is_allowed(leader: PostgresStore) -> None:
    ids = await insert(leader, *[new() for _ in range(5)])
    ahead = ReadAhead(leader.postgres, most=3)
    await ahead.read()
    assert len(ahead) == 3
    assert [task.id for task in (await everything(ahead, 2)).tasks] == ids


@pytest.mark.parametrize("while_taken", [False, True])
async def test_in_another_life_of_the_database_nothing_that_was_kept_counts(
    leader: PostgresStore, read: list[int], while_taken: bool
) -> None:
    """After a failover the number of a transaction may come back with other rows."""
    ids = await insert(leader, new(), new())
    await leader.ahead.read()
    leader.ahead._life = (leader.ahead._life[0], "00000000")
    read.clear()
    if not while_taken:
        await leader.ahead.read()
        assert read == ids
    assert [task.id for task in (await everything(leader.ahead)).tasks] == ids
    assert read == ids


@pytest.mark.parametrize("seed", range(3))
async def test_it_is_what_would_be_read(
    leader: PostgresStore, standby: PostgresStore, lead: Leadership, seed: int
) -> None:
    chance = random.Random(seed)
    living: list[int] = []
    for _ in range(ROUNDS):
        what = chance.choice(["insert", "insert", "array", "queue", "assign", "end", "wish", "read", "take"])
        if what == "insert":
            living += await insert(leader, *[new() for _ in range(chance.randint(1, 9))])
        elif what == "array":
            living += await insert(leader, new(array=ArraySpec(((0, 4, 1),))))
        elif what == "read":
            await standby.ahead.read()
        elif what == "take":
            found, plain = await everything(standby.ahead), await everything(ReadAhead(leader.postgres))
            assert found == plain
            assert [task.id for task in found.tasks] == sorted(living)
        elif living:
            await _change(leader, lead, what, living, chance)


async def _change(store: PostgresStore, lead: Leadership, what: str, living: list[int], chance: random.Random) -> None:
    ident = chance.choice(living)
    (task,) = await store.task_get_many([ident])
    if what == "queue" and task.state is State.SUBMITTED:
        await commit(store, lead, queued=[(ident, ident)])
    elif what == "assign" and task.state is not State.ASSIGNED:
        await assign(store, lead, ident)
    elif what == "end":
        living.remove(ident)
        await end(store, lead, ident, at=9.0)
    elif what == "wish" and task.state is State.ASSIGNED:  # a row of an element alone
        await commit(store, lead, elements={ElementKey(ident): element(ident, wish="cancel")})
