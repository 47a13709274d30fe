"""Databases that are refused: each with a message that names the file and the way out, and left as it was."""

import asyncio
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.contract.harness import Ticking, event, insert, key, new
from tests.disks import small_disk

from jarvis.core.changes import Changes
from jarvis.core.errors import JarvisError, StoreCorrupt, StoreUnavailable
from jarvis.core.states import State
from jarvis.state import migrations
from jarvis.state.store import Submission
from jarvis.state.stores.sqlite import SqliteStore
from jarvis.state.stores.sqlite.file import DATABASE, open_database, restore

LOG = f"{DATABASE}-wal"


@pytest.fixture
def store(sqlite: SqliteStore) -> SqliteStore:
    return sqlite


async def stored_ids(directory: Path) -> list[int]:
    """Everything that a fresh owner finds."""
    store = SqliteStore(directory)
    await store.open()
    try:
        found, after = [], 0
        while page := await store.task_list_live(after, 5000):
            found += [task.id for task in page]
            after = page[-1].id
        return found
    finally:
        await store.close()


def contents(directory: Path) -> dict[str, bytes]:
    """The database and its log; the index of the log (-shm) is scratch that any reader makes."""
    return {p.name: p.read_bytes() for p in directory.iterdir() if p.name in (DATABASE, LOG)}


async def refused(directory: Path, kind: type[JarvisError] = StoreCorrupt, match: str = DATABASE) -> JarvisError:
    """Open and be refused; the files are byte for byte what they were, and nothing holds the directory."""
    before = contents(directory)
    with pytest.raises(kind, match=match):
        await SqliteStore(directory).open()
    assert contents(directory) == before
    with pytest.raises(kind, match=match) as again:
        await SqliteStore(directory).open()
    assert contents(directory) == before
    return again.value


# ------------------------------------------------------------ damage


def with_bytes(data: bytes, at: int, changed: bytes) -> bytes:
    return data[:at] + changed + data[at + len(changed) :]


def flip_page_headers(data: bytes) -> bytes:
    flipped = bytearray(data)
    for at in range(4096, len(data), 4096):
        flipped[at] ^= 0xFF
    return bytes(flipped)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut in a page": lambda data: data[:5000],
    "cut at a page": lambda data: data[: len(data) // 8192 * 4096],
    "cut in the header": lambda data: data[:60],
    "another kind of file": lambda data: b"hello " * 2000,
    "zeroed": lambda data: bytes(len(data)),
    "first byte flipped": lambda data: with_bytes(data, 0, b"\xac"),
    "page headers flipped": flip_page_headers,
    "a page zeroed": lambda data: with_bytes(data, 4096 * 3, bytes(4096)),
    "its last half zeroed": lambda data: with_bytes(data, len(data) // 8192 * 4096, bytes(len(data) // 2)),
}


@pytest.mark.parametrize("crashed", [False, True])
@pytest.mark.parametrize("damage", DAMAGE)
async def test_damage_is_refused_and_left_as_it_is(
    store: SqliteStore, damage: str, crashed: bool, tmp_path: Path
) -> None:
    """After a clean end and after a crash alike; a restored backup then runs."""
    ids = await insert(store, *(new(str(n), env={"pad": "x" * 200}) for n in range(200)))
    await store.backup(tmp_path / "copy")
    directory = tmp_path / "damaged"
    if not crashed:
        await store.close()
    shutil.copytree(store.directory, directory)
    path = directory / DATABASE
    if crashed:  # what has been copied back from the log is what can be damaged
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE cluster SET clean = 0")
        connection.close()
        Path(directory / LOG).touch()  # noqa: ASYNC240 - an empty file
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    error = await refused(directory)
    assert str(path) in str(error)
    assert "restore" in error.hint
    restore(tmp_path / "copy", directory, force=True)
    assert await stored_ids(directory) == ids


async def test_random_damage_is_found_or_harmless(store: SqliteStore, tmp_path: Path) -> None:
    """Refused, or the rows that are given are rows that were stored: nothing crashes and nothing hangs."""
    ids = await insert(store, *(new(str(n)) for n in range(300)))
    await store.close()
    clean = store.path.read_bytes()
    dice = random.Random(7)
    found = 0
    for number in range(40):
        directory = tmp_path / str(number)
        directory.mkdir()
        (directory / DATABASE).write_bytes(with_bytes(clean, dice.randrange(len(clean) - 64), dice.randbytes(64)))
        try:
            assert set(await stored_ids(directory)) <= set(ids)
        except JarvisError:
            found += 1
    assert found


async def test_a_row_that_cannot_be_read_says_so(store: SqliteStore) -> None:
    await insert(store, new())
    await store._writer.do(lambda c: c.execute("UPDATE task SET spec = x'ff'").rowcount)
    with pytest.raises(StoreCorrupt, match=str(store.path)):
        await store.task_list_live(0, 10)


async def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    for version in (0, 1):
        connection = sqlite3.connect(tmp_path / DATABASE)
        connection.executescript(f"CREATE TABLE IF NOT EXISTS songs (name TEXT); PRAGMA user_version = {version};")
        connection.close()
        await refused(tmp_path, match="not a database of Jarvis")


async def test_a_newer_schema_is_refused_with_both_numbers(store: SqliteStore, tmp_path: Path) -> None:
    await store.close()
    newest = migrations.load("sqlite")[-1][0]
    connection = sqlite3.connect(store.path)
    connection.execute(f"PRAGMA user_version = {newest + 5}")
    connection.close()
    error = await refused(store.directory, match=f"schema {newest + 5}.* knows {newest}")
    assert "newer" in str(error) + error.hint
    with pytest.raises(StoreCorrupt, match="schema"):
        restore(store.path, tmp_path / "other")
    assert not (tmp_path / "other" / DATABASE).exists()


async def test_a_log_without_its_database_is_refused(store: SqliteStore) -> None:
    await store.close()
    store.path.rename(store.path.with_name("moved"))
    log = store.path.with_name(LOG)
    log.write_bytes(b"x")
    await refused(store.directory, match="is missing")
    assert not store.path.exists()
    log.unlink()
    assert await stored_ids(store.directory) == []


async def test_a_database_without_its_log_is_refused_until_that_is_accepted(store: SqliteStore, tmp_path: Path) -> None:
    """Copied without the log, as by a careless backup: the last rows would be gone in silence."""
    (first,) = await insert(store, new())
    lost = tmp_path / "lost"
    lost.mkdir()
    shutil.copy(store.path, lost / DATABASE)
    error = await refused(lost, match=LOG)
    assert f"restore --force {lost / DATABASE}" in error.hint
    restore(lost / DATABASE, lost, force=True)
    assert await stored_ids(lost) == []
    reopened = SqliteStore(lost)
    await reopened.open()
    assert (await insert(reopened, new()))[0] > first + 900_000
    await reopened.close()


async def test_a_start_that_was_cut_short_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    (tmp_path / f".{DATABASE}.new").write_bytes(b"half of it")
    (tmp_path / f".{DATABASE}.new-wal").write_bytes(b"and its log")
    assert await stored_ids(tmp_path) == []


# ------------------------------------------------------------ directories


@pytest.mark.root
async def test_a_read_only_directory_is_refused(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4 << 20) as disk:
        await stored_ids(disk.path)
        disk.read_only()
        error = await refused(disk.path, StoreUnavailable, str(disk.path))
        assert "Read-only" in str(error)
        assert "JARVIS_HOME" in error.hint


async def test_a_file_where_the_directory_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"")
    with pytest.raises(StoreUnavailable, match=str(tmp_path / "state")):
        await SqliteStore(tmp_path / "state").open()


