"""The store in PostgreSQL: tasks and what becomes of them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

from jarvis.core.attempt import Attempt
from jarvis.core.booking import Booking
from jarvis.core.changes import Changes
from jarvis.core.command import Command, NewCommand
from jarvis.core.errors import Conflict, CursorTooOld, JarvisError, StaleEpoch
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
    solo_from_row,
    split_elements,
    task_from_row,
)
from jarvis.state.postgres import Connection
from jarvis.state.store import Accepted, Bodies, Counts, Early, Live, Outcome, Report, Submission, TaskFilter
from jarvis.state.stores.postgres import rows
from jarvis.state.stores.postgres.coordination import check_epoch
from jarvis.state.stores.postgres.live import LIVE, current_attempts, live_elements
from jarvis.state.stores.postgres.read_ahead import ReadAhead
from jarvis.state.stores.postgres.schema import Q
from jarvis.state.stores.postgres.submissions import Submissions
from jarvis.state.stores.postgres.workflows import PostgresWorkflows, commit_workflows

_events = msgspec.msgpack.Decoder(list[Event])


class PostgresStore(PostgresWorkflows):
    """See the port. Any number of servers may open it; which of them leads is a row with an epoch."""

    durable = True

    def __init__(self, url: str, clock: Callable[[], float] | None = None) -> None:
        """``url`` as libpq takes it, also with several hosts; ``clock`` instead of the database's own is for tests."""
        super().__init__(url, clock)
        self._submissions = Submissions(self.postgres, self._at)
        self.ahead = ReadAhead(self.postgres)
        """For a server that may lead soon."""

    async def close(self) -> None:
        await self._submissions.stop()
        await super().close()

    async def check(self) -> float:
        import time

        begin = time.perf_counter()
        await self.postgres.fetch(Q["check"])
        return time.perf_counter() - begin

    # ------------------------------------------------------------ wishes and facts

    async def task_insert_many(
        self, submissions: Sequence[Submission], early: Early | None = None
    ) -> list[Accepted | JarvisError]:
        return await self._submissions.insert(submissions)

    async def command_insert_many(self, commands: Sequence[NewCommand]) -> list[Command]:
        found = await self.postgres.fetch(Q["command_insert"], self._at(), [encode(body) for body in commands])
        return [Command(id=row[0], at=row[1], body=body) for row, body in zip(found, commands, strict=True)]

    async def report_insert_many(self, reports: Sequence[tuple[int, bytes]]) -> list[int]:
        found = await self.postgres.fetch(Q["report_insert"], [n for n, _ in reports], [b for _, b in reports])
        return [row[0] for row in found]

    # ------------------------------------------------------------ the leader

    async def leader_commit(self, leadership: Leadership, changes: Changes) -> None:
        await self.postgres.transaction(lambda c: _commit(c, leadership, changes))

    async def task_list_submitted(self, limit: int) -> list[Task]:
        where = " WHERE n.state = 'submitted' AND n.ended_at IS NULL ORDER BY n.id LIMIT $1"
        return await self._many(Q["task_columns"] + where, task_from_row, limit)

    async def task_list_live(self, after_id: int, limit: int) -> list[Task]:
        return await self._many(Q["task_columns"] + LIVE, task_from_row, after_id, limit)

    async def live_take(self, after_id: int, limit: int) -> Live:
        return await self.ahead.take(after_id, limit)

    async def element_list_live(self, tasks: Sequence[int]) -> list[Element]:
        return await live_elements(self.postgres, tasks)

    async def attempt_list_current(self, tasks: Sequence[int]) -> list[Attempt]:
        return await current_attempts(self.postgres, tasks)

    async def attempt_list_ended(self, tasks: Sequence[int]) -> list[Attempt]:
        where = (
            " WHERE a.task = ANY($1::bigint[]) AND a.idx < 8 AND a.ended_at IS NOT NULL AND a.attempt ="
            " (SELECT max(b.attempt) FROM attempt b WHERE b.task = a.task AND b.idx = a.idx) ORDER BY a.task, a.idx"
        )
        return await self._many(Q["attempt_columns"] + where, attempt_from_row, list(tasks))

    async def command_list_open(self, limit: int) -> list[Command]:
        return await self._many(Q["command_list_open"], _command, limit)

    async def report_list_open(self, limit: int) -> list[Report]:
        return await self._many(Q["report_list_open"], lambda row: Report(*row), limit)

    async def _cluster(self) -> Any:
        """next_node, last_seq, dropped_seq, incarnation"""
        return (await self.postgres.fetch(Q["cluster_get"]))[0]

    async def event_last_seq(self) -> int:
        return int((await self._cluster())[1])

    async def node_list(self) -> list[Node]:
        return await self._many(Q["node_list"], _node)

    async def quota_list(self) -> list[Quota]:
        return await self._many(Q["quota_list"], lambda row: msgspec.msgpack.decode(row[0], type=Quota))

    async def booking_list(self) -> list[Booking]:
        return await self._many(Q["booking_list"], lambda row: msgspec.msgpack.decode(row[0], type=Booking))

    async def used_list(self) -> list[Used]:
        return await self._many(Q["used_list"], lambda row: msgspec.msgpack.decode(row[0], type=Used))

    async def node_next_id(self) -> int:
        return int((await self._cluster())[0])

    # ------------------------------------------------------------ reads

    async def task_get_many(self, ids: Sequence[int]) -> list[Task]:
        found = await self._many(Q["task_columns"] + " WHERE t.id = ANY($1::bigint[])", task_from_row, list(ids))
        by_id = {task.id: task for task in found}
        return [by_id[ident] for ident in ids if ident in by_id]

    async def outcome_list(self, tasks: Sequence[int]) -> list[Outcome]:
        return await self._many(Q["outcome_list"], _outcome, sorted(set(tasks)))

    async def task_list(self, where: TaskFilter, before_id: int | None, limit: int) -> list[Task]:
        conditions, args = _conditions(where, before_id)
        text = f"{Q['task_columns']} WHERE {conditions} ORDER BY t.id DESC LIMIT ${len(args) + 1}"
        return await self._many(text, task_from_row, *args, limit)

    async def element_get_many(self, keys: Sequence[ElementKey]) -> list[Element]:
        where = " JOIN unnest($1::bigint[], $2::bigint[]) AS u(t, i) ON task = t AND idx = i"
        found = await self._many(
            Q["element_columns"] + where, element_from_row, [k.task for k in keys], [k.index for k in keys]
        )
        solo = [key.task for key in keys if key.index == SOLO]
        if solo:
            found += await self._many(Q["solo_columns"] + " AND id = ANY($1::bigint[])", solo_from_row, solo)
        by_key = {element.key: element for element in found}
        return [by_key[key] for key in keys if key in by_key]

    async def element_list(self, task: int, states: frozenset[State], after_index: int, limit: int) -> list[Element]:
        for solo in await self._many(Q["solo_columns"] + " AND id = $1", solo_from_row, task):
            return [solo] if after_index < SOLO and (not states or solo.state in states) else []
        where = (
            " WHERE task = $1 AND idx > $2 AND ($3::text[] IS NULL OR state = ANY($3::text[])) ORDER BY idx LIMIT $4"
        )
        wanted = sorted(states) if states else None
        return await self._many(Q["element_columns"] + where, element_from_row, task, after_index, wanted, limit)

    async def attempt_list(self, key: ElementKey) -> list[Attempt]:
        where = " WHERE a.task = $1 AND a.idx = $2 ORDER BY a.attempt"
        return await self._many(Q["attempt_columns"] + where, attempt_from_row, key.task, key.index)

    async def event_list(self, after_seq: int, limit: int, task: int | None = None) -> list[Event]:
        async def unit(c: Connection) -> list[Event]:
            _, _, dropped, incarnation = await c.fetchrow(Q["cluster_get"])
            if after_seq < dropped:
                raise CursorTooOld(f"{incarnation}.{dropped}")
            found: list[Event] = []
            async for (body,) in c.cursor(Q["event_list"], after_seq, task):
                pack = _events.decode(body)
                found += [e for e in pack if e.seq > after_seq and (task is None or e.task == task)]
                if len(found) >= limit:
                    break
            return found[:limit]

        return await self.postgres.transaction(unit)

    async def event_oldest_seq(self) -> int:
        return int((await self._cluster())[2])

    async def counts(self) -> Counts:
        by_state = {State(state): int(number) for state, number in await self.postgres.fetch(Q["task_counts"])}
        _, last, dropped, _ = await self._cluster()
        size = (await self.postgres.fetch(Q["database_bytes"]))[0][0]
        return Counts(by_state, last - dropped, size)

    # ------------------------------------------------------------ maintenance

    async def task_delete_ended(self, before: float, limit: int) -> list[int]:
        async def unit(c: Connection) -> list[int]:
            needed: set[int] = set()
            for (spec,) in await c.fetch(Q["task_list_awaiting"], sorted(AWAITING), before):
                needed |= {d.task for d in msgspec.msgpack.decode(spec, type=TaskSpec).after}
            gone = [row[0] for row in await c.fetch(Q["task_list_expired"], before, sorted(needed), limit)]
            for name in ("attempt_delete", "element_delete", "task_now_delete", "task_delete"):
                await c.execute(Q[name], gone)
            await c.execute(Q["idempotency_delete"], self._at(), KEY_S)
            await c.execute(Q["command_delete"], self._at(), KEY_S)
            return sorted(gone)

        return await self.postgres.transaction(unit)

    async def blob_list_referenced(
        self, submitted_before: float, after_id: int, limit: int
    ) -> list[tuple[int, str, Bodies]]:
        tasks = await self._many(Q["task_list_before"], _body, submitted_before, after_id, limit)
        where = " WHERE a.task = ANY($1::bigint[])"
        attempts: dict[int, list[Attempt]] = {}
        for attempt in await self._many(Q["attempt_columns"] + where, attempt_from_row, [t[0] for t in tasks]):
            attempts.setdefault(attempt.task, []).append(attempt)
        return [(ident, project, blobs_of(spec, attempts.get(ident, ()))) for ident, project, spec in tasks]

    async def event_delete_before(self, before: float, limit: int) -> int:
        async def unit(c: Connection) -> int:
            packs = await c.fetch(Q["event_pack_old"], before, limit)
            if not packs:
                return 0
            last = packs[-1][0]
            await c.execute(Q["event_delete"], last)
            return int(last - await c.fetchval(Q["event_dropped"], last))

        return await self.postgres.transaction(unit)

    async def space_return(self) -> None:
        """Autovacuum does: it knows better when."""

    async def backup(self, path: Path) -> None:
        hint = "use pg_dump, or base backups with an archive of the WAL for a restore to any moment"
        raise Conflict("the database is PostgreSQL's to back up", hint)


