"""Schedules: what makes tasks and workflows at nominal times."""

import asyncio
import hashlib
import os
import secrets
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from jarvis.api.routes.common import Context, Ctx, answer, body_of, idempotency
from jarvis.api.schemas.schedule_in import BackfillIn, ScheduleIn, hook_path, schedule_out
from jarvis.api.schemas.task_in import schema_of
from jarvis.api.schemas.values import duration, instant, rfc3339, text, word
from jarvis.api.submission import refuse_templates
from jarvis.api.webhooks import DELIVERIES, SIGNATURE, checked_event, delivery_of, signature_of, signed_for
from jarvis.api.workflow_documents import Rules, compiled, given_of
from jarvis.core.command import NewCommand, Verb
from jarvis.core.errors import Conflict, InvalidValue, NotFound
from jarvis.core.permissions import ANY_PROJECT, Access, allowed
from jarvis.core.schedule import OnFile, OnWebhook, OnWorkflow, Rule, Schedule
from jarvis.dag.schedules import checked, circle, next_after
from jarvis.state.store import IdempotencyKey
from jarvis.utils.places import is_below

router = APIRouter(tags=["schedules"])


@router.post("/schedules", status_code=201, openapi_extra=schema_of(ScheduleIn))
async def add_schedule(request: Request, context: Ctx) -> Response:
    """Keep a schedule; its first run is at its first nominal time from now on."""
    principal = context.allow("see")
    data, key = await request.body(), idempotency(request)
    body = ScheduleIn.model_validate_json(data or b"{}")
    own = [p for p in principal.projects if p != ANY_PROJECT]
    project = body.project or (own[0] if own else context.services.settings.default_project)
    context.allow("submit", word(project, "project", 100))
    now = context.services.clock.now()
    rule = _rule(body, await _places(context, body))
    schedule = Schedule(
        id=0, name=word(body.name, "name", 100), project=project, user=principal.user, rule=rule, catch_up=body.catch_up,
        overlap=body.overlap, created_at=now, next_at=next_after(rule, now), **await _what(context, body, rule, now),
    )  # fmt: skip
    if found := circle(schedule, await context.services.store.schedule_list()):
        raise InvalidValue("on_workflow", " → ".join(found), "workflows that do not make each other run for ever")
    keyed = None
    if key is not None:
        keyed = IdempotencyKey(principal.user, project, "POST /schedules", key, hashlib.sha256(data).hexdigest())
    accepted = await context.services.state_manager.schedule(schedule, keyed)
    schedule.id = accepted.ids[0]
    if accepted.replayed:  # also the secret that was made then
        schedule = next((s for s in await context.services.store.schedule_list() if s.id == schedule.id), schedule)
    return _added(schedule, body, accepted.replayed)


def _added(schedule: Schedule, body: ScheduleIn, replayed: bool) -> Response:
    hook = None
    if body.on_webhook is not None and isinstance(schedule.rule.on, OnWebhook):
        made = schedule.rule.on.secret if body.on_webhook.secret is None else None
        hook = {"path": hook_path(schedule.id), "secret": made}
    headers = {"Location": f"/api/v1/schedules/{schedule.id}"} | ({"Idempotent-Replayed": "true"} if replayed else {})
    told = {"id": schedule.id, "next_at": rfc3339(schedule.next_at), "on_webhook": hook}
    return answer(told, 200 if replayed else 201, headers)


async def _places(context: Context, body: ScheduleIn) -> Sequence[str]:
    """Where files may be waited for: on the node that is named, or on the leader's machine."""
    if body.on_file is None or body.on_file.node is None:
        return context.services.settings.watch
    known = {node.name: node for node in await context.services.store.node_list()}
    if (node := known.get(body.on_file.node)) is None:
        there = f"the name of a node: {', '.join(sorted(known)[:20]) or 'there are none'}"
        raise InvalidValue("on_file.node", body.on_file.node, there)
    return node.watch


def _rule(body: ScheduleIn, places: Sequence[str]) -> Rule:
    every = None if body.every is None else duration(body.every, "every")
    on = _event(body, places)
    rule = checked(Rule(None if body.cron is None else text(body.cron, "cron"), body.zone, every, on=on))
    if on is not None and (extra := {"zone", "catch_up"} & body.model_fields_set):
        field = min(extra)
        raise InvalidValue(field, getattr(body, field), "left out: it is about times, and there are none")
    return rule


def _event(body: ScheduleIn, places: Sequence[str]) -> OnWorkflow | OnWebhook | OnFile | None:
    given = [name for name in ("on_workflow", "on_webhook", "on_file") if getattr(body, name) is not None]
    if len(given) > 1:
        raise InvalidValue(given[1], f"beside {given[0]}", "one event; add a schedule for each")
    if body.on_workflow is not None:
        return OnWorkflow(word(body.on_workflow.name, "on_workflow.name", 100), body.on_workflow.state)
    if body.on_webhook is not None:
        return OnWebhook(text(body.on_webhook.secret or secrets.token_urlsafe(32), "on_webhook.secret"))
    if body.on_file is None:
        return None
    return _files(text(body.on_file.path, "on_file.path"), body.on_file.node or "", places)


def _files(path: str, node: str, places: Sequence[str]) -> OnFile:
    """Only where an administrator lets schedules look: names of files are told, and a run may follow for each. Where links of
    a node lead is for that node to say, whenever it looks."""
    directory, _, pattern = path.rpartition("/")
    if not path.startswith("/") or not directory or not pattern or set(directory) & set("*?["):
        raise InvalidValue(
            "on_file.path", path, "an absolute path whose last part alone may be a pattern, like /in/*.csv"
        )
    if not (_is_named_below if node else is_below)(directory, places):
        setting = f"worker.watch of node {node}" if node else "server.watch"
        said = f"below {' or '.join(places)}" if places else f"below a directory of {setting}, where there is none yet"
        raise InvalidValue("on_file.path", path, said)
    return OnFile(directory, pattern, node)


