"""SHELL: workflows in the leader's turn: a step becomes a task when it is ready, in the commit that holds what made it ready.

What happens next is decided by ``dag``; here its decisions become rows, tasks and stops of a turn. Memory is rebuilt from the
store at takeover, as everything else.
"""

from collections import deque
from heapq import heappop, heappush
from uuid import NAMESPACE_OID, uuid5

from jarvis.core.command import NewCommand
from jarvis.core.ids import ElementKey
from jarvis.core.inputs import CommandsTaken, Input, WorkflowsTaken
from jarvis.core.states import TERMINAL, Cause, State
from jarvis.core.task import Task, TaskSpec
from jarvis.core.workflow import Step, Workflow
from jarvis.dag.dag_manager import Run
from jarvis.dag.progress import TaskEnd
from jarvis.scheduler.commands import on_command
from jarvis.scheduler.placement import on_task_taken, on_tasks_ended
from jarvis.scheduler.policy.prediction import OF_ITS_NAME, Predictor
from jarvis.scheduler.turn import Turn
from jarvis.scheduler.whatif import as_task
from jarvis.state.store import Outcome, Store

PAGE = 2000
START_MOST = 500
"""Tasks that are made in one turn for all workflows together: a turn must not keep others waiting."""
IDS_AHEAD = 16


