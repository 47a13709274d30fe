"""Workflows: validate, submit, list, show, and act on them."""

import asyncio
import hashlib
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from jarvis.api.problems import Refusal
from jarvis.api.routes.common import Context, Ctx, answer, body_of, idempotency, limit_of, states_of
from jarvis.api.schemas.task_in import schema_of
from jarvis.api.schemas.values import MAX_ID, duration, number, word
from jarvis.api.schemas.workflow_in import DecideIn, RetryWorkflowIn, WorkflowIn
from jarvis.api.schemas.workflow_out import outline, plan_out, step_out, workflow_out
from jarvis.api.submission import uuid7s
from jarvis.api.workflow_documents import InvalidDocument, Rules, checked_draft, compiled, given_of, refuse
from jarvis.core.command import Args, Verb
from jarvis.core.errors import Conflict, InvalidValue, JarvisError, NotFound
from jarvis.core.permissions import ANY_PROJECT, Access, allowed
from jarvis.core.states import TERMINAL, State
from jarvis.core.task import TaskSpec
from jarvis.core.workflow import MAX_STEPS, NewWorkflow, Step, Workflow
from jarvis.dag import drawing
from jarvis.dag.building import build
from jarvis.dag.rerun import kept
from jarvis.dag.resolver import levels
from jarvis.scheduler.task_queue import class_of
from jarvis.state.store import IdempotencyKey
from jarvis.state.workflow_store import WorkflowFilter

_ENDS = frozenset(f"workflow.{state}" for state in TERMINAL)
router = APIRouter(tags=["workflows"])
Text = str | None
MAX_DOCUMENT = 8 * 1024 * 1024
SMALL = 64 * 1024
MAX_REUSED = 250_000
SHOWN_STEPS = 2 * MAX_STEPS
"""Rows that are read for an outline; beyond are elements of fan-outs, which have pages of their own."""


@router.post("/workflows", status_code=201, openapi_extra=schema_of(WorkflowIn))
async def submit_workflow(request: Request, context: Ctx) -> Response:
    """Submit a workflow, as JSON or YAML; durable when answered."""
    principal = context.allow("see")
    body, key = await _document(request), idempotency(request)
    given = given_of(body, request.headers.get("content-type", ""))
    own = [p for p in principal.projects if p != ANY_PROJECT]
    asked = given.data.get("project") if isinstance(given.data, dict) else None
    project = asked if isinstance(asked, str) else (own[0] if own else context.services.settings.default_project)
    context.allow("submit", word(project, "project", 100))
    rules = Rules(context.services.clock.now(), await _fits(context))
    # A large document takes a second, in which heartbeats must not wait.
    spec = await asyncio.to_thread(compiled, given, rules) if len(body) > SMALL else compiled(given, rules)
    new = NewWorkflow(uuid=uuid7s(context.services.clock.now(), 1)[0], project=project, user=principal.user, spec=spec)
    keyed = None
    if key is not None:
        hashed = hashlib.sha256(body).hexdigest()
        keyed = IdempotencyKey(principal.user, project, "POST /workflows", key, hashed)
    return await _submitted(context, new, keyed)


async def _submitted(context: Context, new: NewWorkflow, key: IdempotencyKey | None) -> Response:
    accepted = await context.services.state_manager.submit_workflow(new, key)
    ident = accepted.ids[0]
    headers = {"Location": f"/api/v1/workflows/{ident}"}
    if accepted.replayed:
        headers["Idempotent-Replayed"] = "true"
    return answer({"id": ident, "state": "submitted"}, 200 if accepted.replayed else 201, headers)


async def _document(request: Request) -> bytes:
    body = await request.body()
    if len(body) > MAX_DOCUMENT:
        raise Refusal(413, "too_large", f"the document takes {len(body)} bytes of at most {MAX_DOCUMENT}")
    return body


async def _fits(context: Context) -> Any:
    """Each shape of task is asked about once. A standby may not know who has just joined, so it looks first."""
    await context.services.look_for_nodes()
    known: dict[tuple[Any, ...], JarvisError | None] = {}

    def fits(spec: TaskSpec) -> JarvisError | None:
        shape = class_of(spec)
        if shape not in known:
            known[shape] = context.services.refused(spec)
        return known[shape]

    return fits


