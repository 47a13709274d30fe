"""What only a store on disk can get wrong: owners, damage, full disks, power."""

import asyncio
import os
import sqlite3
from pathlib import Path

import pytest

from jarvis.core.changes import Changes
from jarvis.core.errors import Conflict, StateDirectoryInUse, StoreCorrupt, StoreUnavailable
from jarvis.core.ids import SOLO
from jarvis.core.states import State
from jarvis.core.task import Element, NewTask, TaskSpec
from jarvis.state.store import Accepted, Submission
from jarvis.state.stores.sqlite import SqliteStore
from jarvis.state.stores.sqlite.file import DATABASE, restore


def tasks(count: int = 1) -> list[NewTask]:
    return [NewTask(uuid="", project="p", user="u", spec=TaskSpec(name="t")) for _ in range(count)]


async def filled(directory: Path, count: int = 3) -> list[int]:
    store = SqliteStore(directory)
    await store.open()
    (answer,) = await store.task_insert_many([Submission(tasks(count))])
    await store.close()
    assert isinstance(answer, Accepted)
    return list(answer.ids)


async def test_what_was_acknowledged_is_there_after_a_reopening(tmp_path: Path) -> None:
    ids = await filled(tmp_path)
    store = SqliteStore(tmp_path)
    await store.open()
    assert [t.id for t in await store.task_list_submitted(10)] == ids
    await store.close()


@pytest.mark.parametrize("most", [250_000, 999])
async def test_many_rows_are_written_whatever_a_statement_may_hold(tmp_path: Path, most: int) -> None:
    """999 parameters are what SQLite before 3.32 takes."""
    store = SqliteStore(tmp_path)
    await store.open()
    await store._writer.do(lambda c: c.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, most))
    named = [NewTask(uuid=f"u{n}", project="p", user="u", spec=TaskSpec(name="t")) for n in range(1667)]
    (answer,) = await store.task_insert_many([Submission(named)])
    assert isinstance(answer, Accepted)
    assert [task.uuid for task in await store.task_get_many(answer.ids)] == [new.uuid for new in named]
    await store.close()


async def test_few_pages_wait_to_be_copied_back_however_many_are_written_at_once(tmp_path: Path) -> None:
    """All of them are copied while other writes wait."""
    store = SqliteStore(tmp_path)
    await store.open()
    padded = [NewTask(uuid="", project="p", user="u", spec=TaskSpec(name="t", env={"pad": "x" * 1000}))]
    for _ in range(12):
        await store.task_insert_many([Submission(padded * 1000)])
    waiting = (tmp_path / f"{DATABASE}-wal").stat().st_size
    await store.close()
    assert 2 * waiting < 12 * 1000 * 1000


async def test_a_second_owner_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    await store.open()
    with pytest.raises(StateDirectoryInUse, match=str(os.getpid())):
        await SqliteStore(tmp_path).open()
    await store.close()


@pytest.mark.parametrize("damage", ["flip", "not a database", "zeros"])
async def test_a_damaged_database_is_refused_and_left_as_it_is(tmp_path: Path, damage: str) -> None:
    await filled(tmp_path, 200)
    path = tmp_path / DATABASE
    connection = sqlite3.connect(path)
    connection.execute("UPDATE cluster SET clean = 0")
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[4096 * 2 : 4096 * 8] = os.urandom(4096 * 6)
    elif damage == "zeros":
        data[: len(data)] = bytes(len(data) - 1) + b"\1"
    else:
        data[:16] = b"not a database!!"
    path.write_bytes(data)
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)  # noqa: ASYNC240 - a small file
    with pytest.raises(StoreCorrupt, match=DATABASE):
        await SqliteStore(tmp_path).open()
    assert path.read_bytes() == bytes(data)


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    await filled(tmp_path)
    connection = sqlite3.connect(tmp_path / DATABASE)
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    with pytest.raises(StoreCorrupt, match="newer Jarvis"):
        await SqliteStore(tmp_path).open()


async def test_a_new_database_has_nothing_to_back_up_before_its_first_steps(tmp_path: Path) -> None:
    await filled(tmp_path)
    assert not (tmp_path / "backups").exists()


async def test_an_element_of_the_version_before_gives_way_to_what_is_said_later(tmp_path: Path) -> None:
    """There the only element of a task had a row of its own."""
    (ident,) = await filled(tmp_path, 1)
    connection = sqlite3.connect(tmp_path / DATABASE)
    connection.execute("UPDATE task SET state = 'running'")
    names = "task, idx, state, attempt, token, node, failures, infra_losses, reason, wish"
    connection.execute(f"INSERT INTO element ({names}) VALUES (?, -1, 'running', 1, 77, 1, 2, 0, '', '')", (ident,))
    connection.commit()
    connection.close()
    store = SqliteStore(tmp_path)
    await store.open()
    old = Element(task=ident, index=SOLO, state=State.RUNNING, attempt=1, token=77, node=1, failures=2)
    assert await store.element_list_live([ident]) == await store.element_get_many([old.key]) == [old]
    assert await store.element_list(ident, frozenset({State.RUNNING}), -2, 9) == [old]
    lead = await store.leadership_acquire("x")
    (task,) = await store.task_get_many([ident])
    task.state, task.ended_at = State.FAILED, 9.0
    ended = Element(task=ident, index=SOLO, state=State.FAILED, attempt=1, token=77, failures=3, exit_code=1)
    await store.leader_commit(lead, Changes(tasks={ident: task}, elements={ended.key: ended}))
    assert not await store.element_list_live([ident])
    assert await store.element_list(ident, frozenset(), -2, 9) == await store.element_get_many([old.key]) == [ended]
    assert not await store.element_list(ident, frozenset({State.RUNNING}), -2, 9)
    await store.close()


async def test_backup_and_restore(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "a")
    await store.open()
    (answer,) = await store.task_insert_many([Submission(tasks(3))])
    assert isinstance(answer, Accepted)
    incarnation = (await store.leadership_acquire("x")).incarnation
    await store.backup(tmp_path / "copy.db")
    with pytest.raises(Conflict, match="exists"):
        await store.backup(tmp_path / "copy.db")
    await store.close()
    with pytest.raises(Conflict) as refused:
        restore(tmp_path / "copy.db", tmp_path / "a")
    assert "--force" in refused.value.hint
    assert restore(tmp_path / "copy.db", tmp_path / "b") > incarnation
    restored = SqliteStore(tmp_path / "b")
    await restored.open()
    assert [t.id for t in await restored.task_list_submitted(10)] == list(answer.ids)
    (fresh,) = await restored.task_insert_many([Submission(tasks())])
    assert isinstance(fresh, Accepted)
    assert fresh.ids[0] > 1_000_000
    await restored.close()
    assert restore(tmp_path / "copy.db", tmp_path / "a", force=True) > incarnation


async def test_restore_refuses_what_is_not_a_backup(tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(b"junk" * 1000)
    with pytest.raises((StoreCorrupt, StoreUnavailable)):
        restore(tmp_path / "junk", tmp_path / "a")
    assert not (tmp_path / "a" / DATABASE).exists()


async def test_many_writers_share_commits(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    await store.open()
    before = store._writer.commits
    answers = await asyncio.gather(*(store.task_insert_many([Submission(tasks())]) for _ in range(200)))
    assert len({a[0].ids[0] for a in answers if isinstance(a[0], Accepted)}) == 200
    assert store._writer.commits - before < 100
    await store.close()
