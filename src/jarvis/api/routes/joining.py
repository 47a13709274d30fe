"""Doors for nodes that want in: the cluster's authority, a first certificate, another one, and where the servers are."""

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from jarvis.api.problems import Refusal
from jarvis.api.routes.common import Context, Ctx, answer, body_of
from jarvis.api.schemas.task_in import Strict

if TYPE_CHECKING:
    from jarvis.api.membership import Membership  # its library comes with an extra

router = APIRouter(include_in_schema=False, prefix="/agent/v1")
SEEN_S = 30.0


class JoinIn(Strict):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
    request: Annotated[str, Field(max_length=10_000)]


class RenewIn(Strict):
    request: Annotated[str, Field(max_length=10_000)]


def _membership(context: Context) -> "Membership":
    found = context.services.membership
    if found is None:
        raise Refusal(404, "not_listening", "this server takes no nodes", "start it with --listen ADDRESS")
    return found


@router.get("/authority")
async def authority(context: Ctx) -> Response:
    """The certificate of the cluster's authority, for everybody: its pin tells whether it is the right one."""
    membership = _membership(context)
    return answer(
        {"certificate": membership.authority.certificate.decode(), "pin": membership.pin, "url": membership.url}
    )


@router.post("/join", status_code=201)
async def join(request: Request, context: Ctx) -> Response:
    """A node's first certificate, for a join token."""
    context.allow("join")
    membership = _membership(context)
    body = await body_of(request, JoinIn)
    token = request.headers["authorization"].partition(" ")[2].strip()
    certificate = await membership.join(token, body.name, body.request.encode())
    return answer({"certificate": certificate.decode(), "servers": await _servers(context)}, 201)


@router.post("/certificate", status_code=201)
async def renew(request: Request, context: Ctx) -> Response:
    """Another certificate for a node that has one."""
    principal = context.allow("agent")
    shown = request.scope["state"].get("certificate")
    if shown is None:
        raise Refusal(403, "no_certificate", "only a node that shows its certificate gets another")
    body = await body_of(request, RenewIn)
    certificate = _membership(context).renew(principal, shown.member, body.request.encode())
    return answer({"certificate": certificate.decode(), "servers": await _servers(context)}, 201)


@router.get("/servers")
async def servers(context: Ctx) -> Response:
    """For nodes, so that they find another one when theirs is gone."""
    context.allow("agent")
    return answer({"servers": await _servers(context)})


async def _servers(context: Context) -> list[str]:
    """Where nodes may connect."""
    replicas = await context.services.store.replica_list(SEEN_S)
    urls = {replica.url for replica in replicas if replica.url.startswith("https")}
    return sorted(urls | {_membership(context).url})
