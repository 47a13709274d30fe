"""The store in one SQLite file: tasks and what becomes of them."""

import asyncio
import json
import sqlite3
from collections.abc import Sequence
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from jarvis.core.attempt import Attempt
from jarvis.core.booking import Booking
from jarvis.core.changes import Changes
from jarvis.core.command import Command, NewCommand
from jarvis.core.errors import (
    Conflict,
    CursorTooOld,
    InvalidValue,
    JarvisError,
    StaleEpoch,
    StoreUnavailable,
)
from jarvis.core.event import Event
from jarvis.core.ids import SOLO, ElementKey
from jarvis.core.node import Node
from jarvis.core.quota import Quota, Used
from jarvis.core.states import TERMINAL, State
from jarvis.core.task import Element, Task, TaskSpec
from jarvis.state.coordination import Leadership
from jarvis.state.persistence import (
    AWAITING,
    KEY_S,
    attempt_detail_of,
    attempt_from_row,
    blobs_of,
    element_from_row,
    encode,
    in_order,
    live_page,
    solo_column,
    solo_from_row,
    split_elements,
    task_from_row,
)
from jarvis.state.store import (
    Accepted,
    Bodies,
    Counts,
    Early,
    IdempotencyKey,
    Live,
    Outcome,
    Report,
    Submission,
    TaskFilter,
)
from jarvis.state.stores.sqlite.alike import insert_attempts, put_elements, update_attempts, update_tasks
from jarvis.state.stores.sqlite.coordination import check_epoch
from jarvis.state.stores.sqlite.database import run
from jarvis.state.stores.sqlite.file import DATABASE, Q, back_up, connect, vacuum_step
from jarvis.state.stores.sqlite.submissions import insert, runs_of
from jarvis.state.stores.sqlite.workflows import SqliteWorkflows, answered, commit_workflows

T = TypeVar("T")
VACUUM_STEPS = 16
KEYS_AT_ONCE = 10_000
"""So many that have expired are forgotten with a batch of tasks."""
_events = msgspec.msgpack.Decoder(list[Event])


