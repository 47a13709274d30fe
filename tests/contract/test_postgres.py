"""What only PostgreSQL can get wrong: leaders that overlap, answers that get lost, schemas, several servers at once."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import asyncpg
import pytest
from tests.contract.harness import Ticking, attempt, commit, element, event, insert, key, new
from tests.servers.lossy import Lossy, lossy
from tests.servers.postgres import PostgresServer, shared

from jarvis.core.errors import InvalidValue, LeadershipHeld, StaleEpoch, StoreCorrupt, StoreUnavailable
from jarvis.core.ids import SOLO, ElementKey
from jarvis.core.states import State
from jarvis.state.store import Accepted, Submission, TaskFilter
from jarvis.state.stores.postgres import PostgresStore, schema

WAIT_S = 20.0
Pair = tuple[PostgresStore, PostgresStore]


@pytest.fixture
def url() -> str:
    """Of a fresh database."""
    return shared().database()


@pytest.fixture
async def pair(url: str, clock: Ticking) -> AsyncIterator[Pair]:
    """Two servers on one database."""
    one, two = PostgresStore(url, clock=clock), PostgresStore(url, clock=clock)
    await one.open()
    await two.open()
    yield one, two
    await one.close()
    await two.close()


@pytest.fixture
async def plain(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


async def wait_for_waiters(plain: asyncpg.Connection, count: int = 1) -> None:
    """Until so many wait for a lock."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    async with asyncio.timeout(WAIT_S):
        while await plain.fetchval(waiting) < count:  # noqa: ASYNC110 - the database has no event for it
            await asyncio.sleep(0.005)


# ---------------------------------------------------------------- leadership


async def test_a_takeover_waits_for_the_commit_of_the_leader(pair: Pair, plain: asyncpg.Connection) -> None:
    one, two = pair
    old = await one.leadership_acquire("one")
    (ident,) = await insert(one, new())
    async with plain.transaction():
        await plain.execute("SELECT FROM task_now FOR UPDATE")
        committing = asyncio.create_task(commit(one, old, queued=[(ident, ident)]))
        await wait_for_waiters(plain)
        taking = asyncio.create_task(two.leadership_acquire("two"))
        await wait_for_waiters(plain, 2)
        assert not taking.done()
    await committing
    assert (await taking).epoch == old.epoch + 1
    assert [t.state for t in await two.task_get_many([ident])] == [State.QUEUED]
    with pytest.raises(StaleEpoch):
        await commit(one, old, events=[event(1)])


async def test_a_commit_that_waited_for_a_takeover_is_refused(pair: Pair, plain: asyncpg.Connection) -> None:
    one, two = pair
    old = await one.leadership_acquire("one")
    (ident,) = await insert(one, new())
    async with plain.transaction():
        await plain.execute("SELECT FROM leadership FOR UPDATE")
        await plain.execute("UPDATE leadership SET epoch = epoch + 1")
        committing = asyncio.create_task(commit(one, old, queued=[(ident, ident)]))
        await wait_for_waiters(plain)
    with pytest.raises(StaleEpoch):
        await committing
    assert [t.state for t in await two.task_get_many([ident])] == [State.SUBMITTED]


async def test_of_candidates_that_queued_one_alone_wins(pair: Pair, plain: asyncpg.Connection, url: str) -> None:
    others = [PostgresStore(url) for _ in range(6)]
    for other in others:
        await other.open()
    async with plain.transaction():
        await plain.execute("SELECT FROM leadership FOR UPDATE")
        candidates = [asyncio.create_task(s.leadership_acquire(str(n), 10.0)) for n, s in enumerate(others)]
        await wait_for_waiters(plain, len(others))
    answers = await asyncio.gather(*candidates, return_exceptions=True)
    assert sorted(type(a).__name__ for a in answers) == ["Leadership", *["LeadershipHeld"] * 5]
    assert (await pair[0].leader_get()).leadership.epoch == 1
    for other in others:
        await other.close()


