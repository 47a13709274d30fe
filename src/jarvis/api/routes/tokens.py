"""Tokens: who may enter."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from jarvis.api.auth import JOIN_TTL_S, MEMBER, new_token
from jarvis.api.routes.common import Ctx, answer, body_of
from jarvis.api.schemas.task_in import TokenIn, schema_of
from jarvis.api.schemas.values import duration, rfc3339, text
from jarvis.core.errors import InvalidValue, NotFound
from jarvis.core.permissions import ANY_PROJECT
from jarvis.state.coordination import Token

router = APIRouter(tags=["tokens"])
IDENT = 12
"""So many digits of a token's hash name it."""


def token_out(token: Token) -> dict[str, object]:
    ends = None if token.expires_at is None else rfc3339(token.expires_at)
    return {
        "id": token.hash[:IDENT], "user": token.user, "role": token.role, "projects": list(token.projects),
        "label": token.label, "expires_at": ends,
    }  # fmt: skip


@router.get("/tokens")
async def list_tokens(context: Ctx) -> Response:
    """Every token that still lets somebody in; none of them itself."""
    context.allow("operate")
    tokens = await context.services.store.token_list()
    return answer({"items": [token_out(t) for t in tokens if not t.label.startswith(MEMBER)], "next": None})


@router.post("/tokens", status_code=201, openapi_extra=schema_of(TokenIn))
async def create(request: Request, context: Ctx) -> Response:
    """A new token, told this once. One that lets a node join does so once, and ends within the hour."""
    principal = context.allow("operate")
    body = await body_of(request, TokenIn)
    ttl = None if body.ttl is None else duration(body.ttl, "ttl")
    if body.role == "join" and ttl is not None and ttl > JOIN_TTL_S:
        raise InvalidValue("ttl", body.ttl, f"at most {JOIN_TTL_S:g} s for a join token")
    if body.role == "user" and not body.projects:
        raise InvalidValue("projects", [], "the projects that this user works in")
    if body.label.startswith(MEMBER):
        raise InvalidValue("label", body.label, f"one that does not begin with {MEMBER}, as those of nodes do")
    projects = (ANY_PROJECT,) if body.role == "admin" else body.projects
    token, stored = await new_token(
        context.services.store, user=body.user or principal.user, role=body.role, projects=projects,
        label=text(body.label, "label"), ttl_s=JOIN_TTL_S if ttl is None and body.role == "join" else ttl,
    )  # fmt: skip
    return answer(token_out(stored) | {"token": token}, 201)


@router.delete("/tokens/{ident}", status_code=200)
async def remove(context: Ctx, ident: str) -> Response:
    """Nobody gets in with it any more."""
    context.allow("operate")
    for token in await context.services.store.token_list():
        if token.hash[:IDENT] == ident and not token.label.startswith(MEMBER):
            await context.services.store.token_take(token.hash)
            return answer(token_out(token))
    raise NotFound("token", ident)
