"""What the specs of a submission end with is kept once, and nobody who reads notices."""

import sqlite3
from contextlib import closing
from typing import Any

import pytest
from tests.contract.harness import end, insert, new

from jarvis.core.errors import StoreCorrupt
from jarvis.core.states import State
from jarvis.core.task import Dependency, FunctionCall, NewTask
from jarvis.state.store import Store, TaskFilter
from jarvis.state.stores.sqlite import SqliteStore

ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": "/home/ann/work:/opt/python/site-packages"}


def calls(count: int, **spec: Any) -> list[NewTask]:
    """Tasks that differ in the arguments of their calls alone, in which any byte may be."""
    return [
        new(function=FunctionCall(code="c", args=bytes(range(256)) * at, python="3.11"), env=ENV, **spec)
        for at in range(count)
    ]


def named(count: int, **spec: Any) -> list[NewTask]:
    return [new(f"t{at}", env=ENV, **spec) for at in range(count)]


def kept(store: SqliteStore) -> list[tuple[int, int]]:
    """Tail → how many tasks have it."""
    with closing(sqlite3.connect(store.path)) as c:
        return c.execute(
            "SELECT t.id, count(task.id) FROM spec_tail t LEFT JOIN task ON task.tail = t.id GROUP BY t.id"
        ).fetchall()


@pytest.mark.parametrize(
    "tasks",
    [
        calls(20),
        named(20, grace=3.0),
        named(7),
        [*named(10, queue="a"), *named(10, queue="b"), new(), *calls(9, licenses={"matlab": 1})],
        [new(env={**ENV, "N": str(at)}) for at in range(20)],
        [],
    ],
    ids=["calls", "named", "few", "mixed", "unlike", "none"],
)
async def test_every_reader_is_told_whole_specs(store: Store, tasks: list[NewTask]) -> None:
    ids = await insert(store, *tasks)
    wanted = [task.spec for task in tasks]
    assert [task.spec for task in await store.task_get_many(ids)] == wanted
    assert [task.spec for task in await store.task_list_submitted(100)] == wanted
    assert [task.spec for task in await store.task_list_live(0, 100)] == wanted
    assert [task.spec for task in await store.task_list(TaskFilter(), None, 100)] == wanted[::-1]
    live = TaskFilter(states=frozenset({State.SUBMITTED}))
    assert [task.spec for task in await store.task_list(live, None, 100)] == wanted[::-1]


async def test_it_is_kept_once_and_by_all_submissions_together(sqlite: SqliteStore) -> None:
    await insert(sqlite, *calls(20))
    await insert(sqlite, *calls(8), *named(8))
    assert sorted(count for _, count in kept(sqlite)) == [36]
    await insert(sqlite, *calls(7, cwd="/a"), *named(8, cwd="/b"))
    assert sorted(count for _, count in kept(sqlite)) == [8, 36]


async def test_it_is_gone_with_the_last_task_that_has_it(sqlite: SqliteStore) -> None:
    lead = await sqlite.leadership_acquire("a")
    first, second = await insert(sqlite, *calls(8)), await insert(sqlite, *named(8, cwd="/b"))
    for ident in (*first, *second[:7]):
        await end(sqlite, lead, ident, 1.0)
    assert len(await sqlite.task_delete_ended(2.0, 100)) == 15
    assert [count for _, count in kept(sqlite)] == [1]
    (left,) = await sqlite.task_get_many([second[7]])
    assert left.spec.env == ENV
    await end(sqlite, lead, second[7], 1.0)
    await sqlite.task_delete_ended(2.0, 100)
    assert kept(sqlite) == []


async def test_whom_a_batch_waits_for_is_not_deleted(sqlite: SqliteStore) -> None:
    """That they wait stands in what they share."""
    lead = await sqlite.leadership_acquire("a")
    (first,) = await insert(sqlite, new())
    await insert(sqlite, *named(10, after=(Dependency("afterok", first),)))
    await end(sqlite, lead, first, 1.0)
    assert await sqlite.task_delete_ended(2.0, 100) == []


async def test_bodies_that_a_batch_shares_are_known(sqlite: SqliteStore) -> None:
    ids = await insert(sqlite, *named(10, push=("m" * 64,)))
    assert {ident: bodies.manifests for ident, _, bodies in await sqlite.blob_list_referenced(1e12, 0, 100)} == {
        ident: frozenset({"m" * 64}) for ident in ids
    }


async def test_a_tail_that_is_missing_is_damage(sqlite: SqliteStore) -> None:
    ids = await insert(sqlite, *calls(8))
    with closing(sqlite3.connect(sqlite.path)) as c, c:
        c.execute("DELETE FROM spec_tail")
    with pytest.raises(StoreCorrupt, match="damaged"):
        await sqlite.task_get_many(ids)