@router.post("/workflows/validate", openapi_extra=schema_of(WorkflowIn))
async def validate_workflow(request: Request, context: Ctx) -> Response:
    """What is wrong with a document, and what it means; nothing is stored."""
    context.allow("see")
    try:
        given = given_of(await _document(request), request.headers.get("content-type", ""))
        draft = checked_draft(given)
        spec, problems = build(draft, given.params, Rules(context.services.clock.now()))
        refuse(given, problems)
    except InvalidDocument as error:
        told = [{"path": path, "line": line, "message": message} for path, line, message in error.problems]
        return answer({"valid": False, "problems": told, "levels": [], "order": [], "steps": 0})
    assert spec is not None
    return answer(plan_out(spec.block, levels(spec.block.steps)) | {"steps": draft.steps})


@router.get("/workflows")
async def list_workflows(
    context: Ctx,
    *,
    state: Annotated[list[str], Query()] = [],  # noqa: B006  # FastAPI copies it
    project: Text = None,
    user: Text = None,
    name: Text = None,
    cursor: Text = None,
    limit: str = "100",
) -> Response:
    """Newest first. ``state`` takes several; ``user=me`` is the asker; ``name`` may end in ``*``."""
    principal = context.allow("see")
    for field, value in (("project", project), ("user", user), ("name", name)):
        if value is not None:
            word(value, field)
    most = limit_of(limit)
    where = WorkflowFilter(
        states_of(state), project, principal.projects_seen, principal.user if user == "me" else user, name
    )
    found = await context.services.store.workflow_list(
        where, None if cursor is None else number(cursor, "cursor", MAX_ID), most
    )
    more = str(found[-1].id) if len(found) == most else None
    return answer({"items": [workflow_out(w) for w in found], "next": more})


async def _workflow(context: Context, ident: str, access: Access = "read") -> Workflow:
    """The workflow that is meant. One that may not be read does not exist for the asker."""
    principal = context.allow("see")
    found = await context.services.store.workflow_get_many([number(ident, "id", MAX_ID)])
    if not found or not allowed(principal, "read", found[0].project):
        raise NotFound("workflow", ident)
    context.allow(access, found[0].project, found[0].user)
    return found[0]


@router.get("/workflows/{ident}")
async def show_workflow(context: Ctx, ident: str, wait: Text = None) -> Response:
    """One workflow; ``wait=60s`` answers when it has ended, or after that time."""
    workflow = await _workflow(context, ident)
    if wait is not None:
        await _wait_ended(context, workflow, wait)
        workflow = await _workflow(context, ident)
    return answer(workflow_out(workflow, await context.services.store.step_counts(workflow.id)))


async def _wait_ended(context: Context, workflow: Workflow, given: str) -> None:
    """Until it has ended, or for ``given`` (bounded): the caller reads the store again. Its steps wake nobody here, because
    each look reads all that it is made of."""
    seconds = min(duration(given, "wait"), context.services.settings.max_wait_s)
    with context.hub.waiting(workflow.id, _ENDS) as changed:
        try:
            async with asyncio.timeout(seconds):
                while True:
                    found = await context.services.store.workflow_get_many([workflow.id])
                    if not found or found[0].state in TERMINAL:
                        return
                    # An event may be lost; a look at the store now and then is what makes this sure.
                    try:
                        async with asyncio.timeout(5.0):
                            await changed.wait()
                    except TimeoutError:
                        pass
                    changed.clear()
        except TimeoutError:
            pass


@router.get("/workflows/{ident}/steps")
async def workflow_steps(context: Ctx, ident: str, cursor: str = "", limit: str = "100") -> Response:
    """Steps that have left ``waiting``, elements of fan-outs and iterations of loops among them, by path."""
    workflow = await _workflow(context, ident)
    most = limit_of(limit)
    rows = await context.services.store.step_list(workflow.id, cursor, most)
    more = rows[-1].path if len(rows) == most else None
    return answer({"items": [step_out(row) for row in rows], "next": more})


@router.get("/workflows/{ident}/graph")
async def workflow_graph(context: Ctx, ident: str, format: str = "json") -> Response:  # noqa: A002 - its name in the query
    """Every declared step with its state, inner ones within theirs. ``format``: json, mermaid, svg, or gantt for the time."""
    workflow = await _workflow(context, ident)
    rows = await rows_of(context, workflow.id)
    begun = workflow.started_at or workflow.submitted_at
    if format == "mermaid":
        return Response(drawing.mermaid(workflow.spec.block, rows), media_type="text/plain")
    if format == "svg":
        return Response(drawing.svg(workflow.spec.block, rows), media_type="image/svg+xml")
    if format == "gantt":
        now = workflow.ended_at or context.services.clock.now()
        return Response(drawing.gantt(rows, begun, now), media_type="image/svg+xml")
    if format != "json":
        raise InvalidValue("format", format, "json, mermaid, svg or gantt")
    over = workflow.state in TERMINAL
    chain = [
        {"path": link.path, "waited_s": round(link.waited, 3), "took_s": round(link.took, 3)}
        for link in drawing.critical_path(workflow.spec.block, rows, begun)
    ]
    told = {"id": workflow.id, "state": workflow.state, "steps": outline(workflow.spec.block, rows, over)}
    return answer(told | {"critical_path": chain})