class SqliteStore(SqliteWorkflows):
    """See the port. One owner holds ``flock`` on the directory for life; nobody else opens the database."""

    # ------------------------------------------------------------ wishes and facts

    async def task_insert_many(
        self, submissions: Sequence[Submission], early: Early | None = None
    ) -> list[Accepted | JarvisError]:
        now = self._clock()
        encoded = [runs_of(s) for s in submissions]

        def unit(c: sqlite3.Connection) -> list[Accepted | JarvisError]:
            answers = [
                runs if isinstance(runs, InvalidValue) else insert(c, s, runs, now)
                for s, runs in zip(submissions, encoded, strict=True)
            ]
            if early is not None:
                self._told_to = max([self._told_to, *(a.ids[-1] for a in answers if isinstance(a, Accepted) and a.ids)])
            return answers

        return await self._writer.do(unit, early)

    async def idempotency_get(self, key: IdempotencyKey) -> Accepted | None:
        return await self._read(lambda c: answered(c, key))

    async def command_insert_many(self, commands: Sequence[NewCommand]) -> list[Command]:
        now = self._clock()

        def unit(c: sqlite3.Connection) -> list[Command]:
            stored = []
            for body in commands:
                ident = c.execute(Q["command_insert"], (now, encode(body))).lastrowid
                stored.append(Command(id=ident or 0, at=now, body=body))
            return stored

        return await self._writer.do(unit)

    async def report_insert_many(self, reports: Sequence[tuple[int, bytes]]) -> list[int]:
        return await self._writer.do(lambda c: [c.execute(Q["report_insert"], r).lastrowid or 0 for r in reports])

    # ------------------------------------------------------------ the leader

    async def leader_commit(self, leadership: Leadership, changes: Changes) -> None:
        def unit(c: sqlite3.Connection) -> None:
            if self._vain_to:
                _refuse_vain(c, changes, self._vain_to)
            _commit(c, leadership, changes)

        await self._writer.do(unit)
        self._recent.note(changes)

    async def task_list_submitted(self, limit: int) -> list[Task]:
        return await self._many("task_list_submitted", task_from_row, (limit,))

    async def task_list_live(self, after_id: int, limit: int) -> list[Task]:
        return await self._many("task_list_live", task_from_row, (after_id, limit))

    async def live_take(self, after_id: int, limit: int) -> Live:
        return await live_page(self, after_id, limit)

    async def element_list_live(self, tasks: Sequence[int]) -> list[Element]:
        listed = (json.dumps(list(tasks)),)
        found = await self._many("element_list_live", element_from_row, listed)
        found += await self._many("solo_list_live", solo_from_row, listed)
        return in_order(found)

    async def attempt_list_current(self, tasks: Sequence[int]) -> list[Attempt]:
        return await self._many("attempt_list_current", attempt_from_row, {"tasks": json.dumps(list(tasks))})

    async def attempt_list_ended(self, tasks: Sequence[int]) -> list[Attempt]:
        return await self._many("attempt_list_ended", attempt_from_row, (json.dumps(list(tasks)),))

    async def command_list_open(self, limit: int) -> list[Command]:
        return await self._many("command_list_open", _command, (limit,))

    async def report_list_open(self, limit: int) -> list[Report]:
        return await self._many("report_list_open", lambda row: Report(*row), (limit,))

    async def event_last_seq(self) -> int:
        return int((await self._cluster())[3])

    async def node_list(self) -> list[Node]:
        return await self._many("node_list", _node)

    async def quota_list(self) -> list[Quota]:
        return await self._many("quota_list", lambda row: msgspec.msgpack.decode(row[0], type=Quota))

    async def booking_list(self) -> list[Booking]:
        return await self._many("booking_list", lambda row: msgspec.msgpack.decode(row[0], type=Booking))

    async def used_list(self) -> list[Used]:
        return await self._many("used_list", lambda row: msgspec.msgpack.decode(row[0], type=Used))

    async def node_next_id(self) -> int:
        return int((await self._cluster())[2])

    # ------------------------------------------------------------ reads

    async def task_get_many(self, ids: Sequence[int]) -> list[Task]:
        def unit(c: sqlite3.Connection) -> list[Task]:
            rows = (c.execute(Q["task_get"], (i,)).fetchone() for i in ids)
            return [task_from_row(row) for row in rows if row is not None]

        return await self._read(unit)

    async def outcome_list(self, tasks: Sequence[int]) -> list[Outcome]:
        found, unknown = self._recent.of(tasks)
        if unknown:
            found += await self._many("outcome_list", _outcome, (json.dumps(unknown),))
        return sorted(found, key=attrgetter("task"))

    async def task_list(self, where: TaskFilter, before_id: int | None, limit: int) -> list[Task]:
        live = bool(where.states) and not where.states & TERMINAL and where.ended_after is None
        name = "task_list_live_states" if live else "task_list"
        return await self._many(name, task_from_row, _filter_parameters(where, before_id, limit))

    async def element_get_many(self, keys: Sequence[ElementKey]) -> list[Element]:
        listed = json.dumps([key.task for key in keys if key.index == SOLO])

        def unit(c: sqlite3.Connection) -> list[Element]:
            found = {e.key: e for e in map(solo_from_row, c.execute(Q["solo_get"], (listed,)))}
            rows = (c.execute(Q["element_get"], tuple(k)).fetchone() for k in keys if k not in found)
            found |= {e.key: e for e in (element_from_row(row) for row in rows if row is not None)}
            return [found[key] for key in keys if key in found]

        return await self._read(unit)

    async def element_list(self, task: int, states: frozenset[State], after_index: int, limit: int) -> list[Element]:
        (solo,) = await self._many("solo_get", solo_from_row, (json.dumps([task]),)) or (None,)
        if solo is not None:
            return [solo] if after_index < SOLO and (not states or solo.state in states) else []
        wanted = json.dumps(sorted(states)) if states else None
        parameters = {"task": task, "states": wanted, "after": after_index, "limit": limit}
        return await self._many("element_list", element_from_row, parameters)

    async def attempt_list(self, key: ElementKey) -> list[Attempt]:
        return await self._many("attempt_list", attempt_from_row, tuple(key))

    async def event_list(self, after_seq: int, limit: int, task: int | None = None) -> list[Event]:
        def unit(c: sqlite3.Connection) -> list[Event]:
            row = c.execute(Q["cluster_get"]).fetchone()
            if after_seq < row[4]:
                raise CursorTooOld(f"{row[0]}.{row[4]}")
            name = "event_list" if task is None else "event_list_task"
            found: list[Event] = []
            for (body,) in c.execute(Q[name], (after_seq,) if task is None else (after_seq, task, task)):
                pack = _events.decode(body)
                found += [e for e in pack if e.seq > after_seq and (task is None or e.task == task)]
                if len(found) >= limit:
                    break
            return found[:limit]

        return await self._read(unit)

    async def event_oldest_seq(self) -> int:
        return int((await self._cluster())[4])

    async def counts(self) -> Counts:
        by_state = dict(await self._many("task_counts", lambda row: (State(row[0]), int(row[1]))))
        _, _, _, last_seq, dropped_seq, _ = await self._cluster()
        size = sum(p.stat().st_size for p in self.directory.glob(f"{DATABASE}*"))
        return Counts(by_state, last_seq - dropped_seq, size)

    # ------------------------------------------------------------ maintenance

    async def task_delete_ended(self, before: float, limit: int) -> list[int]:
        """What takes longer the more is stored is looked up by a reader; the writer looks at what has come since."""
        week_ago = self._clock() - KEY_S

        def look(c: sqlite3.Connection) -> tuple[list[Any], int, set[int]]:
            keys = c.execute(Q["idempotency_list_before"], (week_ago, KEYS_AT_ONCE)).fetchall()
            if c.execute(Q["task_any_expired"], (before,)).fetchone() is None:
                return keys, 0, set()
            (seen,) = c.execute(Q["task_last_id"]).fetchone()
            return keys, seen, _awaited(c, 0)

        keys, seen, awaited = await self._read(look)

        def unit(c: sqlite3.Connection) -> list[int]:
            run(c, "idempotency_delete", keys)
            c.execute(Q["command_delete_done"], (week_ago,))
            if c.execute(Q["task_any_expired"], (before,)).fetchone() is None:
                return []
            needed = awaited | _awaited(c, seen)
            rows = c.execute(Q["task_list_expired"], (before, json.dumps(sorted(needed)), limit)).fetchall()
            tails = c.execute(Q["spec_tail_list"], (json.dumps([ident for (ident,) in rows]),)).fetchall()
            for name in ("attempt_delete", "element_delete", "task_delete"):
                run(c, name, rows)
            run(c, "spec_tail_delete", tails)
            return sorted(r[0] for r in rows)

        gone = await self._writer.do(unit)
        self._recent.forget(gone)
        return gone

    async def blob_list_referenced(
        self, submitted_before: float, after_id: int, limit: int
    ) -> list[tuple[int, str, Bodies]]:
        tasks = await self._many("task_list_before", _body, (submitted_before, after_id, limit))
        attempts: dict[int, list[Attempt]] = {}
        listed = json.dumps([ident for ident, _, _ in tasks])
        for attempt in await self._many("attempt_list_of_tasks", attempt_from_row, (listed,)):
            attempts.setdefault(attempt.task, []).append(attempt)
        return [(ident, project, blobs_of(spec, attempts.get(ident, ()))) for ident, project, spec in tasks]

    async def event_delete_before(self, before: float, limit: int) -> int:
        def unit(c: sqlite3.Connection) -> int:
            rows = c.execute(Q["event_pack_old"], (before, limit)).fetchall()
            if not rows:
                return 0
            dropped_before = c.execute(Q["cluster_get"]).fetchone()[4]
            c.execute(Q["event_delete"], rows[-1])
            c.execute(Q["event_dropped"], rows[-1])
            return int(rows[-1][0] - dropped_before)

        return await self._writer.do(unit)

    async def space_return(self) -> None:
        """In steps, so that others write in between."""
        for _ in range(VACUUM_STEPS):
            if not await self._writer.do(vacuum_step):
                break
        self._writer.shrink_wal = True
        await self._writer.do(vacuum_step)

    async def backup(self, path: Path) -> None:
        if path.exists():  # noqa: ASYNC240 - one stat
            raise Conflict(f"{path} exists already", "give a new file name; backups are never overwritten")
        source = await asyncio.to_thread(connect, self.path, self._synchronous, True)
        try:
            await asyncio.to_thread(back_up, source, path)
        finally:
            source.close()