async def _commit(c: Connection, leadership: Leadership, changes: Changes) -> None:
    solo_in_task = await check_epoch(c, leadership)
    await commit_workflows(c, changes)
    if changes.queued:
        first, last = rows.columns(changes.queued, 2)
        await c.execute(Q["task_queue_ranges"], first, last)
    if changes.held:
        await c.execute(Q["task_hold_ranges"], *rows.columns(changes.held, 2))
    await _commit_tasks(c, changes, solo_in_task)
    await _commit_attempts(c, changes)
    if changes.nodes:
        await c.execute(Q["node_put"], *rows.node_columns(changes))
    if changes.nodes_removed:
        await c.execute(Q["node_delete"], changes.nodes_removed)
        await c.execute(Q["node_replica_delete"], changes.nodes_removed)
    if changes.quotas or changes.used:
        await _put_quotas(c, changes)
    if changes.bookings:
        await _put_bookings(c, changes)
    if changes.commands_done:
        await c.execute(Q["command_done"], list(changes.commands_done), list(changes.commands_done.values()))
    if changes.reports_done:
        await c.execute(Q["report_delete"], changes.reports_done)
    last_seq = None
    if changes.events:
        tasks, newest = [event.task for event in changes.events], changes.events[-1]
        last_seq = newest.seq
        await c.execute(Q["event_insert"], newest.seq, newest.at, min(tasks), max(tasks), encode(changes.events))
    if changes.events or changes.nodes:
        await c.execute(Q["cluster_advance"], last_seq, max(changes.nodes, default=0) + 1)