async def test_who_is_gone_and_silent_is_superseded_early(pair: Pair, clock: Ticking) -> None:
    one, two = pair
    first = await one.leadership_acquire("one", 10.0)
    clock.now += 3.0
    with pytest.raises(LeadershipHeld):
        await two.leadership_acquire("two", 10.0)  # silent, but its session lives
    await one.leadership_renew(first, 10.0)
    assert one._session is not None
    one._session.terminate()
    clock.now += 1.0
    with pytest.raises(LeadershipHeld):
        await two.leadership_acquire("two", 10.0)  # its session is gone, but it renewed a second ago
    clock.now += 2.0
    async with asyncio.timeout(WAIT_S):
        while not await superseded(two):  # noqa: ASYNC110 - the server has to notice the end of the session
            await asyncio.sleep(0.02)
    with pytest.raises(StaleEpoch):
        await one.leadership_renew(first, 10.0)


async def test_an_attempt_that_came_to_nothing_keeps_nobody_waiting(
    pair: Pair, clock: Ticking, plain: asyncpg.Connection
) -> None:
    """It had taken the lock of the leader's session before its transaction failed."""
    one, two = pair
    await one.leadership_acquire("one", 10.0)
    assert one._session is not None
    await one._session.close()
    one._session = None
    clock.now += 3.0
    await plain.execute("ALTER TABLE takeover RENAME TO elsewhere")
    with pytest.raises(StoreUnavailable):
        await two.leadership_acquire("two", 10.0)
    await plain.execute("ALTER TABLE elsewhere RENAME TO takeover")
    async with asyncio.timeout(WAIT_S):
        while not await superseded(one):  # noqa: ASYNC110 - the server has to notice the end of the session
            await asyncio.sleep(0.02)


async def superseded(store: PostgresStore) -> bool:
    try:
        await store.leadership_acquire("two", 10.0)
    except LeadershipHeld:
        return False
    return True


async def test_after_a_failover_nobody_leads_until_a_leader_began_a_new_life(
    pair: Pair, plain: asyncpg.Connection, clock: Ticking
) -> None:
    store, _ = pair
    old = await store.leadership_acquire("one", 10.0)
    (before,) = await insert(store, new())
    await plain.execute("UPDATE leadership SET timeline = 'FFFFFFFF'")  # that of another server of the database
    with pytest.raises(StaleEpoch):
        await store.leadership_renew(old, 10.0)
    with pytest.raises(StaleEpoch):
        await commit(store, old, events=[event(1)])
    with pytest.raises(StoreUnavailable, match="failed over"):
        await insert(store, new())
    clock.now += 20.0
    lead = await store.leadership_acquire("one", 10.0)
    assert lead.incarnation > old.incarnation
    assert lead.epoch == old.epoch + 1
    assert (await insert(store, new()))[0] > before + 1_000_000
    await commit(store, lead, events=[event(1)])


# ---------------------------------------------------------------- answers that get lost


@pytest.fixture
async def through(url: str) -> AsyncIterator[tuple[Lossy, PostgresStore]]:
    """A store whose connections may be lost at a commit."""
    async with AsyncExitStack() as stack:
        proxy, away = await stack.enter_async_context(lossy(url))
        store = PostgresStore(away)
        await store.open()
        stack.push_async_callback(store.close)
        yield proxy, store


@pytest.mark.parametrize("fate", ["before", "after"])
async def test_a_submission_with_a_key_whose_answer_got_lost_is_done_once(
    through: tuple[Lossy, PostgresStore], fate: str
) -> None:
    proxy, store = through
    proxy.fates = [fate]
    submission = Submission([new(), new()], key())
    try:
        (answer,) = await store.task_insert_many([submission])
        assert fate == "after"
    except StoreUnavailable:
        assert fate == "before"
        (answer,) = await store.task_insert_many([submission])
    assert isinstance(answer, Accepted)
    assert proxy.lost == 1
    assert [t.id for t in await store.task_list(TaskFilter(), None, 10)] == list(answer.ids)[::-1]


