"""Tasks: submit, list, show, and act on them."""

import asyncio
import signal as signals
from contextlib import suppress
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from jarvis.api import waits
from jarvis.api.problems import Refusal
from jarvis.api.routes.common import Context, Ctx, answer, body_of, idempotency, limit_of, states_of, wait_ended
from jarvis.api.schemas.out import attempt_out, element_out, element_state, event_out, task_out
from jarvis.api.schemas.task_in import BatchIn, CancelIn, RetryTaskIn, SignalIn, Strict, TaskIn, schema_of
from jarvis.api.schemas.values import MAX_ID, duration, instant, number, word
from jarvis.api.submission import Submitter
from jarvis.core.command import Verb
from jarvis.core.errors import Conflict, InvalidValue, StoreUnavailable
from jarvis.core.ids import SOLO, ElementKey
from jarvis.core.states import TERMINAL, State
from jarvis.core.task import Element, Task
from jarvis.state.store import TaskFilter

router = APIRouter(tags=["tasks"])
Text = str | None
FEW = 16
"""Tasks about which the leader decides in less time than an answer takes."""
DECIDED_S = 0.002
"""How long the answer waits for that at most."""
EVENTS_MOST = 1000
"""Of a task's events, those that its history is made of."""


@router.post("/tasks", status_code=201, openapi_extra=schema_of(TaskIn))
async def submit(request: Request, context: Ctx) -> Response:
    """Submit one task; durable when answered."""
    principal = context.allow("submit", *_any_project(context))
    key = idempotency(request)
    new, accepted = await Submitter(context.services, principal).one(await request.body(), key)
    return await _submitted(context, accepted.ids[0], accepted.replayed, new.uuid)


def _any_project(context: Ctx) -> tuple[str]:
    """Whether it may submit at all, before its body is read; the body's project is checked later."""
    principal = context.principal
    own = principal.projects if principal is not None else ()
    return (own[0] if own else context.services.settings.default_project,)


async def _submitted(context: Ctx, ident: int, replayed: bool, uuid: str) -> Response:
    headers = {"Location": f"/api/v1/tasks/{ident}"}
    if replayed:
        headers["Idempotent-Replayed"] = "true"
        found = await context.services.store.task_get_many([ident])
        uuid = found[0].uuid if found else uuid
    return answer({"id": ident, "uuid": uuid, "state": "submitted"}, 200 if replayed else 201, headers)


@router.post("/tasks/batch", openapi_extra=schema_of(BatchIn))
async def submit_batch(request: Request, context: Ctx) -> Response:
    """Submit up to 10,000 tasks; each gets an id or a problem."""
    principal = context.allow("submit", *_any_project(context))
    key = idempotency(request)
    told = await Submitter(context.services, principal).batch(await request.body(), key)
    return answer(told, 422 if told["atomic"] and not told["accepted"] else 200)


async def _decided(context: Context, task: int) -> None:
    """What the leader of this server decides about it is written and sent first, undisturbed: the client waits for that anyway,
    and what it asks next is answered while the node is at work."""
    with context.hub.waiting(task) as waiter, suppress(TimeoutError):
        async with asyncio.timeout(DECIDED_S):
            await waiter.wait()
        await asyncio.sleep(0)  # the node has its message first


@router.post("/tasks/calls", include_in_schema=False)
async def submit_calls(request: Request, context: Ctx) -> Response:
    """Submit up to 10,000 calls of one function, as the SDK gathers them: msgpack both ways, the ids in order."""
    principal = context.allow("submit", *_any_project(context))
    accepted = await Submitter(context.services, principal).calls(await request.body(), idempotency(request))
    if not accepted.replayed:
        context.hub.fresh(accepted.ids)
    if len(accepted.ids) <= FEW and not (accepted.replayed or context.services.replica):
        await _decided(context, accepted.ids[-1])
    return Response(msgspec.msgpack.encode(list(accepted.ids)), media_type="application/msgpack")