async def _commit_tasks(c: Connection, changes: Changes, solo_in_task: bool) -> None:
    """Servers of the version before know no elements but those with a row of their own."""
    solo, elements = split_elements(changes)
    if not solo_in_task:
        solo, elements = {}, list(changes.elements.values())
    changed = [task for task in changes.tasks.values() if task.id not in changes.tasks_new]
    if changed:
        await c.execute(Q["task_update"], *rows.task_columns(changed, solo))
    alone = solo.keys() - {task.id for task in changed}
    if alone:
        await c.execute(Q["solo_put"], *rows.solo_columns(solo[task] for task in sorted(alone)))
    if elements:
        await c.execute(Q["element_put"], *rows.element_columns(elements))


async def _put_quotas(c: Connection, changes: Changes) -> None:
    gone = [owner for owner, quota in changes.quotas.items() if quota is None]
    put = [(*owner, encode(quota)) for owner, quota in changes.quotas.items() if quota is not None]
    used = [(*owner, encode(amounts)) for owner, amounts in changes.used.items()]
    if gone:
        await c.execute(Q["quota_delete"], *rows.columns(gone, 2))
    if put:
        await c.execute(Q["quota_put"], *rows.columns(put, 3))
    if used:
        await c.execute(Q["used_put"], *rows.columns(used, 3))


