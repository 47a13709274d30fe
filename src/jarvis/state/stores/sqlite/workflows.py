"""Workflows and their steps in the SQLite store."""

import json
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from jarvis.core.changes import Changes
from jarvis.core.command import NewCommand
from jarvis.core.errors import IdempotencyConflict
from jarvis.core.schedule import Schedule
from jarvis.core.states import State
from jarvis.core.task import Task
from jarvis.core.workflow import Kept, NewWorkflow, Step, Workflow
from jarvis.state.persistence import encode
from jarvis.state.store import Accepted, IdempotencyKey
from jarvis.state.stores.sqlite.coordination import SqliteCoordination
from jarvis.state.stores.sqlite.database import run
from jarvis.state.stores.sqlite.file import Q
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


class SqliteWorkflows(SqliteCoordination):
    """That part of the port."""

    async def workflow_insert(self, new: NewWorkflow, key: IdempotencyKey | None = None) -> Accepted:
        now, spec = self._clock(), workflow_spec(new)

        def insert(c: sqlite3.Connection) -> int:
            ident = _reserve(c, 1)
            row = (ident, new.uuid, new.project, new.user, new.spec.name, new.rerun_of, now, spec)
            run(c, "workflow_insert", [row])
            run(c, "step_put", [(ident, *step_to_row(step)[1:]) for step in new.reused])
            return ident

        return await self._once(key, now, insert)

    async def _once(
        self, key: IdempotencyKey | None, now: float, insert: Callable[[sqlite3.Connection], int]
    ) -> Accepted:
        """What is inserted under the id that comes back; a repeat of the key gets the first one."""

        def unit(c: sqlite3.Connection) -> Accepted:
            before = None if key is None else answered(c, key)
            if before is not None:
                return before
            ident = insert(c)
            if key is not None:
                row = (key.principal, key.project, key.route, key.key, key.body_hash, now, encode((ident, ident + 1)))
                run(c, "idempotency_insert", [row])
            return Accepted((ident,), now)

        return await self._writer.do(unit)

    async def task_ids_reserve(self, count: int) -> Sequence[int]:
        last = await self._writer.do(lambda c: _reserve(c, count))
        return range(last - count + 1, last + 1)

    async def workflow_list_submitted(self, limit: int) -> list[Workflow]:
        return await self._many("workflow_list_submitted", workflow_from_row, (limit,))

    async def workflow_list_live(self, after_id: int, limit: int) -> list[Workflow]:
        return await self._many("workflow_list_live", workflow_from_row, (after_id, limit))

    async def workflow_get_many(self, ids: Sequence[int]) -> list[Workflow]:
        def unit(c: sqlite3.Connection) -> list[Workflow]:
            rows = (c.execute(Q["workflow_get"], (i,)).fetchone() for i in ids)
            return [workflow_from_row(row) for row in rows if row is not None]

        return await self._read(unit)

    async def workflow_list(self, where: WorkflowFilter, before_id: int | None, limit: int) -> list[Workflow]:
        name = where.name
        prefix = name[:-1] if name is not None and name.endswith("*") else None
        parameters = {
            "before": (1 << 62) if before_id is None else before_id,
            "states": json.dumps(sorted(where.states)) if where.states else None,
            "project": where.project,
            "projects": None if where.projects is None else json.dumps(sorted(where.projects)),
            "user": where.user,
            "name": None if prefix is not None else name,
            "prefix": prefix,
            "limit": limit,
        }
        return await self._many("workflow_list", workflow_from_row, parameters)

    async def step_list(self, workflow: int, after_path: str, limit: int) -> list[Step]:
        return await self._many("step_list", step_from_row, (workflow, after_path, limit))

    async def step_counts(self, workflow: int) -> dict[State, int]:
        return dict(await self._many("step_counts", lambda row: (State(row[0]), int(row[1])), (workflow,)))

    async def step_get(self, workflow: int, path: str) -> Step | None:
        found = await self._many("step_get", step_from_row, (workflow, path))
        return found[0] if found else None

    async def kept_get(self, project: str, key: str) -> Kept | None:
        found = await self._many("kept_get", kept_from_row, (project, key))
        return found[0] if found else None

    async def kept_delete(self, expired_before: float, limit: int) -> int:
        return await self._writer.do(lambda c: c.execute(Q["kept_delete"], (expired_before, limit)).rowcount)

    async def schedule_insert(self, schedule: Schedule, key: IdempotencyKey | None = None) -> Accepted:
        body = schedule_body(schedule)

        def insert(c: sqlite3.Connection) -> int:
            try:
                return c.execute(Q["schedule_insert"], (schedule.project, schedule.name, body)).lastrowid or 0
            except sqlite3.IntegrityError:
                raise name_taken(schedule) from None

        return await self._once(key, self._clock(), insert)

    async def command_insert_once(self, command: NewCommand, key: IdempotencyKey) -> Accepted:
        now = self._clock()
        row = (now, encode(command))
        return await self._once(key, now, lambda c: c.execute(Q["command_insert"], row).lastrowid or 0)

    async def schedule_list(self, after_id: int = 0) -> list[Schedule]:
        return await self._many("schedule_list", schedule_from_row, (after_id,))

    async def workflow_delete_ended(self, before: float, limit: int) -> list[int]:
        def unit(c: sqlite3.Connection) -> list[int]:
            rows = c.execute(Q["workflow_list_expired"], (before, limit)).fetchall()
            for name in ("step_delete", "workflow_delete"):
                c.executemany(Q[name], rows)
            return sorted(r[0] for r in rows)

        return await self._writer.do(unit)