@router.get("/tasks")
async def list_tasks(
    context: Ctx,
    *,
    state: Annotated[list[str], Query()] = [],  # noqa: B006  # FastAPI copies it
    project: Text = None,
    user: Text = None,
    queue: Text = None,
    name: Text = None,
    submitted_after: Text = None,
    submitted_before: Text = None,
    ended_after: Text = None,
    cursor: Text = None,
    limit: str = "100",
    reasons: bool = False,
) -> Response:
    """Newest first. ``state`` takes several; ``user=me`` is the asker; ``name`` may end in ``*``. ``reasons``: of what is queued,
    in a word why its like waited at the leader's last look."""
    principal = context.allow("see")
    now = context.services.clock.now()
    for field, value in (("project", project), ("user", user), ("queue", queue), ("name", name)):
        if value is not None:
            word(value, field)
    where = TaskFilter(
        states=states_of(state),
        project=project,
        projects=principal.projects_seen,
        user=principal.user if user == "me" else user,
        queue=queue,
        name=name,
        submitted_after=None if submitted_after is None else instant(submitted_after, "submitted_after", now),
        submitted_before=None if submitted_before is None else instant(submitted_before, "submitted_before", now),
        ended_after=None if ended_after is None else instant(ended_after, "ended_after", now),
    )
    most = limit_of(limit)
    before = None if cursor is None else number(cursor, "cursor", MAX_ID)
    tasks = await context.services.store.task_list(where, before, most)
    solos = await _solos(context, tasks)
    more = str(tasks[-1].id) if len(tasks) == most else None
    rows = [task_out(t, solos.get(t.id)) for t in tasks]
    if reasons:
        await _fill_reasons(context, rows)
    return answer({"items": rows, "next": more})


async def _fill_reasons(context: Ctx, rows: list[dict[str, Any]]) -> None:
    """What the leader does not know, or does not answer, stays empty."""
    queued = [row for row in rows if row["state"] is State.QUEUED and not row["reason"]]
    with suppress(Refusal, StoreUnavailable):
        words = await context.services.reasons([row["id"] for row in queued]) if queued else {}
        for row in queued:
            row["reason"] = words.get(str(row["id"]), "")


async def _solos(context: Ctx, tasks: list[Task]) -> dict[int, Element]:
    keys = [ElementKey(task.id) for task in tasks if task.spec.array is None]
    return {e.task: e for e in await context.services.store.element_get_many(keys)} if keys else {}


@router.get("/tasks/{ident}")
async def show(context: Ctx, ident: str, wait: Text = None) -> Response:
    """One task (``42``) or element (``42_7``); ``wait=60s`` answers when it has ended, or after that time."""
    if wait is not None:
        await wait_ended(context, ident, wait)
    task, key = await context.task(ident)
    if key.index != SOLO:
        return answer(element_out(task, await context.element(task, key), key.index))
    return answer(task_out(task, (await _solos(context, [task])).get(task.id)))


# ---------------------------------------------------------------- wishes


async def _wish(context: Ctx, ident: str, verb: Verb, args: dict[str, Any] | None = None) -> Response:
    """Store a command about a task; the leader acts on it. What can be seen to be in vain is refused at once."""
    task, key = await context.task(ident, "act")
    principal = context.allow("act", task.project, task.user)
    element = await context.element(task, key) if key.index != SOLO or task.spec.array is None else None
    one = key.index != SOLO or task.spec.array is None
    state = element_state(task, element) if one else task.state
    needed = _NEEDED.get(verb)
    if state in TERMINAL or (task.state in TERMINAL):
        raise Conflict(f"task {ident} has ended: {state}", "see 'jarvis retry' to run it again")
    if one and needed is not None and state not in needed:
        raise Conflict(f"task {ident} is {state}", f"{verb} is for what is {' or '.join(sorted(needed))}")
    index = None if key.index == SOLO else key.index
    return await context.wish(ident, verb, principal, args, task=task.id, index=index)


