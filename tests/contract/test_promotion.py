"""An embedded database that moves into PostgreSQL: everything is there as it was, once, however often it is cut short."""

import asyncio
import time
from collections.abc import AsyncIterator
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from tests.contract.harness import attempt, commit, element, end, event, insert, key, new
from tests.servers.postgres import shared

from jarvis import promotion
from jarvis.core.attempt import Output
from jarvis.core.command import NewCommand
from jarvis.core.errors import Conflict
from jarvis.core.ids import SOLO, ElementKey
from jarvis.core.manifest import File, Manifest, encode
from jarvis.core.node import Node
from jarvis.core.states import State
from jarvis.core.task import ArraySpec, Dependency
from jarvis.promotion import promote
from jarvis.state.blob_stores.directory import DirectoryBlobStore
from jarvis.state.blob_stores.postgres import PostgresBlobStore
from jarvis.state.coordination import Token
from jarvis.state.store import Accepted, Store, Submission, TaskFilter
from jarvis.state.stores.postgres import PostgresStore
from jarvis.state.stores.sqlite import SqliteStore

S = State


@pytest.fixture
async def directory(tmp_path: Path) -> Path:
    """A state directory with a bit of everything, closed."""
    store = SqliteStore(tmp_path / "state", clock=lambda: time.time() - 1e6)
    blobs = DirectoryBlobStore(tmp_path / "state" / "blobs")
    await store.open()
    lead = await store.leadership_acquire("a")
    script, output = await blobs.put("p", b"#!/bin/sh"), await blobs.put("p", b"x" * 300_000)
    (keyed,) = await store.task_insert_many([Submission([new("a", script=script), new("b")], key())])
    assert isinstance(keyed, Accepted)
    piece = await blobs.put("p", b"piece")
    pushed = await blobs.put("p", encode(Manifest((File("x", 5, piece, (piece,)),))))
    array, waits = await insert(
        store, new("c", array=ArraySpec(((0, 9, 1),))), new(after=(Dependency("afterok", 2),), push=(pushed,))
    )
    await insert(store, *(new(f"alike-{n}", env={"PATH": "/bin:" * 20}) for n in range(8)))
    await commit(store, lead, nodes={n: Node(id=n, name=f"n{n}", labels={"zone": "a"}) for n in (1, 2, 3)})
    await store.node_seen_many([(1, 7.0, {"load1": 0.5})], "one")
    running, ended = attempt(array, index=3), attempt(keyed.ids[1], number=2)
    ended.stdout = Output(size=300_000, chunks=((0, output),))
    rows = [element(array, S.RUNNING, 3), element(keyed.ids[1], S.SUCCEEDED), element(waits, S.WAITING, reason="a\0b")]
    fresh = {(a.task, a.index, 1): a for a in (running, ended)}
    told = [event(1, array), event(2, 2)]
    await commit(store, lead, elements={e.key: e for e in rows}, attempts_new=fresh, events=told)
    await commit(store, lead, nodes_removed=[3], events=[event(3, waits)])
    await end(store, lead, keyed.ids[1], 5.0)
    commands = await store.command_insert_many([NewCommand(verb="cancel", user="ann", task=1)] * 2)
    await commit(store, lead, commands_done={commands[0].id: "refused"})
    await store.report_insert_many([(1, b"x"), (2, b"")])
    await store.token_put(Token("h", "ann", "user", ("p",), "laptop", 2e9))
    await store.secret_keep("ca", b"\0key")
    await store.close()
    return tmp_path / "state"


@pytest.fixture
def url() -> str:
    return shared().database()


