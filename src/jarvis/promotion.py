"""An embedded database becomes a cluster's: everything in SQLite and its bodies move into an empty PostgreSQL database, once."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from jarvis.core.errors import Conflict, NotFound
from jarvis.core.states import ON_NODE
from jarvis.state.blob_stores.directory import DirectoryBlobStore
from jarvis.state.blob_stores.postgres import PostgresBlobStore
from jarvis.state.manifests import pieces_of
from jarvis.state.persistence import INCARNATION_EPOCH, encode
from jarvis.state.stores.postgres import PostgresStore
from jarvis.state.stores.sqlite import SqliteStore
from jarvis.state.stores.sqlite.file import MOVED

PAGE = 5000
COPY_S = 3600.0
_TASK = "id, uuid, project, user, name, queue, retry_of, submitted_at, spec"
_NOW = "id, state, base, counts, next_position, reason, started_at, ended_at, element"
_ELEMENT = (
    "task, idx, state, attempt, token, node, failures, infra_losses, lost_on, eligible_at, reason, exit_code, signal, "
    "cause, wish, preemptions"
)
_ATTEMPT = (
    "task, idx, attempt, token, node, number, state, cause, exit_code, signal, assigned_at, started_at, ended_at, detail, "
    "result"
)
SMALL = {
    "node": "id, seen_at, health, body",
    "node_replica": "node, replica",
    "quota": "project, owner, body",
    "used": "project, owner, body",
    "booking": "id, body",
    "command": "id, at, body, outcome",
    "report": "id, node, body",
    "workflow": (
        "id, uuid, project, user, name, state, wish, reason, rerun_of, submitted_at, started_at, ended_at, output, spec"
    ),
    "kept": "project, key, workflow, task, output, result, at, expires_at",
    "schedule": "id, project, name, body",
    "step": "workflow, path, state, task, reason, started_at, ended_at, output, detail",
    "event_pack": "last_seq, at, task_min, task_max, body",
    "secret": "name, value",
    "token": "hash, user, role, projects, label, expires_at",
}
"""Tables that are copied whole: table → columns."""
OWNER = {"user": "owner"}
"""Columns that PostgreSQL cannot have under SQLite's name."""


@dataclass(slots=True)
class Promotion:
    """What was moved. ``running``: by the name of its node, the elements that ran when their server stopped."""

    tasks: int
    bodies: int
    incarnation: int
    running: dict[str, list[str]] = field(default_factory=dict)


async def promote(directory: Path, url: str) -> Promotion:
    """Move the database of a state directory whose server is down.

    From the first moment on nobody else opens the SQLite database any more, so that there are never two that go on. Cut
    short, it is called again and finishes. Raises :class:`Conflict` where the target holds a cluster already.
    """
    source, target = SqliteStore(directory, moving=True), PostgresStore(url)
    await source.open()
    try:
        await target.open()
        try:
            return await _move(directory, url, source, target)
        finally:
            await target.close()
    finally:
        await source.close()


async def _move(directory: Path, url: str, source: SqliteStore, target: PostgresStore) -> Promotion:
    marker, there = directory / MOVED, (await target.leader_get()).leadership
    before = json.loads(marker.read_text(encoding="utf-8")) if marker.exists() else None
    if before is not None and before["finished"]:
        raise Conflict(f"{directory} was moved already, to {before['to']}")
    ((own,),) = await source.rows("SELECT incarnation FROM cluster")
    if before is None:  # above that of the target, too: it tells whether the rows have arrived there
        now = int(await target.now()) - INCARNATION_EPOCH
        before = {"incarnation": max(own + 1, there.incarnation + 1, now)}
    incarnation: int = before["incarnation"]
    arrived = there.incarnation == incarnation
    if not arrived and (there.epoch or await target.task_list_live(0, 1) or await target.node_list()):
        raise Conflict("that database holds a cluster already", "give an empty one: CREATE DATABASE jarvis")
    told = {"to": place(url), "incarnation": incarnation}
    _mark(marker, {**told, "finished": False})
    bodies = await _copy_bodies(source, DirectoryBlobStore(directory / "blobs"), PostgresBlobStore(target.postgres))
    if not arrived:
        await _copy_rows(source, target, incarnation)
    _mark(marker, {**told, "finished": True})
    ((tasks,),) = await source.rows("SELECT count(*) FROM task")
    return Promotion(tasks, bodies, incarnation, await _running(source))