_NEEDED: dict[str, frozenset[State]] = {
    "release": frozenset({State.HELD, State.QUARANTINED}),
    "signal": frozenset({State.RUNNING, State.SUSPENDED}),
    "suspend": frozenset({State.RUNNING}),
    "resume": frozenset({State.SUSPENDED}),
}


@router.delete("/tasks/{ident}", status_code=202)
async def delete(context: Ctx, ident: str) -> Response:
    """The same as cancel: what has run stays in the history."""
    return await _wish(context, ident, "cancel")


@router.post("/tasks/{ident}/cancel", status_code=202, openapi_extra=schema_of(CancelIn))
async def cancel(request: Request, context: Ctx, ident: str) -> Response:
    """Soft signal, and kill after ``grace``; with ``unstarted`` only what has not begun, and whatever runs goes on."""
    body = await body_of(request, CancelIn)
    args: dict[str, Any] = {} if body.grace is None else {"grace": duration(body.grace, "grace")}
    if body.unstarted:
        args["unstarted"] = 1
    return await _wish(context, ident, "cancel", args)


def _plain(verb: Verb) -> None:
    """A route for a wish without arguments."""

    async def act(request: Request, context: Ctx, ident: str) -> Response:
        await body_of(request, Strict)
        return await _wish(context, ident, verb)

    act.__name__ = verb
    router.post(f"/tasks/{{ident}}/{verb}", status_code=202, summary=verb.capitalize())(act)


for _verb in ("hold", "release", "requeue", "suspend", "resume"):
    _plain(_verb)


@router.post("/tasks/{ident}/signal", status_code=202, openapi_extra=schema_of(SignalIn))
async def send_signal(request: Request, context: Ctx, ident: str) -> Response:
    """Send a signal, by name (``USR1``, ``SIGUSR1``) or number."""
    given = (await body_of(request, SignalIn)).signal
    try:
        known = signals.Signals(given) if isinstance(given, int) else signals.Signals["SIG" + given.removeprefix("SIG")]
    except (ValueError, KeyError):
        raise InvalidValue("signal", given, "a signal's name or number") from None
    return await _wish(context, ident, "signal", {"signum": int(known)})


@router.post("/tasks/{ident}/retry", status_code=201, openapi_extra=schema_of(RetryTaskIn))
async def retry(request: Request, context: Ctx, ident: str) -> Response:
    """Run an ended task again as a new one; of an array, the elements that failed."""
    await body_of(request, RetryTaskIn)
    key_header = idempotency(request)
    task, key = await context.task(ident, "act")
    principal = context.allow("submit", task.project)
    element = await context.element(task, key) if key.index != SOLO else None
    if key.index != SOLO and element_state(task, element) not in TERMINAL:
        raise Conflict(f"task {ident} is {element_state(task, element)}", "retry what has ended")
    new, accepted = await Submitter(context.services, principal).again(task, key.index, key_header)
    return await _submitted(context, accepted.ids[0], accepted.replayed, new.uuid)


# ---------------------------------------------------------------- below a task


@router.get("/tasks/{ident}/elements")
async def elements(
    context: Ctx,
    ident: str,
    state: Annotated[list[str], Query()] = [],  # noqa: B006
    cursor: str = "-1",
    limit: str = "100",
) -> Response:
    """Elements with a row of their own, by index; ``unnamed`` counts the rest, which are all in state ``base``."""
    task, _ = await context.task(ident)
    most = limit_of(limit)
    after = -1 if cursor == "-1" else number(cursor, "cursor", MAX_ID)
    if task.spec.array is None:
        solo = (await _solos(context, [task])).get(task.id)
        return answer({"items": [element_out(task, solo, SOLO)], "next": None, "base": task.state, "unnamed": 0})
    rows = await context.services.store.element_list(task.id, states_of(state), after, most)
    more = str(rows[-1].index) if len(rows) == most else None
    items = [element_out(task, e, e.index) for e in rows]
    return answer({"items": items, "next": more, "base": task.base, "unnamed": max(0, task.size - task.next_position)})


