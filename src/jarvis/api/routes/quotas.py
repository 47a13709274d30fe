"""Quotas, projects, use and queues: what owners may have, what they used, and the classes that work is sorted into."""

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from jarvis.api.routes.common import Context, Ctx, answer, body_of
from jarvis.api.schemas.quotas import QuotaIn
from jarvis.api.schemas.task_in import TaskIn, schema_of
from jarvis.api.schemas.values import rfc3339, word
from jarvis.api.submission import Submitter
from jarvis.core.command import NewCommand, Verb
from jarvis.core.errors import InvalidValue, NotFound
from jarvis.core.quota import Quota, Used
from jarvis.core.resources import BYTE_NAMES, format_amount, parse_resources
from jarvis.core.task import TaskSpec
from jarvis.scheduler.quotas import quota_args

router = APIRouter(tags=["quotas"])


def quota_out(quota: Quota) -> dict[str, Any]:
    return {
        "project": quota.project, "user": quota.user, "weight": quota.weight, "running": quota.running, "tasks": quota.tasks,
        "resources": {name: format_amount(name, amount) for name, amount in quota.resources.items()},
        "guaranteed": {name: format_amount(name, amount) for name, amount in quota.guaranteed.items()},
    }  # fmt: skip


def used_out(used: Used) -> dict[str, Any]:
    """Cpu-seconds, GPU-seconds and the like; byte-seconds for memory."""
    return {
        "project": used.project, "user": used.user, "at": rfc3339(used.at), "attempts": used.elements,
        "total": _seconds(used.total), "recent": _seconds(used.recent),
    }  # fmt: skip


def _seconds(amounts: dict[str, float]) -> dict[str, float]:
    return {name: round(amount if name in BYTE_NAMES else amount / 1000, 3) for name, amount in sorted(amounts.items())}


def _visible(context: Context, project: str) -> bool:
    seen = context.allow("see").projects_seen
    return seen is None or project in seen


async def _quotas(context: Context) -> list[Quota]:
    return [q for q in await context.services.store.quota_list() if _visible(context, q.project)]


@router.get("/quotas")
async def list_quotas(context: Ctx) -> Response:
    """All that are set, of projects and of users in them, as far as the asker may see their projects."""
    context.allow("see")
    return answer({"items": [quota_out(quota) for quota in await _quotas(context)], "next": None})


@router.get("/quotas/{project}")
async def show_quota(context: Ctx, project: str, user: str = "") -> Response:
    """Of a project, or with ``user`` of a user in it."""
    context.allow("see")
    return answer(quota_out(await _quota(context, project, user)))


async def _quota(context: Context, project: str, user: str) -> Quota:
    for quota in await _quotas(context):
        if (quota.project, quota.user) == (project, user):
            return quota
    raise NotFound("quota of", f"{user} in {project}" if user else project)


@router.put("/quotas/{project}", status_code=202, openapi_extra=schema_of(QuotaIn))
async def set_quota(request: Request, context: Ctx, project: str, user: str = "") -> Response:
    """As a whole: what is not named has no limit. What runs goes on."""
    context.allow("operate")
    body = await body_of(request, QuotaIn)
    if user and body.weight is not None:
        raise InvalidValue("weight", body.weight, "absent for a user: weights are of projects")
    if user and body.guaranteed:
        raise InvalidValue("guaranteed", body.guaranteed, "absent for a user: shares are guaranteed to projects")
    resources, guaranteed = parse_resources(body.resources), parse_resources(body.guaranteed, "guaranteed")
    for name, amount in guaranteed.items():
        if amount > resources.get(name, amount):
            raise InvalidValue(
                f"guaranteed.{name}", body.guaranteed[name], f"an amount within its limit of {body.resources[name]}"
            )
    quota = Quota(
        project=word(project, "project", 100), user=word(user, "user", 100) if user else "", weight=body.weight,
        running=body.running, tasks=body.tasks, resources=resources, guaranteed=guaranteed,
    )  # fmt: skip
    return await _wish(context, "quota_set", quota)