# ---------------------------------------------------------------- units of the writer


def _refuse_vain(c: sqlite3.Connection, changes: Changes, last: int) -> None:
    """Raise :class:`StoreUnavailable` where a task up to this id was told of early, and then not stored."""
    ranges = [range(first, min(end, last) + 1) for first, end in (*changes.queued, *changes.held)]
    named = {ident for ident in chain(changes.tasks, *ranges) if ident <= last} - changes.tasks_new.keys()
    if named and c.execute(Q["task_count_of"], (json.dumps(sorted(named)),)).fetchone()[0] < len(named):
        raise StoreUnavailable("a task of this turn could not be stored")


def _commit(c: sqlite3.Connection, leadership: Leadership, changes: Changes) -> None:
    _lead(c, leadership, changes)
    commit_workflows(c, changes)
    known, made = changes.tasks, changes.tasks_new
    queued = [(first, last) for first, last in changes.queued if any(i not in known for i in range(first, last + 1))]
    run(c, "task_queue_range", queued)
    run(c, "task_hold_range", changes.held)
    solo, of_arrays = split_elements(changes)
    update_tasks(c, [task for task in known.values() if task.id not in made], solo)
    alone = [
        (str(e.state), e.reason, solo_column(e), task) for task, e in solo.items() if task not in known or task in made
    ]
    run(c, "solo_put", alone)
    put_elements(c, of_arrays)
    try:
        insert_attempts(c, changes.attempts_new.values())
    except sqlite3.IntegrityError:
        raise StaleEpoch("an attempt that is to be new is there already") from None
    if update_attempts(c, changes.attempts.values()) != len(changes.attempts):
        raise StaleEpoch("an attempt is not current under the token it was reported with")
    nodes = [(node.id, node.name, node.seen_at, encode(node.health), encode(node)) for node in changes.nodes.values()]
    run(c, "node_put", nodes)
    for name in ("node_delete", "node_replica_delete"):
        run(c, name, [(node,) for node in changes.nodes_removed])
    if changes.quotas or changes.used:
        _put_quotas(c, changes)
    if changes.bookings:
        _put_bookings(c, changes)
    run(c, "command_done", [(outcome, ident) for ident, outcome in changes.commands_done.items()])
    run(c, "report_delete", [(r,) for r in changes.reports_done])
    if changes.events:
        tasks = [e.task for e in changes.events]
        last = changes.events[-1]
        c.execute(Q["event_insert"], (last.seq, last.at, min(tasks), max(tasks), encode(changes.events)))