@router.get("/tasks/{ident}/attempts")
async def attempts(context: Ctx, ident: str) -> Response:
    """Every try of one element, oldest first."""
    _, key, _ = await context.one_element(ident)
    return answer({"items": [attempt_out(a) for a in await context.services.store.attempt_list(key)]})


@router.get("/tasks/{ident}/events")
async def events(context: Ctx, ident: str, after: str = "0", limit: str = "1000") -> Response:
    """What happened to it, in order; ``after`` is a sequence number or a cursor."""
    task, key = await context.task(ident)
    seq = number(after.rpartition(".")[2], "after")
    most = limit_of(limit)
    found = await context.services.store.event_list(seq, most, task.id)
    incarnation = context.services.incarnation()
    items = [event_out(e, incarnation) for e in found if key.index in (SOLO, e.index)]
    return answer({"items": items, "next": f"{incarnation}.{found[-1].seq}" if len(found) == most else None})


@router.get("/tasks/{ident}/result")
async def result(context: Ctx, ident: str, wait: Text = None) -> Response:
    """What a function returned or raised, pickled, as stored: the server never looks into it."""
    if wait is not None:
        await wait_ended(context, ident, wait)
    task, key, element = await context.one_element(ident)
    state = element_state(task, element)
    if state not in TERMINAL:
        raise Conflict(f"task {ident} has not ended: {state}", "ask with ?wait=60s")
    tries = await context.services.store.attempt_list(key)
    last = tries[-1] if tries else None
    data = last.result if last is not None else None
    if data is None and last is not None and last.result_digest is not None:
        size = await context.services.blobs.size(task.project, last.result_digest)
        if size > context.services.settings.blob_limit:
            raise Conflict(f"the result takes {size} bytes", f"read /blobs/{last.result_digest} in ranges")
        data = await context.services.blobs.get(task.project, last.result_digest)
    if data is None:
        raise Conflict(f"task {ident} has no result: {state}", "only functions have results")
    headers = {"X-Jarvis-State": state, "X-Jarvis-Cause": str(last.cause or "") if last is not None else ""}
    return Response(data, 200, headers, "application/octet-stream")


@router.get("/tasks/{ident}/why")
async def why(context: Ctx, ident: str, history: bool = False) -> Response:
    """Why it waits, from the leader's memory; or how it ended. ``history``: how that changed, as far as events are kept and the
    leader remembers."""
    task, key = await context.task(ident)
    row_key = key if key.index != SOLO or task.spec.array is None else ElementKey(task.id)
    element = await context.element(task, row_key)
    told = element_out(task, element, key.index)
    if task.spec.array is not None and key.index == SOLO:
        told = {"id": str(task.id), "state": task.state, "reason": task.reason, "counts": dict(task.counts)}
    known = await context.services.why(key) or {"summary": _how_it_is(told)}
    changes = known.pop("history", [])
    if history:
        events = await context.services.store.event_list(0, EVENTS_MOST, task.id)
        known["history"] = waits.history(events, changes, key)
    return answer(msgspec.to_builtins(told | known))


def _how_it_is(told: dict[str, Any]) -> str:
    """In words, of what the leader does not hold: it has ended, or it is so new that the leader has not taken it yet."""
    summary = f"task {told['id']} is {told['state']}" + (f" ({told['reason']})" if told.get("reason") else "")
    if told.get("attempt") and told.get("cause"):
        ended = {"exit_code": "exit code", "signal": "signal"}
        how = next((f" with {word} {told[name]}" for name, word in ended.items() if told.get(name) is not None), "")
        summary += f": attempt {told['attempt']} ended by {told['cause']}{how}"
    return summary
