"""Workflows and their steps in the memory store."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import msgspec

from jarvis.core.changes import Changes
from jarvis.core.command import Command, NewCommand
from jarvis.core.errors import IdempotencyConflict
from jarvis.core.schedule import Schedule
from jarvis.core.states import TERMINAL, State
from jarvis.core.workflow import Kept, NewWorkflow, Step, Workflow
from jarvis.state.store import Accepted, IdempotencyKey
from jarvis.state.workflow_rows import matches, name_taken, workflow_spec
from jarvis.state.workflow_store import WorkflowFilter

if TYPE_CHECKING:
    from jarvis.core.task import Task

T = TypeVar("T", bound=msgspec.Struct)


def copy_of(value: T) -> T:
    """Nothing outside may change what is stored."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=type(value))


class MemoryWorkflows:
    """That part of the port. Ids and keys are those of tasks."""

    _clock: Callable[[], float]

    def __init__(self) -> None:
        self._tasks: dict[int, Task] = {}
        self._keys: dict[tuple[str, str, str, str], tuple[str, Accepted]] = {}
        self._next_task = 1
        self._workflows: dict[int, Workflow] = {}
        self._steps: dict[tuple[int, str], Step] = {}
        self._kept: dict[tuple[str, str], Kept] = {}
        self._schedules: dict[int, Schedule] = {}
        self._next_schedule = 1

    def _answered(self, key: IdempotencyKey) -> Accepted | None:
        found = self._keys.get((key.principal, key.project, key.route, key.key))
        if found is None:
            return None
        if found[0] != key.body_hash:
            raise IdempotencyConflict(key.key)
        return Accepted(found[1].ids, found[1].submitted_at, replayed=True)

    def _remember(self, key: IdempotencyKey, accepted: Accepted) -> None:
        self._keys[key.principal, key.project, key.route, key.key] = (key.body_hash, accepted)

    async def workflow_insert(self, new: NewWorkflow, key: IdempotencyKey | None = None) -> Accepted:
        workflow_spec(new)
        before = None if key is None else self._answered(key)
        if before is not None:
            return before
        now, ident = self._clock(), self._next_task
        self._next_task += 1
        self._workflows[ident] = copy_of(
            Workflow(
                id=ident, uuid=new.uuid, project=new.project, user=new.user, spec=new.spec, rerun_of=new.rerun_of,
                submitted_at=now,
            )
        )  # fmt: skip
        for step in new.reused:
            self._steps[ident, step.path] = copy_of(step)
            self._steps[ident, step.path].workflow = ident
        return self._accepted(ident, key)

    def _accepted(self, ident: int, key: IdempotencyKey | None) -> Accepted:
        accepted = Accepted((ident,), self._clock())
        if key is not None:
            self._remember(key, accepted)
        return accepted

    async def task_ids_reserve(self, count: int) -> Sequence[int]:
        self._next_task += count
        return range(self._next_task - count, self._next_task)

    def _commit_workflows(self, changes: Changes) -> None:
        for task in changes.tasks_new.values():
            self._tasks[task.id] = copy_of(task)
        for workflow in changes.workflows.values():
            if workflow.id in self._workflows:
                self._workflows[workflow.id] = copy_of(workflow)
        for workflow in changes.workflows_new.values():
            self._workflows[workflow.id] = copy_of(workflow)
        for schedule in changes.schedules.values():
            if schedule.id in self._schedules:
                self._schedules[schedule.id] = copy_of(schedule)
        for ident in changes.schedules_removed:
            self._schedules.pop(ident, None)
        for at, step in changes.steps.items():
            self._steps[at] = copy_of(step)
        self._kept |= changes.kept

    async def workflow_list_submitted(self, limit: int) -> list[Workflow]:
        found = (w for _, w in sorted(self._workflows.items()) if w.state is State.SUBMITTED)
        return [copy_of(w) for w, _ in zip(found, range(limit), strict=False)]

    async def workflow_list_live(self, after_id: int, limit: int) -> list[Workflow]:
        live = (w for i, w in sorted(self._workflows.items()) if i > after_id and w.state not in TERMINAL)
        return [copy_of(w) for w, _ in zip(live, range(limit), strict=False)]

    async def workflow_get_many(self, ids: Sequence[int]) -> list[Workflow]:
        return [copy_of(self._workflows[i]) for i in ids if i in self._workflows]

    async def workflow_list(self, where: WorkflowFilter, before_id: int | None, limit: int) -> list[Workflow]:
        newest = (w for i, w in sorted(self._workflows.items(), reverse=True) if before_id is None or i < before_id)
        found = (w for w in newest if matches(where, w))
        return [copy_of(w) for w, _ in zip(found, range(limit), strict=False)]

    async def step_list(self, workflow: int, after_path: str, limit: int) -> list[Step]:
        own = sorted((p.encode(), s) for (w, p), s in self._steps.items() if w == workflow and p > after_path)
        return [copy_of(step) for _, step in own[:limit]]

    async def step_counts(self, workflow: int) -> dict[State, int]:
        return dict(Counter(s.state for (w, _), s in self._steps.items() if w == workflow))

    async def step_get(self, workflow: int, path: str) -> Step | None:
        found = self._steps.get((workflow, path))
        return None if found is None else copy_of(found)

    async def kept_get(self, project: str, key: str) -> Kept | None:
        return self._kept.get((project, key))

    async def kept_delete(self, expired_before: float, limit: int) -> int:
        old = sorted((k.expires_at, at) for at, k in self._kept.items() if k.expires_at < expired_before)[:limit]
        for _, at in old:
            del self._kept[at]
        return len(old)

    async def schedule_insert(self, schedule: Schedule, key: IdempotencyKey | None = None) -> Accepted:
        before = None if key is None else self._answered(key)
        if before is not None:
            return before
        if any((s.project, s.name) == (schedule.project, schedule.name) for s in self._schedules.values()):
            raise name_taken(schedule)
        made = copy_of(schedule)
        made.id = self._next_schedule
        self._next_schedule += 1
        self._schedules[made.id] = made
        return self._accepted(made.id, key)

    async def command_insert_once(self, command: NewCommand, key: IdempotencyKey) -> Accepted:
        before = self._answered(key)
        if before is not None:
            return before
        (stored,) = await self.command_insert_many([command])
        return self._accepted(stored.id, key)

    async def command_insert_many(self, commands: Sequence[NewCommand]) -> list[Command]:
        raise NotImplementedError

    async def schedule_list(self, after_id: int = 0) -> list[Schedule]:
        return [copy_of(s) for ident, s in sorted(self._schedules.items()) if ident > after_id]

    async def workflow_delete_ended(self, before: float, limit: int) -> list[int]:
        old = sorted(
            (w.ended_at, w.id) for w in self._workflows.values() if w.ended_at is not None and w.ended_at < before
        )
        gone = {ident for _, ident in old[:limit]}
        self._workflows = {i: w for i, w in self._workflows.items() if i not in gone}
        self._steps = {at: s for at, s in self._steps.items() if at[0] not in gone}
        return sorted(gone)