def _lead(c: sqlite3.Connection, leadership: Leadership, changes: Changes) -> None:
    """The row of the cluster, which only who leads changes."""
    seq, node = changes.events[-1].seq if changes.events else 0, max(changes.nodes, default=0) + 1
    if not c.execute(Q["leader_says"], (seq, node, leadership.incarnation, leadership.epoch)).rowcount:
        check_epoch(c, leadership)


def _put_quotas(c: sqlite3.Connection, changes: Changes) -> None:
    for owner, quota in changes.quotas.items():
        c.execute(Q["quota_delete"], owner) if quota is None else c.execute(Q["quota_put"], (*owner, encode(quota)))
    run(c, "used_put", [(*owner, encode(used)) for owner, used in changes.used.items()])


def _put_bookings(c: sqlite3.Connection, changes: Changes) -> None:
    for ident, booking in changes.bookings.items():
        if booking is None:
            c.execute(Q["booking_delete"], (ident,))
        else:
            c.execute(Q["booking_put"], (ident, encode(booking)))


def _awaited(c: sqlite3.Connection, after_id: int) -> set[int]:
    """Tasks that those with a higher id may still ask about."""
    found = c.execute(Q["task_list_awaiting"], (after_id, json.dumps(sorted(AWAITING))))
    return {d.task for (spec,) in found for d in msgspec.msgpack.decode(spec, type=TaskSpec).after}


def _command(row: Any) -> Command:
    return Command(id=row[0], at=row[1], body=msgspec.msgpack.decode(row[2], type=NewCommand))


def _outcome(row: Any) -> Outcome:
    if row[4] is None:
        return Outcome(row[0], row[1], State(row[2]))
    detail = attempt_detail_of(row[4])
    return Outcome(
        row[0],
        row[1],
        State(row[2]),
        row[3] or "",
        detail.message,
        row[5],
        detail.result_digest,
        detail.output,
        detail.artifacts,
    )


def _body(row: Any) -> tuple[int, str, TaskSpec]:
    return row[0], row[1], msgspec.msgpack.decode(row[2], type=TaskSpec)


def _node(row: Any) -> Node:
    node = msgspec.msgpack.decode(row[2], type=Node)
    node.seen_at, node.health = row[0], msgspec.msgpack.decode(row[1])
    return node


def _filter_parameters(where: TaskFilter, before_id: int | None, limit: int) -> dict[str, object]:
    name = where.name
    prefix = name[:-1] if name is not None and name.endswith("*") else None
    return {
        "before": (1 << 62) if before_id is None else before_id,
        "states": json.dumps(sorted(where.states)) if where.states else None,
        "project": where.project,
        "projects": None if where.projects is None else json.dumps(sorted(where.projects)),
        "user": where.user,
        "queue": where.queue,
        "name": None if prefix is not None else name,
        "prefix": prefix,
        "submitted_after": where.submitted_after,
        "submitted_before": where.submitted_before,
        "ended_after": where.ended_after,
        "limit": limit,
    }
