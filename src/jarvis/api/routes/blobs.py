"""Bodies that are too large for a spec: scripts, function code, arguments, lists of entries."""

from collections.abc import AsyncIterator

from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from jarvis.api.problems import Refusal
from jarvis.api.routes.common import Context, Ctx, answer, body_of
from jarvis.api.schemas.task_in import MissingIn, schema_of
from jarvis.api.schemas.values import digest as read_digest
from jarvis.api.schemas.values import word
from jarvis.core.permissions import ANY_PROJECT
from jarvis.state.blob_store import CHUNK

router = APIRouter(tags=["blobs"])


def _project(context: Context, given: str | None) -> str:
    """The project asked for, or the asker's own first."""
    if given is not None:
        return word(given, "project", 100)
    own = [p for p in (context.principal.projects if context.principal else ()) if p != ANY_PROJECT]
    return own[0] if own else context.services.settings.default_project


@router.put("/blobs", status_code=201)
async def put_blob(request: Request, context: Ctx, project: str | None = None) -> Response:
    """Stream a body into the project's blobs; its digest is its name."""
    into = _project(context, project)
    context.allow("submit", into)
    try:
        digest, size = await context.services.blobs.put_stream(
            into, _pieces(request), context.services.settings.blob_limit
        )
    except ClientDisconnect:
        raise Refusal(400, "incomplete", "the body broke off") from None
    return answer({"digest": digest, "size": size, "project": into}, 201)


@router.post("/blobs/missing", openapi_extra=schema_of(MissingIn))
async def missing(request: Request, context: Ctx) -> Response:
    """Which of these bodies the project lacks: the others need not be sent, and stay for an hour at least."""
    asked = await body_of(request, MissingIn)
    of = _project(context, asked.project)
    context.allow("submit", of)
    for i, name in enumerate(asked.digests):
        read_digest(name, f"digests.{i}")
    lacking = await context.services.state_manager.missing(of, asked.digests)
    return answer({"missing": lacking, "project": of})


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    async for piece in request.stream():
        for start in range(0, len(piece), CHUNK):
            yield piece[start : start + CHUNK]


@router.get("/blobs/{digest}")
async def get_blob(context: Ctx, digest: str, project: str | None = None) -> Response:
    """The bytes of a blob of one's project."""
    of = _project(context, project)
    context.allow("read", of)
    name = read_digest(digest, "digest")
    size = await context.services.blobs.size(of, name)
    headers = {"Content-Length": str(size), "ETag": f'"{name}"'}
    return StreamingResponse(_read(context, of, name, size), media_type="application/octet-stream", headers=headers)


async def _read(context: Context, project: str, digest: str, size: int) -> AsyncIterator[bytes]:
    offset = 0
    while offset < size and (data := await context.services.blobs.read(project, digest, offset, CHUNK)):
        offset += len(data)
        yield data
