"""SHELL: schedules in the leader's turn: what is due becomes a task or a workflow in the commit that says it was.

So there is one run for each nominal time, whoever leads: the run and the schedule's next time are written together or not at all.
"""

from collections.abc import Awaitable, Callable
from uuid import NAMESPACE_OID, uuid5

import msgspec

from jarvis.core.command import Command, NewCommand
from jarvis.core.ids import ElementKey
from jarvis.core.inputs import CommandsTaken, Input
from jarvis.core.schedule import Schedule
from jarvis.core.task import Task
from jarvis.core.workflow import Workflow
from jarvis.dag.schedules import due, next_after, times
from jarvis.scheduler.placement import on_task_taken
from jarvis.scheduler.turn import Turn
from jarvis.scheduler.workflows import Workflows
from jarvis.state.store import Store


class Schedules:
    """Turned by the leader's loop. Which nominal times are due is decided by ``dag``."""

    def __init__(self, store: Store, workflows: Workflows) -> None:
        self._store, self._workflows = store, workflows
        self.known: dict[int, Schedule] = {}

    async def rebuild(self) -> None:
        self.known = {schedule.id: schedule for schedule in await self._store.schedule_list()}

    async def poll(self) -> None:
        """New ones."""
        for schedule in await self._store.schedule_list():
            self.known.setdefault(schedule.id, schedule)

    @property
    def next_wake(self) -> float | None:
        return min((s.next_at for s in self.known.values() if s.next_at is not None and not s.paused), default=None)

    async def handle(self, turn: Turn, item: Input) -> None:
        """Take what is asked of schedules out of it."""
        if not isinstance(item, CommandsTaken):
            return
        for command in [c for c in item.commands if c.body.verb.startswith("schedule_")]:
            item.commands.remove(command)
            turn.cause_id = item.cause_id
            turn.changes.commands_done[command.id] = await self._on_command(turn, command)

    async def _on_command(self, turn: Turn, command: Command) -> str:
        if command.body.schedule not in self.known:
            await self.poll()
        schedule = self.known.get(command.body.schedule or 0)
        if schedule is None:
            return "no such schedule"
        return await _VERBS[command.body.verb](self, turn, schedule, command.body)

    async def advance(self, turn: Turn) -> None:
        """Runs for every nominal time that has come."""
        for schedule in list(self.known.values()):
            if schedule.paused or schedule.next_at is None or schedule.next_at > turn.now:
                continue
            turn.cause_id = f"schedule-{schedule.id}"
            wanted, left_out = due(schedule, turn.now)
            schedule.skipped += left_out
            for nominal in wanted:
                await self._run(turn, schedule, nominal)
            schedule.next_at = next_after(schedule.rule, turn.now)
            turn.changes.schedules[schedule.id] = schedule

    def _goes_on(self, turn: Turn, schedule: Schedule) -> bool:
        last = schedule.last_run
        return last is not None and (last in turn.cluster.tasks or last in self._workflows.runs)

    async def _run(self, turn: Turn, schedule: Schedule, nominal: float, anyway: bool = False) -> None:
        """One run. The next ``last_run`` is known before the commit, and so is what overlaps with it."""
        if schedule.overlap == "skip" and not anyway and self._goes_on(turn, schedule):
            schedule.skipped += 1
            turn.event("schedule.skipped", schedule=schedule.id, nominal=nominal)
            return
        ident = await self._workflows.new_id()
        uuid = str(uuid5(NAMESPACE_OID, f"schedule/{schedule.id}/{nominal}/{ident}"))
        if schedule.workflow is not None:
            made = Workflow(
                id=ident, uuid=uuid, project=schedule.project, user=schedule.user, spec=schedule.workflow,
                submitted_at=turn.now,
            )  # fmt: skip
            turn.changes.workflows_new[ident] = made
            await self._workflows.begin(turn, made)
        else:
            assert schedule.task is not None
            env = {**schedule.task.env, "JARVIS_NOMINAL_TIME": f"{nominal:.0f}"}
            spec = msgspec.structs.replace(schedule.task, env=env)
            task = Task(
                id=ident, uuid=uuid, project=schedule.project, user=schedule.user, spec=spec, submitted_at=turn.now
            )
            turn.changes.tasks_new[ident] = task
            on_task_taken(turn, task, {})
        schedule.last_at, schedule.last_run, schedule.runs = nominal, ident, schedule.runs + 1
        turn.event("schedule.run", ElementKey(ident), schedule=schedule.id, nominal=nominal)

    # ------------------------------------------------------------ what people ask

    async def pause(self, turn: Turn, schedule: Schedule, body: NewCommand) -> str:
        schedule.paused = True
        turn.changes.schedules[schedule.id] = schedule
        return ""

    async def resume(self, turn: Turn, schedule: Schedule, body: NewCommand) -> str:
        """What passed meanwhile is caught up with, as the schedule says."""
        schedule.paused = False
        turn.changes.schedules[schedule.id] = schedule
        return ""

    async def remove(self, turn: Turn, schedule: Schedule, body: NewCommand) -> str:
        del self.known[schedule.id]
        turn.changes.schedules.pop(schedule.id, None)
        turn.changes.schedules_removed.append(schedule.id)
        return ""

    async def trigger(self, turn: Turn, schedule: Schedule, body: NewCommand) -> str:
        await self._run(turn, schedule, turn.now, anyway=True)
        turn.changes.schedules[schedule.id] = schedule
        return ""

    async def backfill(self, turn: Turn, schedule: Schedule, body: NewCommand) -> str:
        """A run for each nominal time of a span, whatever overlaps."""
        begin, end = float(body.args.get("begin") or 0.0), float(body.args.get("end") or 0.0)
        for nominal in times(schedule.rule, begin, end):
            await self._run(turn, schedule, nominal, anyway=True)
        turn.changes.schedules[schedule.id] = schedule
        return ""


_VERBS: dict[str, Callable[[Schedules, Turn, Schedule, NewCommand], Awaitable[str]]] = {
    "schedule_pause": Schedules.pause,
    "schedule_resume": Schedules.resume,
    "schedule_remove": Schedules.remove,
    "schedule_trigger": Schedules.trigger,
    "schedule_backfill": Schedules.backfill,
}
