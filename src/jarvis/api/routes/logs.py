"""Output of tasks: what has ended from the store, what runs from its node."""

import asyncio
from collections.abc import AsyncIterator
from typing import Literal

import msgspec
import zstandard
from fastapi import APIRouter
from starlette.responses import Response, StreamingResponse

from jarvis.api.routes.common import Context, Ctx
from jarvis.api.schemas.out import element_state
from jarvis.api.schemas.values import number
from jarvis.api.session import StreamHandle
from jarvis.bus.messages import StreamOpen
from jarvis.core.attempt import Attempt, Output
from jarvis.core.errors import Conflict, NotFound
from jarvis.core.ids import ElementKey
from jarvis.core.states import ON_NODE, TERMINAL, State
from jarvis.core.task import Task

router = APIRouter(tags=["logs"])
CHUNK_MAX = 64 * 1024 * 1024
"""A chunk that claims to be larger when unpacked was not made by an agent."""
Stream = Literal["stdout", "stderr"]


@router.get("/tasks/{ident}/logs")
async def logs(
    context: Ctx,
    ident: str,
    *,
    stream: Stream = "stdout",
    attempt: str | None = None,
    rank: str = "0",
    offset: str = "0",
    tail: str | None = None,
    follow: bool = False,
) -> Response:
    """Raw bytes of one output stream. ``tail``: its last bytes; ``follow=1``: go on until the attempt, of a task on several nodes
    the ``rank``, has ended."""
    task, key, element = await context.one_element(ident)
    start = number(offset, "offset")
    last = None if tail is None else number(tail, "tail")
    wanted = None if attempt is None else number(attempt, "attempt")
    at = rank_in(task, rank)
    if follow and wanted is None and element_state(task, element) not in ON_NODE | TERMINAL:
        return _stream(_when_started(context, key, stream, at))
    found = await attempt_of(context, key, wanted, at)
    if found is None:
        if wanted is not None:
            raise NotFound("attempt", f"{ident} #{wanted}")
        return _stream(_nothing())
    return await _of_attempt(context, task, found, at, stream=stream, start=start, last=last, follow=follow)


def rank_in(task: Task, given: str) -> int:
    """The rank that is asked for, if the task has it."""
    rank = number(given, "rank")
    if rank >= task.spec.nodes:
        raise NotFound("rank", f"{rank} of task {task.id}, which has {task.spec.nodes}")
    return rank


async def attempt_of(context: Context, key: ElementKey, wanted: int | None, rank: int = 0) -> Attempt | None:
    """The last attempt, or the one that is wanted; of a gang as that rank sees it, with its node, number, outputs and end."""
    tries = await context.services.store.attempt_list(key)
    if wanted is not None:
        tries = [a for a in tries if a.attempt == wanted]
    found = tries[-1] if tries else None
    if found is None or not found.ranks:
        return found
    at = found.ranks[rank]
    return msgspec.structs.replace(
        found,
        node=at.node,
        number=at.number,
        stdout=at.stdout,
        stderr=at.stderr,
        ended_at=at.ended_at or found.ended_at,
    )


async def _of_attempt(
    context: Context,
    task: Task,
    found: Attempt,
    rank: int,
    *,
    stream: Stream,
    start: int,
    last: int | None,
    follow: bool,
) -> Response:
    if found.ended_at is None and found.state in ON_NODE:
        if found.state is State.ASSIGNED and not follow:
            return _stream(_nothing())
        request = StreamOpen(
            stream=0, number=found.number, kind="tail", output=stream, offset=-last if last else start, follow=follow
        )
        live = _from_node(await context.gateway.open_stream(found.node, request))
        if follow and not last:
            return _stream(_to_the_end(context, task, found, rank, live, stream=stream, start=start))
        return _stream(live)
    output = found.stdout if stream == "stdout" else found.stderr
    if output is None:
        return _stream(_nothing())
    if last is not None:
        start = max(0, output.size - last)
    if output.path is not None and output.inline is None and not output.chunks and output.size:
        hint = f"read {output.path} on node {found.node}"
        raise Conflict(f"{stream} went to a file of the task's own choice", hint)
    return _stream(_stored(context, task.project, output, start))


def _stream(chunks: AsyncIterator[bytes]) -> StreamingResponse:
    return StreamingResponse(chunks, media_type="application/octet-stream", headers={"Cache-Control": "no-store"})


async def _nothing() -> AsyncIterator[bytes]:
    yield b""


async def _stored(context: Context, project: str, output: Output, start: int) -> AsyncIterator[bytes]:
    """Inline bytes first, then chunks by their offset; chunks before ``start`` are not even read."""
    if output.inline is not None:
        yield output.inline[start:]
        return
    if not output.chunks:
        return
    ends = [offset for offset, _ in output.chunks[1:]] + [output.size]
    for (offset, digest), end in zip(output.chunks, ends, strict=True):
        if end > start:
            packed = await context.services.blobs.get(project, digest)
            data = await asyncio.to_thread(_unpack, packed)
            yield data[max(0, start - offset) :]


def _unpack(packed: bytes) -> bytes:
    """Frames follow each other; what does not unpack is shown as missing and ends nothing."""
    try:
        reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(packed, read_across_frames=True)
        return reader.read(CHUNK_MAX)
    except zstandard.ZstdError:
        return b"\n[jarvis: a piece of this output is damaged]\n"


async def _from_node(handle: StreamHandle) -> AsyncIterator[bytes]:
    """Bytes as the node sends them; leaving early tells the node."""
    try:
        while True:
            piece = await handle.receive()
            if piece.data:
                yield piece.data
                handle.took(piece.data)
            if piece.error:
                yield f"\n[jarvis: {piece.error}]\n".encode()
            if piece.end:
                return
    finally:
        handle.close()


async def _to_the_end(
    context: Context, task: Task, found: Attempt, rank: int, live: AsyncIterator[bytes], *, stream: Stream, start: int
) -> AsyncIterator[bytes]:
    """What the node sends, then what it could not send any more: an end that is recorded has all of it."""
    sent = start
    async for piece in live:
        sent += len(piece)
        yield piece
    key = ElementKey(found.task, found.index)
    with context.hub.waiting(key.task) as changed:
        while True:
            ended = await attempt_of(context, key, found.attempt, rank)
            if ended is None or ended.ended_at is not None:
                break
            try:
                async with asyncio.timeout(5.0):
                    await changed.wait()
            except TimeoutError:
                pass
            changed.clear()
    output = ended and (ended.stdout if stream == "stdout" else ended.stderr)
    if output and output.size > sent:
        async for piece in _stored(context, task.project, output, sent):
            yield piece


async def _when_started(context: Context, key: ElementKey, stream: Stream, rank: int) -> AsyncIterator[bytes]:
    """Wait until it runs or has ended, then give its output; ends with the connection."""
    ident = str(key)
    with context.hub.waiting(key.task) as changed:
        while True:
            task, _, element = await context.one_element(ident)
            if element_state(task, element) in (ON_NODE - {State.ASSIGNED}) | TERMINAL:
                break
            try:
                async with asyncio.timeout(5.0):
                    await changed.wait()
            except TimeoutError:
                pass
            changed.clear()
    found = await attempt_of(context, key, None, rank)
    if found is None:
        return
    response = await _of_attempt(context, task, found, rank, stream=stream, start=0, last=None, follow=True)
    assert isinstance(response, StreamingResponse)
    async for piece in response.body_iterator:
        yield piece if isinstance(piece, bytes) else bytes(str(piece), "utf-8")