async def _copy_rows(source: SqliteStore, target: PostgresStore, incarnation: int) -> None:
    """In one transaction, so that they are there or are not."""
    c = await target.postgres.connect()
    try:
        async with c.transaction():
            await c.execute("SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0")
            for table, names in SMALL.items():
                await _put(c, table, names, await source.rows(f"SELECT {names} FROM {table}"))
            await _copy_keys(source, c)
            await _copy_tasks(source, c)
            ((epoch, *marks),) = await source.rows("SELECT epoch, next_node, last_seq, dropped_seq FROM cluster")
            await c.execute("UPDATE cluster SET next_node = $1, last_seq = $2, dropped_seq = $3", *marks)
            await c.execute(
                "UPDATE leadership SET incarnation = $1, epoch = $2, solo_in_task = true", incarnation, epoch
            )
            for table, sequence in (
                ("task", "task_id"),
                ("command", "command_id_seq"),
                ("report", "report_id_seq"),
                ("schedule", "schedule_id_seq"),
            ):
                given = await source.rows(f"SELECT seq FROM sqlite_sequence WHERE name = '{table}'")
                if given and given[0][0]:
                    await c.execute("SELECT setval($1::text::regclass, $2)", sequence, given[0][0])
    finally:
        await c.close(timeout=5)


async def _copy_keys(source: SqliteStore, c: Any) -> None:
    """SQLite answers with a span of ids, PostgreSQL with each."""
    names = "principal, project, route, key, body_hash, at, ids"
    found = await source.rows(f"SELECT {names} FROM idempotency")
    answers = [encode(tuple(range(*msgspec.msgpack.decode(row[6])))) for row in found]
    await _put(c, "idempotency", names, [(*row[:6], ids) for row, ids in zip(found, answers, strict=True)])


async def _copy_tasks(source: SqliteStore, c: Any) -> None:
    after = 0
    while page := await source.rows(f"SELECT {_TASK} FROM whole_task WHERE id > ? ORDER BY id LIMIT {PAGE}", (after,)):
        span = (after, page[-1][0])
        await _put(c, "task", _TASK, page)
        now = await source.rows(f"SELECT {_NOW} FROM task WHERE id > ? AND id <= ?", span)
        await _put(c, "task_now", _NOW, now)
        for table, names in (("element", _ELEMENT), ("attempt", _ATTEMPT)):
            found = await source.rows(f"SELECT {names} FROM {table} WHERE task > ? AND task <= ?", span)
            await _put(c, table, names, found)
        after = page[-1][0]


async def _put(c: Any, table: str, names: str, rows: Sequence[Sequence[Any]]) -> None:
    columns = [OWNER.get(name, name) for name in names.split(", ")]
    clean = [
        tuple(v.replace("\0", "\N{REPLACEMENT CHARACTER}") if isinstance(v, str) else v for v in row) for row in rows
    ]
    await c.copy_records_to_table(table, records=clean, columns=columns, timeout=COPY_S)


async def _copy_bodies(source: SqliteStore, old: DirectoryBlobStore, new: PostgresBlobStore) -> int:
    """All that tasks refer to; one that is missing was missing before. How many."""
    moved, after = 0, 0
    while page := await source.blob_list_referenced(float("inf"), after, 500):
        for _, project, bodies in page:
            for digest in sorted(bodies.digests | await pieces_of(old, project, bodies.manifests)):
                try:
                    await new.put(project, await old.get(project, digest))
                except NotFound:
                    continue
                moved += 1
        after = page[-1][0]
    return moved


async def _running(source: SqliteStore) -> dict[str, list[str]]:
    states = ", ".join(f"'{state}'" for state in sorted(ON_NODE))
    found = await source.rows(
        "SELECT n.name, e.task, e.idx FROM element e JOIN node n ON n.id = e.node "
        f"WHERE e.idx >= 0 AND e.state IN ({states}) UNION ALL "
        "SELECT n.name, a.task, a.idx FROM task t JOIN attempt a ON a.task = t.id AND a.idx = -1 JOIN node n ON n.id = a.node "
        f"WHERE t.ended_at IS NULL AND t.state IN ({states}) AND a.ended_at IS NULL ORDER BY 1, 2, 3"
    )
    running: dict[str, list[str]] = {}
    for name, task, index in found:
        running.setdefault(name, []).append(str(task) if index < 0 else f"{task}_{index}")
    return running


def place(url: str) -> str:
    """A URL without user and password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _mark(path: Path, content: dict[str, object]) -> None:
    """On disk when it returns, whole."""
    new = path.with_suffix(".new")
    with new.open("w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
