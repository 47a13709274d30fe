"""Nodes: list, show, and take them out of and back into service."""

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from jarvis.api.problems import Refusal
from jarvis.api.routes.common import Ctx, answer, body_of
from jarvis.api.schemas.out import node_out
from jarvis.api.schemas.task_in import DrainIn, RemoveIn, Strict, schema_of
from jarvis.api.schemas.values import duration, rfc3339, text
from jarvis.core.command import NewCommand, Verb
from jarvis.core.errors import NotFound, StoreUnavailable
from jarvis.core.holdings import shown
from jarvis.core.node import Node
from jarvis.core.resources import format_amount

router = APIRouter(tags=["nodes"])


@router.get("/nodes")
async def list_nodes(context: Ctx, used: bool = False) -> Response:
    """Every registered node; with ``used`` also what of each is in use, null where the leader does not answer."""
    context.allow("see")
    nodes, closed = await context.services.store.node_list(), await _closed(context)
    taken = await _used(context) if used else {}
    shown = [
        node_out(context.gateway.refreshed(n), closed.get(n.name, "")) | {"used": taken.get(str(n.id))} for n in nodes
    ]
    return answer({"items": shown, "next": None})


async def _used(context: Ctx) -> dict[str, dict[str, Any]]:
    try:
        told = await context.services.used()
    except (Refusal, StoreUnavailable):
        return {}
    return {
        node: {name: format_amount(name, amount) for name, amount in amounts.items()} for node, amounts in told.items()
    }


async def _closed(context: Ctx) -> dict[str, str]:
    """Node → until when it is under maintenance, and why."""
    now = context.services.clock.now()
    return {
        name: f"until {rfc3339(b.end)}" + (f" ({b.reason})" if b.reason else "")
        for b in await context.services.store.booking_list()
        if b.kind == "maintenance" and b.begin <= now < b.end
        for name in b.nodes
    }


async def _node(context: Ctx, ident: str) -> Node:
    """By id, or by name."""
    for node in await context.services.store.node_list():
        if ident in (str(node.id), node.name):
            return node
    raise NotFound("node", ident)


@router.get("/nodes/{ident}")
async def show_node(context: Ctx, ident: str) -> Response:
    """One node, by id or name; ``used``: what of it is in use, and ``holds``: what it holds of what tasks need, null where the
    leader does not answer."""
    context.allow("see")
    node, closed = await _node(context, ident), await _closed(context)
    told = node_out(context.gateway.refreshed(node), closed.get(node.name, ""))
    return answer(told | {"used": (await _used(context)).get(str(node.id)), "holds": await _holds(context, node.id)})


async def _holds(context: Ctx, node: int) -> list[dict[str, Any]] | None:
    try:
        known = (await context.services.holds(node))["holds"]
    except (Refusal, StoreUnavailable):
        return None
    return [{"what": shown(name), "size": size} for name, size in known.items()]


async def _wish(context: Ctx, ident: str, verb: Verb, args: dict[str, Any] | None = None) -> Response:
    principal = context.allow("operate")
    node = await _node(context, ident)
    command = NewCommand(verb=verb, user=principal.user, admin=True, node=node.id, args=args or {})
    stored = (await context.services.state_manager.command([command]))[0]
    return answer({"id": node.id, "name": node.name, "verb": verb, "command": stored.id}, 202)


@router.post("/nodes/{ident}/drain", status_code=202, openapi_extra=schema_of(DrainIn))
async def drain(request: Request, context: Ctx, ident: str) -> Response:
    """No new work; what runs may finish, until ``deadline`` (a duration) if there is one."""
    context.allow("operate")
    body = await body_of(request, DrainIn)
    args: dict[str, Any] = {"reason": text(body.reason, "reason")}
    if body.deadline is not None:
        args["deadline_s"] = duration(body.deadline, "deadline")
    return await _wish(context, ident, "node_drain", args)


@router.post("/nodes/{ident}/cordon", status_code=202)
async def cordon(request: Request, context: Ctx, ident: str) -> Response:
    """No new work; what is there stays."""
    await body_of(request, Strict)
    return await _wish(context, ident, "node_cordon")


@router.post("/nodes/{ident}/uncordon", status_code=202)
async def uncordon(request: Request, context: Ctx, ident: str) -> Response:
    """Undo cordon."""
    await body_of(request, Strict)
    return await _wish(context, ident, "node_uncordon")


@router.post("/nodes/{ident}/resume", status_code=202)
async def resume(request: Request, context: Ctx, ident: str) -> Response:
    """Undo drain and cordon."""
    await body_of(request, Strict)
    return await _wish(context, ident, "node_resume")


@router.post("/nodes/{ident}/remove", status_code=202, openapi_extra=schema_of(RemoveIn))
async def remove(request: Request, context: Ctx, ident: str) -> Response:
    """Out of the cluster: its certificate is worth nothing any more, its session ends, its row goes."""
    context.allow("operate")
    body = await body_of(request, RemoveIn)
    node = await _node(context, ident)
    membership = context.services.membership
    expelled = await membership.expel(node.name) if membership is not None else False
    return await _wish(context, ident, "node_remove", {"force": body.force, "expelled": expelled})
