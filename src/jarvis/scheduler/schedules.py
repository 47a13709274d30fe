"""SHELL: schedules in the leader's turn: what is due becomes a task or a workflow in the commit that says it was.

So there is one run for each nominal time, whoever leads: the run and the schedule's next time are written together or not at all.
The same holds for the end of a workflow and what follows it.
"""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import msgspec

from jarvis.core.command import Command, NewCommand
from jarvis.core.ids import ElementKey
from jarvis.core.inputs import CommandsTaken, FilesSeen, Input
from jarvis.core.schedule import OnFile, Schedule
from jarvis.core.task import Task
from jarvis.core.workflow import EVENT, Workflow, WorkflowSpec
from jarvis.dag.schedules import arrived, can_be_kept, circle, due, follows, next_after, times
from jarvis.scheduler.cluster import Cluster
from jarvis.scheduler.placement import on_task_taken
from jarvis.scheduler.turn import Turn
from jarvis.scheduler.workflows import Workflows
from jarvis.state.store import Store

ALL_EVERY_S = 60.0
LOOK_BACK = 64
"""Schedules with lower ids than one that is known may have been acknowledged later, by other servers."""


class Schedules:
    """Turned by the leader's loop. Which nominal times are due is decided by ``dag``."""

    def __init__(self, store: Store, workflows: Workflows) -> None:
        self._store, self._workflows = store, workflows
        self.known: dict[int, Schedule] = {}
        self.marks: dict[int, str] = {}
        """Of schedules that wait for files on a node: what that said last."""
        self._all_at = 0.0

    async def rebuild(self) -> None:
        self.marks.clear()
        self.known = {schedule.id: schedule for schedule in await self._store.schedule_list()}

    async def poll(self, now: float) -> None:
        """New ones: among the last ones each time, and now and then among all."""
        after = max(self.known, default=0) - LOOK_BACK
        if now >= self._all_at:
            after, self._all_at = 0, now + ALL_EVERY_S
        for schedule in await self._store.schedule_list(after):
            self.known.setdefault(schedule.id, schedule)

    @property
    def next_wake(self) -> float | None:
        return min((s.next_at for s in self.known.values() if s.next_at is not None and not s.paused), default=None)

    async def handle(self, turn: Turn, item: Input) -> None:
        """Take what is asked of schedules out of it, and what they wait for."""
        if isinstance(item, FilesSeen):
            await self._on_files(turn, item)
        if not isinstance(item, CommandsTaken):
            return
        for command in [c for c in item.commands if c.body.verb.startswith("schedule_")]:
            item.commands.remove(command)
            turn.cause_id = item.cause_id
            turn.changes.commands_done[command.id] = await self._on_command(turn, command)

    async def _on_files(self, turn: Turn, item: FilesSeen) -> None:
        schedule = self.known.get(item.schedule)
        if schedule is None or schedule.paused or not _may_tell(turn.cluster, schedule, item):
            return
        on = schedule.rule.on
        assert isinstance(on, OnFile)
        turn.cause_id = item.cause_id
        if item.node:
            self.marks[schedule.id] = item.mark
        if schedule.problem != item.problem:
            schedule.problem = item.problem
            turn.changes.schedules[schedule.id] = schedule
            turn.event(
                "schedule.blocked" if item.problem else "schedule.unblocked", schedule=schedule.id, reason=item.problem
            )
        for name in arrived(schedule, item.present, item.settled):
            changed, size = item.settled[name]
            event = {"path": f"{on.directory}/{name}", "name": name, "size": size, "changed_at": changed / 1e9}
            await self._happened(turn, schedule, event | ({"node": on.node} if on.node else {}))

    async def _on_command(self, turn: Turn, command: Command) -> str:
        if command.body.schedule not in self.known:
            await self.poll(turn.now)
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

    async def follow(self, turn: Turn) -> bool:
        """Runs for the workflows that ended in this turn; whether there were any."""
        followed = False
        while turn.workflows_ended:
            ended, turn.workflows_ended = turn.workflows_ended, []
            await self.poll(turn.now)  # one that was acknowledged before must not miss it
            for ident in turn.changes.schedules_removed:
                self.known.pop(ident, None)
            for workflow in ended:
                for schedule in [s for s in self.known.values() if follows(s, workflow)]:
                    turn.cause_id = f"workflow-{workflow.id}"
                    await self._happened(turn, schedule, end_event(workflow))
                    followed = True
        return followed

    async def _happened(self, turn: Turn, schedule: Schedule, event: dict[str, Any]) -> None:
        """What it waits for: a run, unless it is paused or would go on for ever."""
        turn.changes.schedules[schedule.id] = schedule
        if schedule.paused or circle(schedule, self.known.values()):
            schedule.skipped += 1
            turn.event("schedule.skipped", schedule=schedule.id, reason="paused" if schedule.paused else "circle")
        else:
            await self._run(turn, schedule, turn.now, event)

    def _goes_on(self, turn: Turn, schedule: Schedule) -> bool:
        last = schedule.last_run
        return last is not None and (last in turn.cluster.tasks or last in self._workflows.runs)

    async def _run(
        self, turn: Turn, schedule: Schedule, nominal: float, event: dict[str, Any] | None = None, anyway: bool = False
    ) -> None:
        """One run. The next ``last_run`` is known before the commit, and so is what overlaps with it."""
        if schedule.overlap == "skip" and not anyway and self._goes_on(turn, schedule):
            schedule.skipped += 1
            turn.event("schedule.skipped", schedule=schedule.id, nominal=nominal)
            return
        ident = await self._workflows.new_id()
        uuid = str(uuid5(NAMESPACE_OID, f"schedule/{schedule.id}/{nominal}/{ident}"))
        if schedule.workflow is not None:
            made = Workflow(
                id=ident, uuid=uuid, project=schedule.project, user=schedule.user,
                spec=with_event(schedule.workflow, event), submitted_at=turn.now,
            )  # fmt: skip
            turn.changes.workflows_new[ident] = made
            await self._workflows.begin(turn, made)
        else:
            assert schedule.task is not None
            env = {**schedule.task.env, "JARVIS_NOMINAL_TIME": f"{nominal:.0f}"}
            if event is not None:
                env["JARVIS_EVENT"] = msgspec.json.encode(event).decode()
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
        self.marks.pop(schedule.id, None)
        turn.changes.schedules.pop(schedule.id, None)
        turn.changes.schedules_removed.append(schedule.id)
        return ""

    async def trigger(self, turn: Turn, schedule: Schedule, body: NewCommand) -> str:
        await self._run(turn, schedule, turn.now, anyway=True)
        turn.changes.schedules[schedule.id] = schedule
        return ""

    async def event(self, turn: Turn, schedule: Schedule, body: NewCommand) -> str:
        """What a signed request told."""
        await self._happened(turn, schedule, msgspec.json.decode(str(body.args["event"])))
        return ""

    async def backfill(self, turn: Turn, schedule: Schedule, body: NewCommand) -> str:
        """A run for each nominal time of a span, whatever overlaps."""
        if schedule.rule.on is not None:
            return f"schedule {schedule.name} has no nominal times"
        begin, end = float(body.args.get("begin") or 0.0), float(body.args.get("end") or 0.0)
        for nominal in times(schedule.rule, begin, end):
            await self._run(turn, schedule, nominal, anyway=True)
        turn.changes.schedules[schedule.id] = schedule
        return ""