def _is_named_below(directory: str, places: Sequence[str]) -> bool:
    plain = PurePosixPath(os.path.normpath(directory))
    return any(plain.is_relative_to(os.path.normpath(one)) for one in places)


async def _what(context: Context, body: ScheduleIn, rule: Rule, now: float) -> dict[str, Any]:
    """The task or the workflow, checked as a submission is."""
    if (body.task is None) == (body.workflow is None):
        raise InvalidValue("task", "both or neither", "a task or a workflow")
    rules = Rules(now, context.services.refused)
    if body.task is not None:
        task = rules.task(body.task)
        refuse_templates(task)
        return {"task": task}
    import msgspec

    envelope = msgspec.json.encode({"document": body.workflow, "params": body.params})
    on_event = rule.on is not None
    return {"workflow": await asyncio.to_thread(compiled, given_of(envelope, ""), rules, on_event)}


@router.get("/schedules")
async def list_schedules(context: Ctx) -> Response:
    """All that the asker may see."""
    principal, now = context.allow("see"), context.services.clock.now()
    found = await context.services.store.schedule_list()
    return answer({"items": [schedule_out(s, now) for s in found if allowed(principal, "read", s.project)]})


async def _schedule(context: Context, ident: str, access: Access = "read") -> Schedule:
    """By its id or its name. One that may not be read does not exist for the asker."""
    principal = context.allow("see")
    found = [s for s in await context.services.store.schedule_list() if ident in (str(s.id), s.name)]
    seen = [s for s in found if allowed(principal, "read", s.project)]
    if not seen:
        raise NotFound("schedule", ident)
    context.allow(access, seen[0].project, seen[0].user)
    return seen[0]


@router.get("/schedules/{ident}")
async def show_schedule(context: Ctx, ident: str) -> Response:
    """One schedule, by id or name."""
    return answer(schedule_out(await _schedule(context, ident), context.services.clock.now()))


async def _wish(context: Context, ident: str, verb: Verb, **args: float) -> Response:
    schedule = await _schedule(context, ident, "act")
    principal = context.allow("act", schedule.project, schedule.user)
    return await context.wish(str(schedule.id), verb, principal, {**args}, schedule=schedule.id)


@router.delete("/schedules/{ident}", status_code=202)
async def remove_schedule(context: Ctx, ident: str) -> Response:
    """It makes no more runs; those it made stay."""
    return await _wish(context, ident, "schedule_remove")


@router.post("/schedules/{ident}/pause", status_code=202)
async def pause_schedule(context: Ctx, ident: str) -> Response:
    """Make no runs until resumed."""
    return await _wish(context, ident, "schedule_pause")


@router.post("/schedules/{ident}/resume", status_code=202)
async def resume_schedule(context: Ctx, ident: str) -> Response:
    """Go on; what passed meanwhile is caught up with as the schedule says."""
    return await _wish(context, ident, "schedule_resume")


@router.post("/schedules/{ident}/trigger", status_code=202)
async def trigger_schedule(context: Ctx, ident: str) -> Response:
    """One run now, beside those of the rule."""
    return await _wish(context, ident, "schedule_trigger")


@router.post("/schedules/{ident}/backfill", status_code=202, openapi_extra=schema_of(BackfillIn))
async def backfill_schedule(request: Request, context: Ctx, ident: str) -> Response:
    """Runs for the nominal times of a span that has passed."""
    if (await _schedule(context, ident, "act")).rule.on is not None:
        raise Conflict(f"schedule {ident} has no nominal times", "see 'jarvis cron trigger' for a run by hand")
    body, now = await body_of(request, BackfillIn), context.services.clock.now()
    begin, end = instant(body.begin, "begin", now), instant(body.end, "end", now)
    if end <= begin:
        raise InvalidValue("end", body.end, "an instant after begin")
    return await _wish(context, ident, "schedule_backfill", begin=begin, end=end)


_HOOK = {
    "security": [],
    "parameters": [{"name": name, "in": "header", "schema": {"type": "string"}} for name in (SIGNATURE, *DELIVERIES)],
    "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}},
}


@router.post("/schedules/{ident}/hook", status_code=202, openapi_extra=_HOOK)
async def tell_schedule(request: Request, context: Ctx, ident: str) -> Response:
    """Tell a schedule that something happened. No token: ``X-Hub-Signature-256`` signs the body with the schedule's secret. The
    id of the delivery, in ``Idempotency-Key`` or ``X-GitHub-Delivery``, makes one run however often it is sent."""
    body, given = await request.body(), signature_of(request.headers)
    found = [s for s in await context.services.store.schedule_list() if ident in (str(s.id), s.name)]
    schedule = signed_for(found, body, given)
    delivery, event = delivery_of(request.headers), checked_event(body)
    command = NewCommand(verb="schedule_event", user=schedule.user, schedule=schedule.id, args={"event": event})
    key = IdempotencyKey(
        f"schedule:{schedule.id}", schedule.project, "POST /schedules/hook", delivery, hashlib.sha256(body).hexdigest()
    )
    accepted = await context.services.state_manager.command_once(command, key)
    headers = {"Idempotent-Replayed": "true"} if accepted.replayed else {}
    return answer({"id": str(schedule.id), "command": accepted.ids[0]}, 202, headers)