@pytest.fixture
async def target(url: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(url)
    await store.open()
    yield store
    await store.close()


async def content(store: Store) -> dict[str, Any]:
    """Everything that the port tells, apart from who leads."""
    tasks = await store.task_list(TaskFilter(), None, 1000)
    ids = [t.id for t in tasks]
    answered = await store.idempotency_get(key())
    return {
        "tasks": tasks, "elements": [await store.element_list(i, frozenset(), -2, 99) for i in ids],
        "attempts": [await store.attempt_list(ElementKey(i, n)) for i in ids for n in (SOLO, 3)],
        "events": await store.event_list(0, 99), "nodes": await store.node_list(), "next": await store.node_next_id(),
        "replicas": await store.node_replicas(), "commands": await store.command_list_open(9),
        "reports": await store.report_list_open(9), "tokens": await store.token_list(),
        "secret": await store.secret_keep("ca", b""), "counts": (await store.counts()).tasks_by_state,
        "answered": answered and (list(answered.ids), answered.submitted_at),
        "blobs": await store.blob_list_referenced(1e12, 0, 99), "submitted": await store.task_list_submitted(99),
    }  # fmt: skip


async def content_of(directory: Path) -> tuple[dict[str, Any], int]:
    store = SqliteStore(directory)
    await store.open()
    try:
        found = await content(store)
        for row in (*found["tasks"], *chain.from_iterable(found["elements"])):
            row.reason = row.reason.replace("\0", "\N{REPLACEMENT CHARACTER}")
        return found, (await store.leader_get()).leadership.incarnation
    finally:
        await store.close()


async def test_everything_is_there_as_it_was(directory: Path, target: PostgresStore, url: str) -> None:
    before, incarnation = await content_of(directory)
    done = await promote(directory, url)
    assert (done.tasks, done.bodies, done.running) == (12, 4, {"n1": ["3_3"]})
    assert await content(target) == before
    (ended,) = await target.attempt_list(ElementKey(2))
    assert ended.stdout is not None
    assert await PostgresBlobStore(target.postgres).get("p", ended.stdout.chunks[0][1]) == b"x" * 300_000
    assert await PostgresBlobStore(target.postgres).read("p", sha256(b"piece").hexdigest(), 0, 9) == b"piece"
    lead = await target.leadership_acquire("b")
    assert lead.incarnation == done.incarnation > incarnation
    assert lead.epoch == 2
    assert (await insert(target, new()))[0] == 13
    (command,) = await target.command_insert_many([NewCommand(verb="cancel", user="ann", task=1)])
    assert command.id == 3
    assert await target.report_insert_many([(1, b"")]) == [3]


async def test_the_old_database_is_not_opened_any_more(directory: Path, target: PostgresStore, url: str) -> None:
    await promote(directory, url)
    assert len(await target.node_list()) == 2
    with pytest.raises(Conflict, match="was moved to postgresql://") as refused:
        await SqliteStore(directory).open()
    assert "store.url" in refused.value.hint
    with pytest.raises(Conflict, match="already"):
        await promote(directory, url)


@pytest.mark.parametrize("where", ["_copy_bodies", "_copy_rows", "_copy_tasks", "at the end", "_running"])
async def test_a_move_that_was_cut_short_is_finished(
    directory: Path, target: PostgresStore, url: str, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    before, _ = await content_of(directory)
    mark = promotion._mark

    async def cut(*_: Any) -> Any:
        raise ConnectionResetError

    def cut_at_the_end(path: Path, told: dict[str, object]) -> None:
        if told["finished"]:
            raise ConnectionResetError
        mark(path, told)

    with monkeypatch.context() as patched:
        patched.setattr(promotion, *(("_mark", cut_at_the_end) if where == "at the end" else (where, cut)))
        with pytest.raises(ConnectionResetError):
            await promote(directory, url)
    with pytest.raises(Conflict):
        await SqliteStore(directory).open()
    if where != "_running":
        await promote(directory, url)
    assert await content(target) == before
    assert (await target.leadership_acquire("b")).epoch == 2


async def test_a_database_in_use_is_not_moved_into(directory: Path, target: PostgresStore, url: str) -> None:
    await target.leadership_acquire("there")
    with pytest.raises(Conflict, match="holds a cluster"):
        await promote(directory, url)
    await content_of(directory)  # it opens as before


async def test_two_that_move_at_once_are_one(directory: Path, url: str) -> None:
    answers = await asyncio.gather(*(promote(directory, url) for _ in range(2)), return_exceptions=True)
    assert sorted(type(a).__name__ for a in answers) == ["Promotion", "StateDirectoryInUse"]