class Workflows:
    """Those that are under way. Turned by the leader's loop; decides nothing itself."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.runs: dict[int, Run] = {}
        self._wakes: list[tuple[float, int, str]] = []
        self._ids: deque[int] = deque()
        self._unfinished: dict[int, None] = {}
        """Workflows that may make more tasks than they did."""
        self._read: list[Run] = []
        """Read from the store, and not begun again yet."""
        self._polled_to = 0
        """Workflows up to this id are left to the poll, which reads their state: a late hint does not know it any more."""

    # ------------------------------------------------------------ the store

    async def rebuild(self) -> None:
        """Read what is under way; it goes on in the next turn."""
        self.runs, self._wakes, self._unfinished, self._read = {}, [], {}, []
        self._ids.clear()
        after = 0
        while page := await self._store.workflow_list_live(after, PAGE):
            after = page[-1].id
            for workflow in page:
                if workflow.state is not State.SUBMITTED:
                    run = self.runs[workflow.id] = Run(workflow, await self._steps(workflow.id))
                    self._read.append(run)

    async def _steps(self, workflow: int) -> list[Step]:
        steps: list[Step] = []
        while page := await self._store.step_list(workflow, steps[-1].path if steps else "", PAGE):
            steps += page
        return steps

    async def poll(self) -> list[Workflow]:
        """Those that no hint has announced."""
        found = [w for w in await self._store.workflow_list_submitted(PAGE) if w.id not in self.runs]
        if found:
            self._polled_to = max(self._polled_to, found[-1].id)
        return found

    # ------------------------------------------------------------ a turn

    @property
    def next_wake(self) -> float | None:
        """The next instant at which one of them wants to be looked at."""
        if self._read:
            return 0.0
        return self._wakes[0][0] if self._wakes else None

    async def handle(self, turn: Turn, item: Input) -> bool:
        """Take what is about workflows; whether anything is left for others."""
        if self._read:  # a command may be about a step that comes up here
            await self._go_on(turn)
        turn.cause_id = item.cause_id
        if isinstance(item, WorkflowsTaken):
            polled = item.cause_id.startswith("poll")
            for workflow in item.workflows:
                if workflow.id not in self.runs and (polled or workflow.id > self._polled_to):
                    await self.begin(turn, workflow)
            return False
        if isinstance(item, CommandsTaken):
            mine = [command for command in item.commands if command.body.verb.startswith("workflow_")]
            for command in mine:
                turn.changes.commands_done[command.id] = self._on_command(turn, command.body)
                item.commands.remove(command)
        return True

    async def new_id(self) -> int:
        """One that nobody else is given."""
        if not self._ids:
            self._ids.extend(await self._store.task_ids_reserve(IDS_AHEAD))
        return self._ids.popleft()

    async def begin(self, turn: Turn, workflow: Workflow) -> None:
        """A re-run comes with the steps that it takes over."""
        run = Run(workflow, await self._steps(workflow.id) if workflow.rerun_of is not None else ())
        self.runs[workflow.id] = run
        _predict(turn, run)
        run.begin(turn.now)
        self._apply(turn, run)

    async def _go_on(self, turn: Turn) -> None:
        """After a rebuild: what has no row yet begins, and ends that nobody told are looked up."""
        runs, self._read = self._read, []
        for run in runs:
            turn.cause_id = f"rebuild-{run.workflow.id}"
            _predict(turn, run)
            run.begin(turn.now)
            self._apply(turn, run)
            unheard = [task for task in run.tasks if task not in turn.cluster.tasks]
            for outcome in await self._store.outcome_list(unheard) if unheard else ():
                run.task_ended(run.tasks[outcome.task], end_as_stored(outcome), turn.now)
                self._apply(turn, run)

    def _on_command(self, turn: Turn, body: NewCommand) -> str:
        run = self.runs.get(body.workflow or 0)
        if run is None:
            return "already ended"
        said = ""
        if body.verb == "workflow_cancel":
            run.cancel(turn.now)
        elif body.verb == "workflow_pause":
            said = run.pause(turn.now)
        elif body.verb == "workflow_resume":
            said = run.resume(turn.now)
        else:
            said = run.decide(str(body.args.get("step")), bool(body.args.get("yes")), body.user, turn.now)
        self._apply(turn, run)
        return said

    async def advance(self, turn: Turn) -> bool:
        """What the turn's ends and instants mean to workflows, down to the tasks that begin because of it; true when more
        tasks are ready than one turn makes."""
        if self._read:
            await self._go_on(turn)
        while self._wakes and self._wakes[0][0] <= turn.now:
            _, ident, path = heappop(self._wakes)
            if (run := self.runs.get(ident)) is not None:
                turn.cause_id = f"wake-{ident}"
                run.wake(path, turn.now)
                self._apply(turn, run)
        self._take_ends(turn)
        return await self._make_tasks(turn)

    def _take_ends(self, turn: Turn) -> None:
        while turn.steps_ended:
            ended, turn.steps_ended = turn.steps_ended, []
            for task in ended:
                origin = task.spec.origin
                if origin is not None and (run := self.runs.get(origin.workflow)) is not None:
                    turn.cause_id = f"step-{task.id}"
                    run.task_ended(origin.step, end_of(turn, task), turn.now)
                    self._apply(turn, run)
            on_tasks_ended(turn)

    async def _make_tasks(self, turn: Turn) -> bool:
        made = 0
        for ident in list(self._unfinished):
            run = self.runs.get(ident)
            while run is not None and made < START_MOST and run.startable:
                if await self._reuse(turn, run):
                    made += 1
                    continue
                if not self._ids:
                    self._ids.extend(await self._store.task_ids_reserve(max(IDS_AHEAD, min(run.startable, START_MOST))))
                made += self._make_task(turn, run)
                self._take_ends(turn)
            if run is None or not run.startable:
                self._unfinished.pop(ident, None)
        return bool(self._unfinished)

    async def _reuse(self, turn: Turn, run: Run) -> bool:
        """Whether the next step ended with what is kept of an earlier one."""
        key = run.next_key(turn.now)
        if not key:
            return False
        at = (run.workflow.project, key)
        kept = turn.changes.kept.get(at) or await self._store.kept_get(*at)
        if kept is None or not run.reuse(kept, turn.now):
            return False
        turn.cause_id = f"reuse-{kept.workflow}"
        self._apply(turn, run)
        return True

    def _make_task(self, turn: Turn, run: Run) -> bool:
        spec = run.start_next(self._ids[0], turn.now)
        if spec is not None:
            self._submit(turn, run.workflow, self._ids.popleft(), spec)
        self._apply(turn, run)
        return spec is not None

    def _submit(self, turn: Turn, workflow: Workflow, ident: int, spec: TaskSpec) -> None:
        task = Task(
            id=ident, uuid=str(uuid5(NAMESPACE_OID, f"{workflow.uuid}/{ident}")), project=workflow.project,
            user=workflow.user, spec=spec, submitted_at=turn.now,
        )  # fmt: skip
        turn.cause_id = f"workflow-{workflow.id}"
        turn.changes.tasks_new[ident] = task
        on_task_taken(turn, task, {})

    def _apply(self, turn: Turn, run: Run) -> None:
        """Decisions become rows, events and stops."""
        deeds, workflow = run.take(), run.workflow
        for path, step in deeds.rows.items():
            turn.changes.steps[workflow.id, path] = step
            turn.event(
                f"step.{step.state}", ElementKey(workflow.id), step=path, **({"task": step.task} if step.task else {})
            )
        for at, path in deeds.wakes:
            heappush(self._wakes, (at, workflow.id, path))
        turn.changes.kept |= {(kept.project, kept.key): kept for kept in deeds.kept}
        for task in deeds.stops:
            on_command(turn, NewCommand(verb="cancel", user=workflow.user, task=task))
        if deeds.workflow:
            turn.changes.workflows[workflow.id] = workflow
            turn.event(f"workflow.{workflow.state}", ElementKey(workflow.id), name=workflow.spec.name)
        if workflow.state in TERMINAL:
            if self.runs.pop(workflow.id, None) is not None:
                turn.workflows_ended.append(workflow)
            self._unfinished.pop(workflow.id, None)
        elif run.startable:
            self._unfinished[workflow.id] = None


class StepTimes:
    """How long the task of a step runs, by what ended of its name or command; wider groups say nothing about one step."""

    def __init__(self, predictor: Predictor, workflow: Workflow) -> None:
        self._predictor, self._workflow = predictor, workflow

    def __call__(self, spec: TaskSpec) -> float | None:
        workflow = self._workflow
        said = self._predictor.predict(as_task(spec, workflow.project, workflow.user, 0.0, ident=0))
        return said.seconds if said is not None and said.like in OF_ITS_NAME else None


def _predict(turn: Turn, run: Run) -> None:
    """Where orders go by predictions, so does the longest path."""
    if turn.cluster.order.times == "predicted":
        run.predicted = StepTimes(turn.cluster.predictor, run.workflow)


def end_of(turn: Turn, task: Task) -> TaskEnd:
    """How the task of a step ended, with the last words of its last attempt."""
    element = turn.changes.elements.get(ElementKey(task.id))
    attempt = None
    if element is not None and element.attempt:
        at = (*element.key, element.attempt)
        attempt = turn.changes.attempts.get(at) or turn.changes.attempts_new.get(at)
    if attempt is None:
        return TaskEnd(task.state, task.reason)
    reason = attempt.message or _words(attempt.cause, attempt.exit_code, attempt.signal)
    return TaskEnd(
        task.state,
        "" if task.state is State.SUCCEEDED else reason,
        attempt.output,
        attempt.result,
        attempt.result_digest,
        attempt.artifacts,
    )


def end_as_stored(outcome: Outcome) -> TaskEnd:
    """The same of a task that ended before this leader read the store."""
    return TaskEnd(
        outcome.state,
        outcome.message or outcome.cause,
        outcome.output,
        outcome.result,
        outcome.result_digest,
        outcome.artifacts,
    )


def _words(cause: Cause | None, exit_code: int | None, signal: int | None) -> str:
    if cause is Cause.EXIT and exit_code is not None:
        return f"exit code {exit_code}"
    return f"signal {signal}" if cause is Cause.SIGNAL and signal is not None else str(cause or "")