def _may_tell(cluster: Cluster, schedule: Schedule, item: FilesSeen) -> bool:
    """Whether the schedule waits for files just there. That a node cannot look is also told by the leader's own machine."""
    on, view = schedule.rule.on, cluster.nodes.get(item.node)
    if not isinstance(on, OnFile) or (item.node and view is None):
        return False
    return on.node == (view.node.name if view else "") or bool(item.problem and not item.node)


def end_event(workflow: Workflow) -> dict[str, Any]:
    """What a schedule that waits for the end of workflows is told."""
    output = None if workflow.output is None else msgspec.json.decode(workflow.output)
    return {
        "workflow": workflow.id, "name": workflow.spec.name, "state": str(workflow.state),
        "output": output if can_be_kept(output) else None,
    }  # fmt: skip


def with_event(spec: WorkflowSpec, event: dict[str, Any] | None) -> WorkflowSpec:
    """The event in the parameter of that name, if there is one."""
    if event is None or EVENT not in spec.params:
        return spec
    return msgspec.structs.replace(spec, params={**spec.params, EVENT: event})


_VERBS: dict[str, Callable[[Schedules, Turn, Schedule, NewCommand], Awaitable[str]]] = {
    "schedule_pause": Schedules.pause,
    "schedule_resume": Schedules.resume,
    "schedule_remove": Schedules.remove,
    "schedule_trigger": Schedules.trigger,
    "schedule_backfill": Schedules.backfill,
    "schedule_event": Schedules.event,
}