@router.delete("/quotas/{project}", status_code=202)
async def remove_quota(context: Ctx, project: str, user: str = "") -> Response:
    """No limits any more."""
    context.allow("operate")
    return await _wish(context, "quota_remove", await _quota(context, project, user))


async def _wish(context: Context, verb: Verb, quota: Quota) -> Response:
    principal = context.allow("operate")
    args: dict[str, str | int | float | None] = quota_args(quota) if verb == "quota_set" else {"user": quota.user}
    command = NewCommand(verb=verb, user=principal.user, admin=True, project=quota.project, args=args)
    stored = (await context.services.state_manager.command([command]))[0]
    return answer(quota_out(quota) | {"command": stored.id}, 202)


@router.get("/usage")
async def usage(context: Ctx, project: str = "", user: str = "") -> Response:
    """What owners used so far, at most half a minute old; ``recent`` is what still counts against them."""
    context.allow("see")
    found = [
        used_out(used)
        for used in await context.services.store.used_list()
        if _visible(context, used.project) and project in ("", used.project) and user in ("", used.user)
    ]
    return answer({"items": found, "next": None})


@router.get("/projects")
async def list_projects(context: Ctx) -> Response:
    """Every project that used anything or has a quota."""
    context.allow("see")
    quotas = {q.project: q for q in await _quotas(context) if not q.user}
    weights = context.services.weights() | {p: q.weight for p, q in quotas.items() if q.weight is not None}
    used = {
        u.project: u for u in await context.services.store.used_list() if not u.user and _visible(context, u.project)
    }
    items = [
        {
            "project": name,
            "weight": weights.get(name, 1.0),
            "attempts": used[name].elements if name in used else 0,
            "total": _seconds(used[name].total) if name in used else {},
            "quota": quota_out(quotas[name]) if name in quotas else None,
        }
        for name in sorted(quotas.keys() | used.keys())
    ]
    return answer({"items": items, "next": None})


@router.post("/plan", openapi_extra=schema_of(TaskIn))
async def plan(request: Request, context: Ctx) -> Response:
    """Whether a task like this would start now, wait, or never run; nothing is submitted."""
    principal = context.allow("see")
    submitter = Submitter(context.services, principal)
    project, spec = submitter.as_asked(await request.body())
    told = await context.services.plan(project, principal.user, spec)
    return answer(told | {"earliest": rfc3339(told["earliest"])})


@router.get("/recommend")
async def recommend(context: Ctx, task: str = "", name: str = "", project: str = "", user: str = "") -> Response:
    """What a task, or the next one of a name, should ask for by what those like it have used."""
    principal = context.allow("see")
    if bool(task) is bool(name):
        raise InvalidValue("task", task, "either a task or a name")
    if task:
        found, _ = await context.task(task)
        return answer(await context.services.recommend(found.project, found.user, found.spec))
    own = Submitter(context.services, principal).own_project(project)
    spec = TaskSpec(name=word(name, "name"))
    asked = word(user, "user", 100) if user else principal.user
    return answer(await context.services.recommend(own, asked, spec))


@router.get("/licenses")
async def list_licenses(context: Ctx) -> Response:
    """How many of each there are and are in use, and the tasks that have them, as far as the asker may see those."""
    seen = context.allow("see").projects_seen
    told = await context.services.licenses()
    if seen is not None:
        named = sorted({task for item in told["items"] for task in item["tasks"]})
        own = {t.id for t in await context.services.store.task_get_many(named) if t.project in seen}
        told = told | {"items": [i | {"tasks": [t for t in i["tasks"] if t in own]} for i in told["items"]]}
    return answer(told)


@router.get("/queues")
async def list_queues(context: Ctx) -> Response:
    """Those that the settings name: others are refused, unless none is named."""
    context.allow("see")
    return answer({"items": context.services.queues(), "next": None})