def _reserve(c: sqlite3.Connection, count: int) -> int:
    """The last of so many ids."""
    run(c, "task_id_begin", [()])
    return int(c.execute(Q["task_ids_reserve"], (count,)).fetchone()[0])


def answered(c: sqlite3.Connection, key: IdempotencyKey) -> Accepted | None:
    """What a key was answered with; raises IdempotencyConflict on another body."""
    row = c.execute(Q["idempotency_get"], (key.principal, key.project, key.route, key.key)).fetchone()
    if row is None:
        return None
    if row[0] != key.body_hash:
        raise IdempotencyConflict(key.key)
    return Accepted(range(*msgspec.msgpack.decode(row[2])), row[1], replayed=True)


def commit_workflows(c: sqlite3.Connection, changes: Changes) -> None:
    """The part of a turn that is about workflows; before the rest, which may change the tasks that were made."""
    run(c, "task_insert_made", [_made_row(task) for task in changes.tasks_new.values()])
    run(c, "workflow_insert", [_new_row(w) for w in changes.workflows_new.values()])
    run(c, "schedule_update", [(schedule_body(s), s.id) for s in changes.schedules.values()])
    run(c, "schedule_delete", [(ident,) for ident in changes.schedules_removed])
    run(c, "step_put", [step_to_row(step) for step in changes.steps.values()])
    run(c, "kept_put", [kept_to_row(kept) for kept in changes.kept.values()])
    rows = [
        (str(w.state), w.wish, w.reason, w.started_at, w.ended_at, w.output, w.id) for w in changes.workflows.values()
    ]
    run(c, "workflow_update", rows)


def _new_row(w: Workflow) -> tuple[Any, ...]:
    return (w.id, w.uuid, w.project, w.user, w.spec.name, w.rerun_of, w.submitted_at, encode(w.spec))


def _made_row(t: Task) -> tuple[Any, ...]:
    return (
        t.uuid, t.project, t.user, t.spec.name, t.spec.queue, t.retry_of, t.submitted_at, encode(t.spec), str(t.state),
        str(t.base), encode(t.counts) if t.counts else None, t.next_position, t.reason, t.started_at, t.ended_at, t.id,
    )  # fmt: skip
