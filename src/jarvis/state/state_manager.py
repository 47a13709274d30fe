"""SERVICE: what API replicas do with the store: insert wishes durably, then hint the leader so that nobody waits for a poll."""

import time
from collections.abc import Callable, Sequence

from jarvis.bus.bus import Bus
from jarvis.core.command import Command, NewCommand
from jarvis.core.errors import InvalidValue, JarvisError, NotFound, StoreUnavailable
from jarvis.core.inputs import CommandsTaken, LookAgain, TasksTaken, WorkflowsTaken
from jarvis.core.schedule import Schedule
from jarvis.core.states import State
from jarvis.core.task import Task
from jarvis.core.workflow import NewWorkflow, Workflow, WorkflowSpec, walk
from jarvis.state.blob_store import BlobStore
from jarvis.state.manifests import read_manifest
from jarvis.state.store import Accepted, IdempotencyKey, Store, Submission

TOUCH_AGAIN_S = 600.0
"""A body that was used so lately is far from the age at which retention looks at it."""
TOUCHED_MOST = 10_000
FEW = 16
"""Tasks that are told of early: of more, each takes the leader longer than its share of the sync that is spared."""


class StateManager:
    """Acknowledged means durable: a method returns after the commit, and the hint is only for speed."""

    def __init__(
        self, store: Store, blobs: BlobStore, bus: Bus, accepted: Callable[[int], None] = lambda count: None
    ) -> None:
        """``accepted`` is told how many tasks each acknowledgement took in."""
        self._accepted = accepted
        self.store, self.blobs, self.bus = store, blobs, bus
        self._touched: dict[tuple[str, str], float] = {}

    async def submit(self, submissions: Sequence[Submission]) -> list[Accepted | JarvisError]:
        """One answer per submission; a refused one never fails its neighbours."""
        answers = await self._with_known_dependencies(submissions)
        await self._refuse_missing_bodies(submissions, answers)
        open_ones = [i for i, answer in enumerate(answers) if not isinstance(answer, JarvisError)]
        asked = [submissions[i] for i in open_ones]
        hinted: list[Task] = []

        def early(inserted: Sequence[Accepted | JarvisError]) -> None:
            hinted.extend(_fresh(asked, inserted))
            self._offer(hinted, {})

        inserted = await self.store.task_insert_many(asked, early=early if _is_small(asked) else None)
        for i, answer in zip(open_ones, inserted, strict=True):
            answers[i] = answer
        fresh = hinted or _fresh(asked, inserted)
        if fresh:
            self._accepted(len(fresh))
        if fresh and not hinted:
            await self._hint(fresh)
        return answers

    async def _with_known_dependencies(self, submissions: Sequence[Submission]) -> list[Accepted | JarvisError]:
        """A placeholder for each good submission, an error for each that depends on nothing."""
        named = {d.task for s in submissions for t in s.tasks for d in t.spec.after}
        placeholder = Accepted((), 0.0)
        answers: list[Accepted | JarvisError] = []
        if not named:
            return [placeholder] * len(submissions)
        known = {task.id for task in await self.store.task_get_many(sorted(named))}
        for submission in submissions:
            missing = [d.task for t in submission.tasks for d in t.spec.after if d.task not in known]
            error = InvalidValue("after", missing[0], "the id of an existing task") if missing else None
            answers.append(error or placeholder)
        return answers

    async def _refuse_missing_bodies(
        self, submissions: Sequence[Submission], answers: list[Accepted | JarvisError]
    ) -> None:
        """Bodies that tasks name are stored already, and young again from now on, so that retention leaves them."""
        for i, submission in enumerate(submissions):
            named = {
                (task.project, digest): field for task in submission.tasks for field, digest in task.spec.bodies.items()
            }
            for (project, digest), field in named.items():
                try:
                    await self._look_at(project, digest, field)
                except (InvalidValue, StoreUnavailable) as error:
                    answers[i] = error

    async def _look_at(self, project: str, digest: str, field: str) -> None:
        """Raises :class:`InvalidValue` unless it is there, with all its pieces if it is a manifest."""
        try:
            await self._touch(project, digest)
        except NotFound:
            raise InvalidValue(field, digest, f"the digest of a blob of project {project}") from None
        if not field.startswith("push."):
            return
        try:
            manifest = await read_manifest(self.blobs, project, digest)
        except (NotFound, InvalidValue) as error:
            raise InvalidValue(field, digest, f"the digest of a list of files: {error}") from None
        for piece in manifest.pieces:
            try:
                await self._touch(project, piece)
            except NotFound:
                raise InvalidValue(field, digest, f"all there: project {project} lacks its piece {piece}") from None

    async def missing(self, project: str, digests: Sequence[str]) -> list[str]:
        """Those of which there is no body. The others are young again, so that a submission may name them soon."""
        out = []
        for digest in digests:
            try:
                await self._touch(project, digest)
            except NotFound:
                out.append(digest)
        return out

    async def _touch(self, project: str, digest: str) -> None:
        now, key = time.monotonic(), (project, digest)
        if now - self._touched.get(key, float("-inf")) < TOUCH_AGAIN_S:
            return
        await self.blobs.touch(project, digest)
        if len(self._touched) >= TOUCHED_MOST:
            self._touched.clear()
        self._touched[key] = now

    async def _hint(self, tasks: list[Task]) -> None:
        """Dependencies that ended before are looked up here, so that the leader need not read."""
        named = {d.task for task in tasks for d in task.spec.after}
        ended = {t.id: t.state for t in await self.store.task_get_many(sorted(named))} if named else {}
        self._offer(tasks, ended)

    def _offer(self, tasks: list[Task], ended: dict[int, State]) -> None:
        if tasks:
            self.bus.offer(TasksTaken(f"submit-{tasks[0].id}", tasks, ended))

    async def submit_workflow(self, new: NewWorkflow, key: IdempotencyKey | None = None) -> Accepted:
        """Insert a workflow; its bodies are there already, and young again from now on."""
        await self._look_at_steps(new.project, new.spec)
        accepted = await self.store.workflow_insert(new, key)
        if not accepted.replayed:
            workflow = Workflow(
                id=accepted.ids[0], uuid=new.uuid, project=new.project, user=new.user, spec=new.spec,
                rerun_of=new.rerun_of, submitted_at=accepted.submitted_at,
            )  # fmt: skip
            self.bus.offer(WorkflowsTaken(f"submit-{workflow.id}", [workflow]))
        return accepted

    async def _look_at_steps(self, project: str, spec: WorkflowSpec) -> None:
        named = {d: f for step in walk(spec.block) if step.task is not None for f, d in step.task.bodies.items()}
        for digest, field in named.items():
            await self._look_at(project, digest, field)

    async def schedule(self, schedule: Schedule, key: IdempotencyKey | None = None) -> Accepted:
        """Keep a schedule, whose bodies are there already; the leader looks at once."""
        if schedule.task is not None:
            for field, digest in schedule.task.bodies.items():
                await self._look_at(schedule.project, digest, field)
        if schedule.workflow is not None:
            await self._look_at_steps(schedule.project, schedule.workflow)
        accepted = await self.store.schedule_insert(schedule, key)
        self.bus.offer(LookAgain(f"schedule-{accepted.ids[0]}"))
        return accepted

    async def command(self, commands: Sequence[NewCommand]) -> list[Command]:
        """Durable wishes about what exists; the leader acts on them in order."""
        stored = await self.store.command_insert_many(commands)
        self.bus.offer(CommandsTaken(f"command-{stored[0].id}", stored))
        return stored

    async def command_once(self, command: NewCommand, key: IdempotencyKey) -> Accepted:
        """The same of one command, for whoever may say it again."""
        accepted = await self.store.command_insert_once(command, key)
        if not accepted.replayed:
            stored = Command(id=accepted.ids[0], at=accepted.submitted_at, body=command)
            self.bus.offer(CommandsTaken(f"command-{stored.id}", [stored]))
        return accepted


def _is_small(submissions: Sequence[Submission]) -> bool:
    """Whether the leader decides at once, so that it is worth to wait for that with the sync; of what they depend on it would
    have to be told."""
    count = sum(len(submission.tasks) for submission in submissions)
    return count <= FEW and not any(task.spec.after for submission in submissions for task in submission.tasks)


def _fresh(submissions: Sequence[Submission], answers: Sequence[Accepted | JarvisError]) -> list[Task]:
    """What was inserted now."""
    return [
        row
        for submission, answer in zip(submissions, answers, strict=True)
        if isinstance(answer, Accepted) and not answer.replayed
        for row in _rows(submission, answer)
    ]


def _rows(submission: Submission, accepted: Accepted) -> list[Task]:
    return [
        Task(
            id=ident, uuid=new.uuid, project=new.project, user=new.user, spec=new.spec,
            submitted_at=accepted.submitted_at, retry_of=new.retry_of,
        )
        for ident, new in zip(accepted.ids, submission.tasks, strict=True)
    ]  # fmt: skip
