"""SERVICE: what has ended long ago goes with its bodies, in small batches, and its space comes back."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from jarvis.core.errors import JarvisError
from jarvis.core.task import TaskSpec
from jarvis.core.workflow import Workflow, WorkflowSpec, walk
from jarvis.state.blob_store import BlobStore
from jarvis.state.manifests import pieces_of
from jarvis.state.store import Store
from jarvis.state.workflow_store import WorkflowFilter

log = logging.getLogger("jarvis.retention")

BATCH = 500
EVERY_S = 60.0
PAUSE_S = 0.05
SWEEP_EVERY_S = 3600.0
YOUNG_S = 3600.0
"""Bodies that were put or used so lately are kept although nothing refers to them: a submission may be on its way."""


@dataclass(frozen=True, slots=True)
class Keep:
    """How long ended tasks and events are kept, in seconds, and how many bytes database and bodies may take together."""

    tasks_s: float
    events_s: float
    max_bytes: int


class Retention:
    """By age; above ``max_bytes`` the oldest ended tasks go earlier."""

    def __init__(self, store: Store, blobs: BlobStore, keep: Keep, mine: Callable[[], bool] = lambda: True) -> None:
        """``mine``: whether it is for this server to do, one of several."""
        self._store, self._blobs, self._keep, self._mine = store, blobs, keep, mine
        self._swept_at = float("-inf")

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                if self._mine():
                    await self.run_once(await self._store.now())
            except JarvisError as error:
                log.warning("retention waits: %s", error)
            await asyncio.sleep(EVERY_S)

    async def run_once(self, now: float) -> int:
        """Remove what is due; the number of tasks removed."""
        removed = 0
        while gone := await self._store.task_delete_ended(now - self._keep.tasks_s, BATCH):
            removed += len(gone)
            await asyncio.sleep(PAUSE_S)
        while await self._store.workflow_delete_ended(now - self._keep.tasks_s, BATCH):  # noqa: ASYNC110 - as below
            await asyncio.sleep(PAUSE_S)
        while await self._store.kept_delete(now, BATCH):  # noqa: ASYNC110 - as below
            await asyncio.sleep(PAUSE_S)
        while await self._store.event_delete_before(now - self._keep.events_s, BATCH):  # noqa: ASYNC110 - a pause between batches
            await asyncio.sleep(PAUSE_S)
        if removed and now - self._swept_at >= SWEEP_EVERY_S:
            await self.sweep(now)
        await self._store.space_return()
        return removed + await self._make_room(now)

    async def _make_room(self, now: float) -> int:
        """Oldest first, until it fits or nothing that has ended is left."""
        removed = 0
        while (database := (await self._store.counts()).database_bytes) + await self._blobs.total_bytes() > (
            self._keep.max_bytes
        ):
            # Young bodies stay for now, so that removing the tasks that name them would make no room.
            before = now if database > self._keep.max_bytes else now - YOUNG_S
            gone = await self._store.task_delete_ended(before, BATCH)
            spared = await self._store.kept_delete(float("inf"), BATCH)
            await self._store.event_delete_before(now - YOUNG_S, BATCH)
            await self.sweep(now)
            await self._store.space_return()
            if not gone and not spared:
                log.warning("more than store.max_bytes is in use, and nothing is left that may be removed")
                break
            removed += len(gone)
            await asyncio.sleep(PAUSE_S)
        return removed

    async def sweep(self, now: float) -> int:
        """Remove bodies that nothing refers to; the bytes freed. What is submitted while this runs has young bodies."""
        before, after = now - YOUNG_S, 0
        kept = _Kept()
        while page := await self._store.blob_list_referenced(before, after, BATCH):
            for _, project, bodies in page:
                kept.add(project, bodies.digests, bodies.manifests)
            after = page[-1][0]
            await asyncio.sleep(0)
        await self._keep_for_workflows(kept)
        for schedule in await self._store.schedule_list():
            tasks = [] if schedule.task is None else [schedule.task]
            kept.add_tasks(
                schedule.project, tasks + ([] if schedule.workflow is None else _tasks_of(schedule.workflow))
            )
        for project, manifests in kept.manifests.items():
            kept.add(project, await pieces_of(self._blobs, project, manifests))
        self._swept_at = now
        return await self._blobs.sweep(before, kept.digests)

    async def _keep_for_workflows(self, kept: "_Kept") -> None:
        """Bodies of steps that are no tasks yet, also of workflows that ended before they came to them: they may be run again.
        And results of steps, which whatever runs again is given."""
        before: int | None = None
        while page := await self._store.workflow_list(WorkflowFilter(), before, BATCH):
            for workflow in page:
                kept.add_tasks(workflow.project, _tasks_of(workflow.spec))
                await self._keep_results(workflow, kept)
            before = page[-1].id
            await asyncio.sleep(0)

    async def _keep_results(self, workflow: Workflow, kept: "_Kept") -> None:
        after = ""
        while page := await self._store.step_list(workflow.id, after, BATCH):
            for step in page:
                detail = step.detail
                left = () if detail.artifacts is None else (detail.artifacts,)
                kept.add(workflow.project, filter(None, (detail.result_digest, *detail.part_digests, *left)), left)
            after = page[-1].path
            await asyncio.sleep(0)


class _Kept:
    """What is referred to, by project: digests, and those of them whose pieces are kept as well."""

    def __init__(self) -> None:
        self.digests: dict[str, set[str]] = {}
        self.manifests: dict[str, set[str]] = {}

    def add(self, project: str, digests: Iterable[str], manifests: Iterable[str] = ()) -> None:
        self.digests.setdefault(project, set()).update(digests)
        self.manifests.setdefault(project, set()).update(manifests)

    def add_tasks(self, project: str, tasks: Iterable[TaskSpec]) -> None:
        for task in tasks:
            self.add(project, task.bodies.values(), task.push)


def _tasks_of(spec: WorkflowSpec) -> list[TaskSpec]:
    return [step.task for step in walk(spec.block) if step.task is not None]