@pytest.mark.parametrize("fate", ["before", "after"])
async def test_a_turn_whose_answer_got_lost_is_told_and_read_again(
    through: tuple[Lossy, PostgresStore], fate: str
) -> None:
    proxy, store = through
    lead = await store.leadership_acquire("a", 10.0)
    (ident,) = await insert(store, new())
    proxy.fates = [fate]
    fresh, row = {(ident, SOLO, 1): attempt(ident)}, {ElementKey(ident): element(ident)}
    with pytest.raises(StoreUnavailable):
        await commit(store, lead, attempts_new=fresh, elements=row, events=[event(1, ident)])
    await store.leadership_renew(lead, 10.0)
    done = fate == "after"
    assert len(await store.attempt_list_current([ident])) == done
    assert await store.event_last_seq() == done


async def test_a_leader_that_renews_waits_for_what_it_has_on_its_way(through: tuple[Lossy, PostgresStore]) -> None:
    """So that the memory which it then rebuilds from the store cannot be older than the store."""
    proxy, store = through
    lead = await store.leadership_acquire("a", 10.0)
    proxy.fates = ["held"]
    with pytest.raises(StoreUnavailable):
        await commit(store, lead, events=[event(1)])
    renewing = asyncio.create_task(store.leadership_renew(lead, 10.0))
    await asyncio.sleep(0.3)
    assert not renewing.done()
    assert await store.event_last_seq() == 0, "others may read"
    proxy.go_on.set()
    await renewing
    assert await store.event_last_seq() == 1


# ---------------------------------------------------------------- several at once


async def test_a_key_that_two_servers_get_at_once_is_answered_once(pair: Pair) -> None:
    for n in range(20):
        submissions = [Submission([new()], key(f"{n}.{i}")) for i in range(5)]
        answers = await asyncio.gather(
            pair[0].task_insert_many(submissions), pair[1].task_insert_many(submissions[::-1])
        )
        for first, second in zip(answers[0], answers[1][::-1], strict=True):
            assert isinstance(first, Accepted)
            assert isinstance(second, Accepted)
            assert list(first.ids) == list(second.ids)
            assert first.replayed != second.replayed
    assert len(await pair[0].task_list(TaskFilter(), None, 1000)) == 100


async def test_one_that_cannot_be_kept_fails_alone_in_its_group(pair: Pair) -> None:
    bad = [new(name="nul\0"), new(project="\0"), new(retry_of=1 << 63)]
    asked = [
        Submission([new()]),
        *(Submission([new(), b], key(str(n))) for n, b in enumerate(bad)),
        Submission([new()]),
    ]
    answers = await asyncio.gather(*(pair[0].task_insert_many([s]) for s in asked))
    assert [type(a) for (a,) in answers] == [Accepted, *[InvalidValue] * 3, Accepted]
    assert len(await pair[0].task_list_submitted(99)) == 2
    assert await pair[0].idempotency_get(key("2")) is None


async def test_connections_are_made_anew_after_a_restart(clock: Ticking) -> None:
    server = PostgresServer()
    try:
        server.create()
        store = PostgresStore(server.database(), clock=clock)
        await store.open()
        lead = await store.leadership_acquire("a", 10.0)
        await asyncio.gather(*(store.now() for _ in range(20)), store.counts(), insert(store, new()))
        server.kill()
        for asked in (store.counts(), insert(store, new()), commit(store, lead), store.leadership_renew(lead, 1.0)):
            with pytest.raises(StoreUnavailable):
                await asked
        server.start()
        await store.leadership_renew(lead, 10.0)
        await commit(store, lead, events=[event(1)])
        assert len(await insert(store, new())) == 1
        assert await store.event_last_seq() == 1
        await store.close()
    finally:
        server.remove()


