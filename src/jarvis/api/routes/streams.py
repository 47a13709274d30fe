"""Interactive streams of running tasks over web sockets: commands beside a task, its input, its terminal."""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from jarvis.api.auth import SUBPROTOCOL
from jarvis.api.problems import Refusal, problem_of
from jarvis.api.routes.common import Context
from jarvis.api.routes.logs import attempt_of, rank_in
from jarvis.api.schemas.out import element_state, encode
from jarvis.api.schemas.values import number
from jarvis.api.session import StreamHandle
from jarvis.bus.messages import StreamData, StreamOpen, StreamResize
from jarvis.core.errors import Conflict, InvalidValue, JarvisError
from jarvis.core.states import TERMINAL, State
from jarvis.utils.first_of import first_of

log = logging.getLogger("jarvis.streams")
router = APIRouter(tags=["streams"])
PIECE = 64 * 1024
WAIT_S = 60.0
CLOSE_S = 5.0
BEFORE = frozenset(State) - TERMINAL - {State.RUNNING, State.SUSPENDED}
ON_ITS_WAY = frozenset({State.SUBMITTED, State.ASSIGNED})


async def _socket_context(socket: WebSocket) -> Context:
    return Context(socket)


SocketCtx = Annotated[Context, Depends(_socket_context)]


async def accept(socket: WebSocket) -> None:
    """Browsers that offered our subprotocol get it back."""
    await socket.accept(SUBPROTOCOL if SUBPROTOCOL in socket.scope.get("subprotocols", ()) else None)


async def refuse(socket: WebSocket, error: JarvisError) -> None:
    """Told in a text frame, because browsers hide refused handshakes."""
    body = problem_of(error)
    await accept(socket)
    await socket.send_text(encode(body).decode())
    await socket.close(1008 if body["status"] < 500 else 1013, error.code)


async def both(socket: WebSocket, *ways: Coroutine[Any, Any, None]) -> None:
    """Until one of them has ended, which ends the other. A defect is logged, and the socket closed with the code that says so."""
    try:
        await first_of(*ways, quiet=(WebSocketDisconnect,))
    except Exception as error:
        if isinstance(error, RuntimeError) and socket.application_state is WebSocketState.DISCONNECTED:
            return  # the other way closed it first
        log.exception("the web socket of %s ended on a defect", socket.url.path)
        with contextlib.suppress(RuntimeError, WebSocketDisconnect, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await socket.close(1011, "the server made a mistake; its log has the details")


@router.websocket("/tasks/{ident}/exec")
async def exec_socket(socket: WebSocket, context: SocketCtx, ident: str) -> None:
    """Run a command beside a running task: ``?argv=sh&argv=-c&argv=ls``, ``&rows=24&columns=80`` for a terminal. What is on its way
    to a node is waited for up to a minute."""
    argv = tuple(socket.query_params.getlist("argv"))
    try:
        if not argv or len(argv) > 1000 or any("\x00" in part for part in argv):
            raise InvalidValue("argv", argv, "a program and its arguments")
        await _leaves(context, ident, ON_ITS_WAY)
        handle = await _open(socket, context, ident, "exec", argv)
    except JarvisError as error:
        await refuse(socket, error)
        return
    await _relay(socket, handle)


@router.websocket("/tasks/{ident}/attach")
async def attach_socket(socket: WebSocket, context: SocketCtx, ident: str) -> None:
    """The standard input (``?kind=stdin``) or terminal (``?kind=pty``) of a task, waiting up to a minute for it to run. A
    terminal's output comes from ``offset`` on, so that who comes back misses nothing."""
    kind = socket.query_params.get("kind", "stdin")
    try:
        if kind not in ("stdin", "pty"):
            raise InvalidValue("kind", kind, "stdin or pty")
        await _leaves(context, ident, BEFORE)
        handle = await _open(socket, context, ident, kind, ())
    except JarvisError as error:
        await refuse(socket, error)
        return
    await _relay(socket, handle)


async def _leaves(context: Context, ident: str, states: frozenset[State]) -> None:
    """Until it is in none of these states, or a minute is over: what comes then says which."""
    _, key, _ = await context.one_element(ident, "act")
    with context.hub.waiting(key.task) as changed, contextlib.suppress(TimeoutError):
        async with asyncio.timeout(WAIT_S):
            while True:
                task, _, element = await context.one_element(ident, "act")
                if element_state(task, element) not in states:
                    return
                await changed.wait()
                changed.clear()


async def _open(socket: WebSocket, context: Context, ident: str, kind: str, argv: tuple[str, ...]) -> StreamHandle:
    task, key, element = await context.one_element(ident, "act")
    state = element_state(task, element)
    found = await attempt_of(context, key, None, rank_in(task, socket.query_params.get("rank", "0")))
    if state not in (State.RUNNING, State.SUSPENDED) or found is None:
        raise Conflict(f"task {ident} is {state}, not running")
    size, given = None, socket.query_params
    if "rows" in given:
        size = (number(given["rows"], "rows", 10_000, 1), number(given.get("columns", "80"), "columns", 10_000, 1))
    offset = number(given.get("offset", "0"), "offset")
    request = StreamOpen(stream=0, number=found.number, kind=kind, argv=argv, pty=size, offset=offset)
    return await context.gateway.open_stream(found.node, request)


async def _relay(socket: WebSocket, handle: StreamHandle) -> None:
    """Binary frames are bytes either way; text frames from the user are ``{"end": true}`` or ``{"rows": …, "columns": …}``.

    Those to the user are ``{"taken": SIZE}`` for input that was passed on, and the last one. Who has no more than 256 KiB
    under way is always read, so that sending never stands in the way of receiving."""
    await accept(socket)
    try:
        await both(socket, _to_node(socket, handle), _to_user(socket, handle))
    finally:
        handle.close()


async def _to_user(socket: WebSocket, handle: StreamHandle) -> None:
    while True:
        piece = await handle.receive()
        if piece.data:
            await socket.send_bytes(piece.data)
            handle.took(piece.data)
        if piece.end:
            await socket.send_text(encode({"end": True, "error": piece.error, "code": piece.code}).decode())
            await socket.close(1000)
            return


async def _to_node(socket: WebSocket, handle: StreamHandle) -> None:
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1006))
        if message.get("bytes"):
            data = message["bytes"]
            for start in range(0, len(data), PIECE):
                await handle.send(data[start : start + PIECE])
            await socket.send_text(encode({"taken": len(data)}).decode())
            continue
        try:
            _control(handle, message.get("text") or "")
        except JarvisError as error:
            await socket.send_text(encode(problem_of(error)).decode())
            await socket.close(1008)
            return


def _control(handle: StreamHandle, text: str) -> None:
    try:
        given = msgspec.json.decode(text, type=dict[str, int | bool])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise Refusal(400, "bad_json", 'text frames are {"end": true} or {"rows": 24, "columns": 80}') from None
    if given.get("end"):
        handle.post(StreamData(stream=handle.stream, end=True))
    elif 0 < given.get("rows", 0) < 10_000 and 0 < given.get("columns", 0) < 10_000:
        handle.post(StreamResize(stream=handle.stream, rows=given["rows"], columns=given["columns"]))