async def _put_bookings(c: Connection, changes: Changes) -> None:
    gone = [ident for ident, booking in changes.bookings.items() if booking is None]
    put = [(ident, encode(booking)) for ident, booking in changes.bookings.items() if booking is not None]
    if gone:
        await c.execute(Q["booking_delete"], gone)
    if put:
        await c.execute(Q["booking_put"], *rows.columns(put, 2))


async def _commit_attempts(c: Connection, changes: Changes) -> None:
    """Tokens are the fence."""
    if changes.attempts_new:
        try:
            await c.execute(Q["attempt_insert"], *rows.new_attempt_columns(changes.attempts_new.values()))
        except asyncpg.UniqueViolationError:
            raise StaleEpoch("an attempt that is to be new is there already") from None
    if changes.attempts:
        changed = await c.fetchval(Q["attempt_update"], *rows.attempt_columns(changes.attempts.values()))
        if changed != len(changes.attempts):
            raise StaleEpoch("an attempt is not current under the token it was reported with")


def _conditions(where: TaskFilter, before_id: int | None) -> tuple[str, list[object]]:
    """The filter as SQL, and its arguments."""
    by_prefix = where.name is not None and where.name.endswith("*")
    wanted = {
        "t.id < {}": before_id,
        "n.state = ANY({}::text[])": sorted(where.states) or None,
        "t.project = {}": where.project,
        "t.project = ANY({}::text[])": None if where.projects is None else sorted(where.projects),
        "t.owner = {}": where.user,
        "t.queue = {}": where.queue,
        "t.name = {}": None if by_prefix else where.name,
        "starts_with(t.name, {})": (where.name or "")[:-1] if by_prefix else None,
        "t.submitted_at > {}": where.submitted_after,
        "t.submitted_at < {}": where.submitted_before,
        "n.ended_at > {}": where.ended_after,
    }
    given = {text: value for text, value in wanted.items() if value is not None}
    conditions = [text.format(f"${number}") for number, text in enumerate(given, 1)]
    if where.states and not where.states & TERMINAL:
        conditions.append("n.ended_at IS NULL")  # by the index of live tasks
    return " AND ".join(["true", *conditions]), list(given.values())


def _command(row: Any) -> Command:
    return Command(id=row[0], at=row[1], body=msgspec.msgpack.decode(row[2], type=NewCommand))


def _body(row: Any) -> tuple[int, str, TaskSpec]:
    return row[0], row[1], msgspec.msgpack.decode(row[2], type=TaskSpec)


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


def _node(row: Any) -> Node:
    node = msgspec.msgpack.decode(row[2], type=Node)
    node.seen_at, node.health = row[0], msgspec.msgpack.decode(row[1])
    return node
