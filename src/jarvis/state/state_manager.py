"""SERVICE: what API replicas do with the store: insert wishes durably, then hint the leader so that nobody waits for a poll."""

from collections.abc import Sequence

from jarvis.bus.bus import Bus
from jarvis.core.command import Command, NewCommand
from jarvis.core.errors import InvalidValue, JarvisError
from jarvis.core.inputs import CommandsTaken, TasksTaken
from jarvis.core.task import Task
from jarvis.state.store import Accepted, Store, Submission


class StateManager:
    """Acknowledged means durable: a method returns after the commit, and the hint is only for speed."""

    def __init__(self, store: Store, bus: Bus) -> None:
        self.store, self.bus = store, bus

    async def submit(self, submissions: Sequence[Submission]) -> list[Accepted | JarvisError]:
        """One answer per submission; a refused one never fails its neighbours."""
        answers: list[Accepted | JarvisError] = list(await self._with_known_dependencies(submissions))
        open_ones = [i for i, answer in enumerate(answers) if not isinstance(answer, JarvisError)]
        inserted = await self.store.task_insert_many([submissions[i] for i in open_ones])
        fresh: list[Task] = []
        for i, answer in zip(open_ones, inserted, strict=True):
            answers[i] = answer
            if isinstance(answer, Accepted) and not answer.replayed:
                fresh.extend(_rows(submissions[i], answer))
        if fresh:
            await self._hint(fresh)
        return answers

    async def _with_known_dependencies(self, submissions: Sequence[Submission]) -> list[Accepted | JarvisError]:
        """A placeholder for each good submission, an error for each that depends on nothing."""
        named = {d.task for s in submissions for t in s.tasks for d in t.spec.after}
        known = {task.id for task in await self.store.task_get_many(sorted(named))} if named else set()
        placeholder = Accepted((), 0.0)
        answers: list[Accepted | JarvisError] = []
        for submission in submissions:
            missing = [d.task for t in submission.tasks for d in t.spec.after if d.task not in known]
            error = InvalidValue("after", missing[0], "the id of an existing task") if missing else None
            answers.append(error or placeholder)
        return answers

    async def _hint(self, tasks: list[Task]) -> None:
        """Dependencies that ended before are looked up here, so that the leader need not read."""
        named = {d.task for task in tasks for d in task.spec.after}
        ended = {t.id: t.state for t in await self.store.task_get_many(sorted(named))} if named else {}
        self.bus.offer(TasksTaken(f"submit-{tasks[0].id}", tasks, ended))

    async def command(self, commands: Sequence[NewCommand]) -> list[Command]:
        """Durable wishes about what exists; the leader acts on them in order."""
        stored = await self.store.command_insert_many(commands)
        self.bus.offer(CommandsTaken(f"command-{stored[0].id}", stored))
        return stored


def _rows(submission: Submission, accepted: Accepted) -> list[Task]:
    return [
        Task(
            id=ident, uuid=new.uuid, project=new.project, user=new.user, spec=new.spec,
            submitted_at=accepted.submitted_at, retry_of=new.retry_of,
        )
        for ident, new in zip(accepted.ids, submission.tasks, strict=True)
    ]  # fmt: skip