async def test_who_wakes_up_after_the_server_hung_up_finds_the_database_unavailable(pair: Pair) -> None:
    """As a process that was frozen between two statements: the answer to the first and the end of its connection are there at
    the same moment, and the driver refuses the second."""
    store = pair[0]

    async def sleeps(c: asyncpg.Connection) -> None:
        await c.execute("SET LOCAL idle_in_transaction_session_timeout = '100ms'")
        asked = asyncio.ensure_future(c.execute("SELECT 1"))
        await asyncio.sleep(0)
        time.sleep(0.5)  # noqa: ASYNC251 - the whole process stands still
        await asked

    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await store.postgres.transaction(sleeps)
    assert len(await insert(store, new())) == 1


# ---------------------------------------------------------------- schemas


async def test_servers_that_start_at_once_make_the_schema_once(url: str) -> None:
    stores = [PostgresStore(url) for _ in range(4)]
    await asyncio.gather(*(store.open() for store in stores))
    lead = await stores[0].leadership_acquire("a")
    assert {(await store.leader_get()).leadership for store in stores} == {lead}
    for store in stores:
        await store.close()


async def test_a_schema_that_is_newer_is_refused(pair: Pair, plain: asyncpg.Connection, url: str) -> None:
    assert pair
    await plain.execute("INSERT INTO jarvis_schema (number, name) VALUES (9999, '9999_future')")
    with pytest.raises(StoreCorrupt, match="9999"):
        await PostgresStore(url).open()


async def test_servers_of_the_version_before_read_elements_until_the_schema_contracts(
    pair: Pair, plain: asyncpg.Connection
) -> None:
    """They know no element but one with a row of its own; what they wrote gives way to what is said later."""
    one, two = pair
    await plain.execute(
        "UPDATE leadership SET solo_in_task = false; DELETE FROM jarvis_schema WHERE name LIKE '%contract%'"
    )
    lead = await one.leadership_acquire("one")
    (ident,) = await insert(one, new())
    (task,) = await one.task_get_many([ident])
    task.state = State.ASSIGNED
    first = element(ident)
    new_attempt = {(ident, SOLO, 1): attempt(ident)}
    await commit(one, lead, tasks={ident: task}, elements={first.key: first}, attempts_new=new_attempt)
    assert await plain.fetchval("SELECT state FROM element WHERE task = $1 AND idx = -1", ident) == "assigned"
    assert await plain.fetchval("SELECT element IS NULL FROM task_now WHERE id = $1", ident)
    assert await two.element_list_live([ident]) == await two.element_get_many([first.key]) == [first]
    assert (await schema.migrate(one.postgres)).missing == ("0012_contract_solo",), "it is not taken by itself"
    await schema.migrate(two.postgres, contract=True)
    assert not (await schema.look(one.postgres)).missing
    task.state, second = State.RUNNING, element(ident, State.RUNNING, wish="cancel")
    await commit(one, lead, tasks={ident: task}, elements={second.key: second})
    assert await plain.fetchval("SELECT state FROM element WHERE task = $1 AND idx = -1", ident) == "assigned"
    assert await two.element_list_live([ident]) == await two.element_list(ident, frozenset(), -2, 9) == [second]
    assert await two.element_get_many([second.key]) == [second]
    assert [a.attempt for a in await two.attempt_list_current([ident])] == [1]


async def test_a_database_of_another_program_is_refused(plain: asyncpg.Connection, url: str) -> None:
    await plain.execute("CREATE TABLE task (theirs integer)")
    with pytest.raises(StoreCorrupt, match="another program"):
        await PostgresStore(url).open()


async def test_an_encoding_that_cannot_hold_all_text_is_refused() -> None:
    server = shared()
    server.psql("CREATE DATABASE narrow TEMPLATE template0 ENCODING 'LATIN1'")
    with pytest.raises(StoreCorrupt, match="LATIN1"):
        await PostgresStore(server.url("narrow")).open()


@pytest.mark.parametrize("url", ["postgresql://", "mysql://x/y", "postgresql://127.0.0.1:1/x", "nonsense"])
async def test_a_url_that_leads_nowhere_is_told(url: str) -> None:
    with pytest.raises(StoreUnavailable):
        await PostgresStore(url).open()