async def test_a_closed_store_says_so_and_can_be_opened_again(store: SqliteStore) -> None:
    await store.close()
    await store.close()
    for asked in (insert(store, new()), store.task_list_live(0, 1), store.check()):
        with pytest.raises(StoreUnavailable):
            await asked
    await store.open()
    assert await insert(store, new())


# ------------------------------------------------------------ migrations, backups


@pytest.fixture
def next_schema(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], int]]:
    known = migrations.load("sqlite")

    def add(sql: str) -> int:
        number = known[-1][0] + 1
        known.append((number, f"{number:04}_next", sql))
        return number

    monkeypatch.setattr(migrations, "load", lambda _: list(known))
    return add  # type: ignore[return-value]


async def test_before_each_migration_there_is_a_copy_that_restores(
    store: SqliteStore, next_schema: Callable[[str], int], tmp_path: Path
) -> None:
    ids = await insert(store, new())
    await store.close()
    first = next_schema("CREATE TABLE one (a);")
    second = next_schema("CREATE TABLE two (a);")
    await store.open()
    assert [t.id for t in await store.task_list_live(0, 9)] == ids
    await store.close()
    copies = sorted((store.directory / "backups").iterdir())
    assert [c.name[:12] for c in copies] == [f"before-{first:04}-", f"before-{second:04}-"]
    for number, copy in zip((first, second), copies, strict=True):
        connection = sqlite3.connect(f"file:{copy}?mode=ro", uri=True)
        assert connection.execute("PRAGMA user_version").fetchone() == (number - 1,)
        connection.close()
        restore(copy, tmp_path / str(number))
        assert await stored_ids(tmp_path / str(number)) == ids


async def test_a_migration_that_fails_is_undone_whole(store: SqliteStore, next_schema: Callable[[str], int]) -> None:
    ids = await insert(store, new())
    await store.close()
    next_schema("CREATE TABLE one (a);\nCREATE TABLE one (a);")
    with pytest.raises(StoreUnavailable, match=str(store.path)):
        await store.open()
    connection = sqlite3.connect(store.path)
    assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'one'").fetchone() == (0,)
    connection.close()
    assert ids


async def test_a_backup_is_taken_while_writes_go_on(store: SqliteStore, tmp_path: Path) -> None:
    before = await insert(store, *(new(env={"pad": "x" * 2000}) for _ in range(3000)))
    copying = asyncio.create_task(store.backup(tmp_path / "copy"))
    during = 0
    while not copying.done():
        await insert(store, new())
        during += 1
    await copying
    assert during > 1
    restore(tmp_path / "copy", tmp_path / "other")
    assert set(before) <= set(await stored_ids(tmp_path / "other"))


