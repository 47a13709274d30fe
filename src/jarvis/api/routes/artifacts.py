"""Files that attempts left: their list, and each by its digest, whole or in part."""

import re
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from jarvis.api.problems import Refusal
from jarvis.api.routes.common import Context, Ctx, answer
from jarvis.api.schemas.values import digest as read_digest
from jarvis.api.schemas.values import number
from jarvis.core.attempt import Attempt
from jarvis.core.errors import InvalidValue, NotFound
from jarvis.core.manifest import PIECE, File, Manifest, packs
from jarvis.core.task import Task
from jarvis.state.blob_store import CHUNK

router = APIRouter(tags=["artifacts"])
_RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{1,18})?|-(\d{1,18}))\Z")
Span = tuple[int, int]
"""First byte, and the one after the last."""


@router.get("/tasks/{ident}/artifacts")
async def artifacts(context: Ctx, ident: str, attempt: str | None = None) -> Response:
    """Files that the newest attempt left, or the one that is asked for."""
    task, found = await _attempt(context, ident, attempt)
    manifest = await _manifest(context, task, found) if found is not None else Manifest()
    items = [_item(file) for file in manifest.files]
    return answer({
        "attempt": None if found is None else found.attempt, "items": items, "size": manifest.size,
        "left_out": list(manifest.left_out),
    })  # fmt: skip


def _item(file: File) -> dict[str, Any]:
    shared = file.within is not None
    return {
        "path": file.path, "size": file.size, "digest": file.digest, "executable": file.executable,
        "pack": file.pieces[0] if shared else None, "offset": file.within,
    }  # fmt: skip


@router.get("/tasks/{ident}/artifacts/{digest}")
async def artifact(request: Request, context: Ctx, ident: str, digest: str, attempt: str | None = None) -> Response:
    """The bytes of one of them, or of a pack that several small ones lie in; ``Range`` asks for a part, so that a broken transfer
    goes on."""
    task, found = await _attempt(context, ident, attempt)
    name = read_digest(digest, "digest")
    manifest = await _manifest(context, task, found) if found is not None else Manifest()
    file = next((file for file in manifest.files if file.digest == name), None)
    if file is None and name in packs(manifest.files):
        file = File("a pack", await context.services.blobs.size(task.project, name), name, (name,), within=0)
    if file is None:
        raise NotFound("artifact", f"{digest} of task {ident}")
    span = _span(request.headers.get("range"), file.size)
    start, end = span or (0, file.size)
    if start < end:
        await context.services.blobs.size(task.project, _place(file, start)[0])
    headers = {"Content-Length": str(end - start), "ETag": f'"{name}"', "Accept-Ranges": "bytes"}
    if span is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.size}"
    content = _bytes(context, task.project, file, start, end)
    status = 200 if span is None else 206
    return StreamingResponse(content, status, media_type="application/octet-stream", headers=headers)


async def _attempt(context: Context, ident: str, wanted: str | None) -> tuple[Task, Attempt | None]:
    """The attempt whose files are meant: the newest that left any, where none is named."""
    task, key, _ = await context.one_element(ident)
    tries = await context.services.store.attempt_list(key)
    if wanted is None:
        return task, next((found for found in reversed(tries) if found.artifacts is not None), None)
    which = number(wanted, "attempt")
    for found in tries:
        if found.attempt == which:
            return task, found if found.artifacts is not None else None
    raise NotFound("attempt", f"{ident} #{which}")


async def _manifest(context: Context, task: Task, found: Attempt) -> Manifest:
    assert found.artifacts is not None
    try:
        return await context.services.manifests.get(task.project, found.artifacts)
    except InvalidValue as error:
        raise Refusal(500, "damaged", f"the list of the artifacts of task {task.id} is damaged: {error}") from None


def _span(header: str | None, size: int) -> Span | None:
    """RFC 9110, section 14: what is no range of bytes, or several of them, is answered with the whole."""
    match = _RANGE.match(header or "")
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        start, end = max(0, size - int(suffix)), size
    else:
        start, end = int(first), size if last is None else min(int(last) + 1, size)
    if start >= end:
        raise Refusal(416, "range", f"the file has {size} bytes", "ask for a range within it")
    return start, end


def _place(file: File, at: int) -> tuple[str, int]:
    """The piece that holds a byte, and where in it."""
    return (file.pieces[0], file.within + at) if file.within is not None else (file.pieces[at // PIECE], at % PIECE)


async def _bytes(context: Context, project: str, file: File, start: int, end: int) -> AsyncIterator[bytes]:
    """From the pieces that hold them, a little at a time."""
    at = start
    while at < end:
        piece, offset = _place(file, at)
        data = await context.services.blobs.read(project, piece, offset, min(CHUNK, end - at, PIECE - offset))
        if not data:
            raise NotFound("blob", f"{piece}: a piece of {file.path} is too short")
        at += len(data)
        yield data
