"""The past as a workload: what was submitted when, what it asked for and how long it ran, for ``jarvis sim``."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from jarvis.api.routes.common import Context, Ctx, answer, limit_of
from jarvis.api.schemas.values import MAX_ID, instant, number
from jarvis.core.attempt import Attempt
from jarvis.core.ids import ElementKey
from jarvis.core.states import TERMINAL
from jarvis.core.task import Task
from jarvis.state.store import TaskFilter

router = APIRouter(tags=["cluster"])


@router.get("/history")
async def history(
    context: Ctx,
    submitted_after: Annotated[str, Query()],
    cursor: str = "",
    limit: str = "1000",
) -> Response:
    """What has ended of what was submitted since an instant, the newest task first; elements of arrays one by one."""
    principal = context.allow("see")
    now, most = context.services.clock.now(), limit_of(limit)
    where = TaskFilter(
        projects=principal.projects_seen, submitted_after=instant(submitted_after, "submitted_after", now)
    )
    before, dot, index = cursor.partition(".")
    before_id = number(before, "cursor") if before else None
    items: list[dict[str, Any]] = []
    if dot and before_id is not None:
        items = await _rest(context, where, before_id, number(index, "cursor"), most)
        if len(items) == most:
            return answer({"items": items, "next": f"{before}.{items[-1]['index']}"})
    tasks = await context.services.store.task_list(where, before_id, most)
    return await _page(context, tasks, items, most)


async def _rest(context: Context, where: TaskFilter, ident: int, after: int, most: int) -> list[dict[str, Any]]:
    """Of an array of which the page before had a part."""
    found = await context.services.store.task_list(where, min(ident + 1, MAX_ID), 1)
    return await _array(context, found[0], after, most) if found and found[0].id == ident else []


async def _page(context: Context, tasks: list[Task], items: list[dict[str, Any]], most: int) -> Response:
    ends = {task.id: task.ended_at for task in tasks}
    solos = await _solos(context, [task for task in tasks if task.spec.array is None and task.state in TERMINAL])
    for task in tasks:
        room = most - len(items)
        if room <= 0:
            return answer({"items": items, "next": str(task.id + 1)})
        if task.spec.array is not None:
            part = await _array(context, task, -1, room)
        else:
            part = [_row(task, None, own)] if (own := solos.get(task.id)) else []
        if part and task.spec.after:
            arrived = await _last_end(context, task, ends)
            part = [row | {"submitted_at": max(row["submitted_at"], arrived)} for row in part]
        items += part
        if task.spec.array is not None and len(part) == room:
            return answer({"items": items, "next": f"{task.id}.{part[-1]['index']}"})
    return answer({"items": items, "next": str(tasks[-1].id) if len(tasks) == most else None})


async def _solos(context: Context, tasks: list[Task]) -> dict[int, list[Attempt]]:
    """All attempts of each; most have one, and are asked for together."""
    store = context.services.store
    found: dict[int, list[Attempt]] = {}
    for last in await store.attempt_list_ended([task.id for task in tasks]) if tasks else ():
        found[last.task] = [last] if last.attempt == 1 else await store.attempt_list(ElementKey(last.task))
    return found


async def _array(context: Context, task: Task, after: int, most: int) -> list[dict[str, Any]]:
    store = context.services.store
    rows = await store.element_list(task.id, TERMINAL, after, most)
    return [_row(task, row.index, await store.attempt_list(row.key)) for row in rows]


async def _last_end(context: Context, task: Task, ends: dict[int, float | None]) -> float:
    """What waited for others came when the last of them had ended."""
    asked = [d.task for d in task.spec.after if d.task not in ends]
    if asked:
        ends |= {other.id: other.ended_at for other in await context.services.store.task_get_many(asked)}
    return max((ends.get(d.task) or 0.0 for d in task.spec.after), default=0.0)


def _row(task: Task, index: int | None, attempts: list[Attempt]) -> dict[str, Any]:
    """Seconds and instants in seconds since 1970, amounts as they are counted. ``ran_s``: all attempts together."""
    spec = task.spec
    ran = sum(map(_ran, attempts))
    return {
        "task": task.id, "index": index, "submitted_at": max(task.submitted_at, spec.begin or 0.0), "ran_s": ran,
        "limit_s": spec.time_limit, "resources": dict(spec.resources), "nodes": spec.nodes, "user": task.user,
        "project": task.project, "name": spec.name, "queue": spec.queue, "priority": spec.priority,
        "attempts": len(attempts),
    }  # fmt: skip


def _ran(attempt: Attempt) -> float:
    """As its node measured it, else as it was heard of."""
    if attempt.usage is not None:
        return attempt.usage.wall_s
    if attempt.started_at is None or attempt.ended_at is None:
        return 0.0
    return max(attempt.ended_at - attempt.started_at, 0.0)