async def test_a_restore_begins_a_new_life_with_the_old_keys(tmp_path: Path) -> None:
    clock = Ticking()
    store = SqliteStore(tmp_path / "with ?#% in it", clock=clock)
    await store.open()
    lead = await store.leadership_acquire("a")
    await store.task_insert_many([Submission([new()], key())])
    await store.backup(tmp_path / "a ?#% b")
    (lost,) = await insert(store, new("after the backup"))
    await store.close()
    assert restore(tmp_path / "a ?#% b", tmp_path / "b", clock=clock) > lead.incarnation
    restored = SqliteStore(tmp_path / "b", clock=clock)
    await restored.open()
    assert (await restored.leadership_acquire("b")).incarnation > lead.incarnation
    assert (await insert(restored, new()))[0] > lost + 900_000
    assert (await restored.idempotency_get(key())) is not None
    await restored.close()


async def test_a_backup_that_finds_no_place_leaves_nothing_and_harms_nothing(
    store: SqliteStore, tmp_path: Path
) -> None:
    with pytest.raises(StoreUnavailable):
        await store.backup(tmp_path / "nowhere" / "copy")
    assert await insert(store, new())


# ------------------------------------------------------------ the writer


async def test_one_bad_unit_does_not_fail_its_neighbours(store: SqliteStore) -> None:
    lead = await store.leadership_acquire("a")

    async def bad() -> None:
        await store.leader_commit(lead, Changes(events=[event(1)], tasks={9: None}))  # type: ignore[dict-item]

    outcomes = await asyncio.gather(
        *(insert(store, new()) if n % 3 else bad() for n in range(60)), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [list if n % 3 else AttributeError for n in range(60)]
    assert await store.event_last_seq() == 0
    assert len(await store.task_list_submitted(100)) == 40


async def test_a_caller_that_went_away_leaves_the_others_alone(store: SqliteStore) -> None:
    tasks = [asyncio.create_task(insert(store, new())) for _ in range(50)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, list) for outcome in outcomes[1::2])


async def test_a_read_sees_every_acknowledged_write(store: SqliteStore) -> None:
    async def client() -> None:
        for _ in range(30):
            ids = await insert(store, new())
            assert [task.id for task in await store.task_get_many(ids)] == ids

    await asyncio.gather(*(client() for _ in range(8)))


COMMITTER = """
import asyncio, sys
from pathlib import Path
from tests.contract.harness import insert, new
from jarvis.state.stores.sqlite import SqliteStore

async def client(store):
    while True:
        print(*await insert(store, *[new(env={"pad": "x" * 500})] * 3), flush=True)

async def main():
    store = SqliteStore(Path(sys.argv[1]))
    await store.open()
    await asyncio.gather(*(client(store) for _ in range(8)))

asyncio.run(main())
"""


@pytest.mark.parametrize("lines", [20, 60, 150])
async def test_no_acknowledged_row_is_lost_by_a_kill(tmp_path: Path, lines: int) -> None:
    """The group that is being written when the kill comes is there whole or not at all."""
    command = [sys.executable, "-c", COMMITTER, str(tmp_path / "state")]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as child:  # noqa: ASYNC220 - waited for by its output
        assert child.stdout is not None
        heard = [child.stdout.readline() for _ in range(lines)]
        child.send_signal(signal.SIGKILL)
        heard += child.stdout.readlines()
    acknowledged = {int(ident) for line in heard if line.endswith("\n") for ident in line.split()}
    found = await stored_ids(tmp_path / "state")
    assert len(acknowledged) >= 3 * lines
    assert acknowledged <= set(found)
    assert len(found) == len(set(found))
    assert len(found) % 3 == 0


def test_a_small_database_is_checked_at_every_start_and_a_large_one_after_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / DATABASE
    open_database(path, "FULL", 1.9e9).close()
    monkeypatch.setattr("jarvis.state.stores.sqlite.file.SMALL", 0)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE cluster SET clean = 1")
    connection.commit()
    ((page,),) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'report'").fetchall()
    connection.close()
    data = bytearray(path.read_bytes())
    data[(page - 1) * 4096] ^= 0xFF  # of a table that nothing reads at a start
    path.write_bytes(data)
    open_database(path, "FULL", 1.9e9).close()
    path.with_name(LOG).touch()
    with pytest.raises(StoreCorrupt, match=str(path)):
        open_database(path, "FULL", 1.9e9)


def test_no_state_is_unknown_to_the_queries() -> None:
    """SQL names the terminal states and those on a node; the core decides which those are."""
    from jarvis.core.states import ON_NODE, TERMINAL
    from jarvis.state.stores.sqlite.file import Q

    for name, states in (("element_list_live", TERMINAL), ("attempt_list_current", ON_NODE)):
        assert {s for s in State if f"'{s}'" in Q[name]} == states
