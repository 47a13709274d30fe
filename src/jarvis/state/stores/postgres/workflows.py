"""Workflows and their steps in the PostgreSQL store."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from jarvis.core.changes import Changes
from jarvis.core.command import NewCommand
from jarvis.core.errors import IdempotencyConflict, StoreCorrupt, StoreUnavailable
from jarvis.core.schedule import Schedule
from jarvis.core.states import State
from jarvis.core.task import Task
from jarvis.core.workflow import Kept, NewWorkflow, Step, Workflow
from jarvis.state.persistence import encode
from jarvis.state.postgres import Connection
from jarvis.state.store import Accepted, IdempotencyKey
from jarvis.state.stores.postgres.coordination import PostgresCoordination
from jarvis.state.stores.postgres.rows import columns
from jarvis.state.stores.postgres.schema import Q
from jarvis.state.workflow_rows import (
    kept_from_row,
    kept_to_row,
    name_taken,
    schedule_body,
    schedule_from_row,
    step_from_row,
    step_to_row,
    workflow_from_row,
    workflow_spec,
)
from jarvis.state.workflow_store import WorkflowFilter


class PostgresWorkflows(PostgresCoordination):
    """That part of the port."""

    async def _many(self, query: str, make: Callable[[Any], Any], *args: object) -> list[Any]:
        found = await self.postgres.fetch(query, *args)
        try:
            return [make(row) for row in found]
        except (msgspec.MsgspecError, ValueError) as error:
            raise StoreCorrupt(f"a row in the database is damaged: {error}") from None

    async def idempotency_get(self, key: IdempotencyKey) -> Accepted | None:
        names = [[key.principal], [key.project], [key.route], [key.key]]
        for row in await self.postgres.fetch(Q["idempotency_list"], *names):
            return _told(key, row)
        return None

    async def workflow_insert(self, new: NewWorkflow, key: IdempotencyKey | None = None) -> Accepted:
        spec = workflow_spec(new)

        async def insert(c: Connection, now: float) -> int:
            ident = int((await c.fetch(Q["task_ids_reserve"], 1))[0][0])
            await c.execute(
                Q["workflow_insert"], ident, new.uuid, new.project, new.user, new.spec.name, new.rerun_of, now, spec
            )
            if new.reused:
                await c.execute(Q["step_put"], *columns([(ident, *step_to_row(s)[1:]) for s in new.reused], 9))
            return ident

        return await self._once(key, insert)

    async def _once(
        self, key: IdempotencyKey | None, insert: Callable[[Connection, float], Awaitable[int]]
    ) -> Accepted:
        """What is inserted under the id that comes back; a repeat of the key gets the first one. The key comes first, so that
        another server with the same one waits for this transaction."""

        async def unit(c: Connection) -> Accepted:
            now, same_life = await c.fetchrow(Q["submission_begin"], self._at())
            if not same_life:
                raise StoreUnavailable(
                    "the database was failed over, and no server leads yet; repeat it in a few seconds"
                )
            if key is None:
                return Accepted((await insert(c, now),), now)
            names = [[key.principal], [key.project], [key.route], [key.key]]
            row = (key.principal, key.project, key.route, key.key, key.body_hash, encode(()))
            if not await c.fetch(Q["idempotency_insert"], *columns([row], 6), now):
                return _told(key, (await c.fetch(Q["idempotency_list"], *names))[0])
            ident = await insert(c, now)
            await c.execute(Q["idempotency_fill"], *row[:4], encode((ident,)))
            return Accepted((ident,), now)

        try:
            return await self.postgres.transaction(unit)
        except StoreUnavailable:
            before = None if key is None else await self.idempotency_get(key)  # the answer may be what was lost
            if before is None:
                raise
            return before

    async def task_ids_reserve(self, count: int) -> Sequence[int]:
        return [int(row[0]) for row in await self.postgres.fetch(Q["task_ids_reserve"], count)]

    async def workflow_list_submitted(self, limit: int) -> list[Workflow]:
        where = " WHERE state = 'submitted' AND ended_at IS NULL ORDER BY id LIMIT $1"
        return await self._many(Q["workflow_columns"] + where, workflow_from_row, limit)

    async def workflow_list_live(self, after_id: int, limit: int) -> list[Workflow]:
        where = " WHERE id > $1 AND ended_at IS NULL ORDER BY id LIMIT $2"
        return await self._many(Q["workflow_columns"] + where, workflow_from_row, after_id, limit)

    async def workflow_get_many(self, ids: Sequence[int]) -> list[Workflow]:
        found = await self._many(Q["workflow_columns"] + " WHERE id = ANY($1::bigint[])", workflow_from_row, list(ids))
        by_id = {workflow.id: workflow for workflow in found}
        return [by_id[ident] for ident in ids if ident in by_id]

    async def workflow_list(self, where: WorkflowFilter, before_id: int | None, limit: int) -> list[Workflow]:
        by_prefix = where.name is not None and where.name.endswith("*")
        wanted: dict[str, object] = {
            "id < {}": before_id,
            "state = ANY({}::text[])": sorted(where.states) or None,
            "project = {}": where.project,
            "project = ANY({}::text[])": None if where.projects is None else sorted(where.projects),
            "owner = {}": where.user,
            "name = {}": None if by_prefix else where.name,
            "starts_with(name, {})": (where.name or "")[:-1] if by_prefix else None,
        }
        given = {text: value for text, value in wanted.items() if value is not None}
        said = " AND ".join(["true", *[text.format(f"${number}") for number, text in enumerate(given, 1)]])
        text = f"{Q['workflow_columns']} WHERE {said} ORDER BY id DESC LIMIT ${len(given) + 1}"
        return await self._many(text, workflow_from_row, *given.values(), limit)

    async def step_list(self, workflow: int, after_path: str, limit: int) -> list[Step]:
        where = " WHERE workflow = $1 AND path > $2 ORDER BY path LIMIT $3"
        return await self._many(Q["step_columns"] + where, step_from_row, workflow, after_path, limit)

    async def step_counts(self, workflow: int) -> dict[State, int]:
        return dict(await self._many(Q["step_counts"], lambda row: (State(row[0]), int(row[1])), workflow))

    async def step_get(self, workflow: int, path: str) -> Step | None:
        where = " WHERE workflow = $1 AND path = $2"
        found = await self._many(Q["step_columns"] + where, step_from_row, workflow, path)
        return found[0] if found else None

    async def kept_get(self, project: str, key: str) -> Kept | None:
        found = await self._many(Q["kept_get"], kept_from_row, project, key)
        return found[0] if found else None

    async def kept_delete(self, expired_before: float, limit: int) -> int:
        return int((await self.postgres.fetch(Q["kept_delete"], expired_before, limit))[0][0])

    async def schedule_insert(self, schedule: Schedule, key: IdempotencyKey | None = None) -> Accepted:
        body = schedule_body(schedule)

        async def insert(c: Connection, now: float) -> int:
            found = await c.fetch(Q["schedule_insert"], schedule.project, schedule.name, body)
            if not found:
                raise name_taken(schedule)
            return int(found[0][0])

        return await self._once(key, insert)

    async def command_insert_once(self, command: NewCommand, key: IdempotencyKey) -> Accepted:
        async def insert(c: Connection, now: float) -> int:
            return int((await c.fetch(Q["command_insert"], self._at(), [encode(command)]))[0][0])

        return await self._once(key, insert)

    async def schedule_list(self, after_id: int = 0) -> list[Schedule]:
        return await self._many(Q["schedule_list"], schedule_from_row, after_id)

    async def workflow_delete_ended(self, before: float, limit: int) -> list[int]:
        async def unit(c: Connection) -> list[int]:
            gone = [row[0] for row in await c.fetch(Q["workflow_list_expired"], before, limit)]
            for name in ("step_delete", "workflow_delete"):
                await c.execute(Q[name], gone)
            return sorted(gone)

        return await self.postgres.transaction(unit)


def _told(key: IdempotencyKey, row: Sequence[Any]) -> Accepted:
    if row[4] != key.body_hash:
        raise IdempotencyConflict(key.key)
    return Accepted(tuple(msgspec.msgpack.decode(row[6])), row[5], replayed=True)


async def commit_workflows(c: Connection, changes: Changes) -> None:
    """The part of a turn that is about workflows; before the rest, which may change the tasks that were made."""
    if changes.tasks_new:
        made = list(changes.tasks_new.values())
        await c.execute(Q["task_insert_made"], *columns([_made_row(t) for t in made], 9))
        await c.execute(Q["task_insert_made_now"], *columns([_now_row(t) for t in made], 8))
    for w in changes.workflows_new.values():
        row = (w.id, w.uuid, w.project, w.user, w.spec.name, w.rerun_of, w.submitted_at, encode(w.spec))
        await c.execute(Q["workflow_insert"], *row)
    if changes.schedules:
        bodies = [(s.id, schedule_body(s)) for s in changes.schedules.values()]
        await c.execute(Q["schedule_update"], *columns(bodies, 2))
    if changes.schedules_removed:
        await c.execute(Q["schedule_delete"], changes.schedules_removed)
    if changes.steps:
        await c.execute(Q["step_put"], *columns([step_to_row(step) for step in changes.steps.values()], 9))
    if changes.kept:
        await c.execute(Q["kept_put"], *columns([kept_to_row(kept) for kept in changes.kept.values()], 8))
    if changes.workflows:
        rows = [
            (str(w.state), w.wish, w.reason, w.started_at, w.ended_at, w.output, w.id)
            for w in changes.workflows.values()
        ]
        await c.execute(Q["workflow_update"], *columns(rows, 7))


def _made_row(t: Task) -> tuple[object, ...]:
    return (
        t.id, t.uuid, t.project, t.user, t.spec.name, t.spec.queue, t.retry_of, t.submitted_at, encode(t.spec),
    )  # fmt: skip


def _now_row(t: Task) -> tuple[object, ...]:
    counts = encode(t.counts) if t.counts else None
    return (t.id, str(t.state), str(t.base), counts, t.next_position, t.reason, t.started_at, t.ended_at)