async def rows_of(context: Context, workflow: int, most: int = SHOWN_STEPS) -> dict[str, Step]:
    """Rows by path, of so many steps as a document may declare, or of ``most``."""
    rows: dict[str, Step] = {}
    after = ""
    while page := await context.services.store.step_list(workflow, after, 2000):
        rows |= {row.path: row for row in page}
        after = page[-1].path
        if len(rows) >= most:
            break
    return rows


@router.post("/workflows/{ident}/retry", status_code=201, openapi_extra=schema_of(RetryWorkflowIn))
async def retry_workflow(request: Request, context: Ctx, ident: str) -> Response:
    """Run an ended workflow again as a new one, which takes over what went well."""
    body, key = await body_of(request, RetryWorkflowIn), idempotency(request)
    workflow = await _workflow(context, ident, "act")
    principal = context.allow("submit", workflow.project)
    if workflow.state not in TERMINAL:
        raise Conflict(f"workflow {ident} is {workflow.state}", "retry what has ended; see 'jarvis workflow cancel'")
    known = {step.id for step in workflow.spec.block.steps}
    for name in body.again:
        if name not in known:
            raise InvalidValue("again", name, f"a step of workflow {ident}")
    if workflow.state is State.SUCCEEDED and not body.again:
        raise Conflict(f"workflow {ident} has succeeded: nothing is left to do", "say with --from what is to run again")
    rows = await rows_of(context, workflow.id, MAX_REUSED)
    spec = msgspec.structs.replace(workflow.spec, reuse=False) if body.again else workflow.spec
    new = NewWorkflow(
        uuid=uuid7s(context.services.clock.now(), 1)[0], project=workflow.project, user=workflow.user,
        spec=spec, rerun_of=workflow.id, reused=kept(workflow, rows, body.again),
    )  # fmt: skip
    keyed = None
    if key is not None:
        hashed = hashlib.sha256(repr((workflow.id, body.again)).encode()).hexdigest()
        keyed = IdempotencyKey(principal.user, workflow.project, "POST /workflows/retry", key, hashed)
    return await _submitted(context, new, keyed)


# ---------------------------------------------------------------- wishes


async def _wish(context: Context, ident: str, verb: Verb) -> Response:
    workflow = await _workflow(context, ident, "act")
    principal = context.allow("act", workflow.project, workflow.user)
    if workflow.state in TERMINAL:
        raise Conflict(f"workflow {ident} has ended: {workflow.state}", "see 'jarvis workflow retry' to run it again")
    return await context.wish(ident, verb, principal, workflow=workflow.id)


@router.post("/workflows/{ident}/cancel", status_code=202)
async def cancel_workflow(context: Ctx, ident: str) -> Response:
    """End it: what runs is stopped, ``finally`` still runs. Said again, that is stopped, too."""
    return await _wish(context, ident, "workflow_cancel")


@router.post("/workflows/{ident}/pause", status_code=202)
async def pause_workflow(context: Ctx, ident: str) -> Response:
    """Begin no more tasks; what runs goes on."""
    return await _wish(context, ident, "workflow_pause")


@router.post("/workflows/{ident}/resume", status_code=202)
async def resume_workflow(context: Ctx, ident: str) -> Response:
    """Let a paused one go on."""
    return await _wish(context, ident, "workflow_resume")


@router.post("/workflows/{ident}/decide", status_code=202, openapi_extra=schema_of(DecideIn))
async def decide_step(request: Request, context: Ctx, ident: str) -> Response:
    """Approve a step that waits for it, or reject it. Whoever may read the workflow may be one of those asked."""
    body = await body_of(request, DecideIn)
    workflow = await _workflow(context, ident)
    step = await context.services.store.step_get(workflow.id, body.step)
    if step is None or step.state != "held":
        raise Conflict(f"step {body.step} of workflow {ident} does not wait for an approval")
    args: Args = {"step": body.step, "yes": int(body.approve)}
    principal = context.allow("submit", workflow.project)
    return await context.wish(str(workflow.id), "workflow_decide", principal, args, workflow=workflow.id)
