"""Doors for the other servers of the cluster: what only this one has."""

import asyncio

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from jarvis.api.auth import authorise
from jarvis.api.problems import Refusal
from jarvis.api.routes.common import Ctx, answer
from jarvis.api.schemas.values import MAX_ID, number
from jarvis.api.session import STREAM_LIMIT, Session
from jarvis.bus.messages import (
    AgentFrame,
    FromAgent,
    StreamData,
    StreamOpen,
    StreamResize,
    StreamTaken,
    decode_from_server,
    encode,
)
from jarvis.core.ids import ElementKey
from jarvis.core.task import TaskSpec
from jarvis.utils.first_of import first_of

router = APIRouter(include_in_schema=False, prefix="/replica/v1")
leader = APIRouter(include_in_schema=False, prefix="/replica/v1")
"""What is asked of the one that leads, whatever else it does."""


_plan_decoder = msgspec.msgpack.Decoder(tuple[str, str, TaskSpec])


@leader.get("/why/{task}/{index}")
async def why(context: Ctx, task: int, index: int) -> Response:
    """What this server knows of a pending element while it leads."""
    authorise(context.principal, "peer")
    return answer(await context.services.why(ElementKey(task, index), asked_by_peer=True))


@leader.post("/plan")
async def plan(request: Request, context: Ctx) -> Response:
    """What this server would do with a task while it leads."""
    authorise(context.principal, "peer")
    project, user, spec = _plan_decoder.decode(await request.body())
    return answer(await context.services.plan(project, user, spec, asked_by_peer=True))


@leader.post("/recommend")
async def recommend(request: Request, context: Ctx) -> Response:
    """What this server would ask for in the place of a task while it leads."""
    authorise(context.principal, "peer")
    project, user, spec = _plan_decoder.decode(await request.body())
    return answer(await context.services.recommend(project, user, spec, asked_by_peer=True))


@leader.get("/licenses")
async def licenses(context: Ctx) -> Response:
    """Who has which licence while this server leads."""
    authorise(context.principal, "peer")
    return answer(await context.services.licenses(asked_by_peer=True))


@leader.get("/holds/{node}")
async def holds(context: Ctx, node: int) -> Response:
    """What a node holds of what tasks need, as it told this server while that leads."""
    authorise(context.principal, "peer")
    return answer(await context.services.holds(node, asked_by_peer=True))


@leader.get("/used")
async def used(context: Ctx) -> Response:
    """What of each node is in use while this server leads."""
    authorise(context.principal, "peer")
    return answer(await context.services.used(asked_by_peer=True))


@leader.get("/reasons/{tasks}")
async def reasons(context: Ctx, tasks: str) -> Response:
    """Why these tasks wait, in a word each, while this server leads."""
    authorise(context.principal, "peer")
    idents = [number(ident, "tasks", MAX_ID) for ident in tasks.split(",")]
    return answer(await context.services.reasons(idents, asked_by_peer=True))


@router.websocket("/stream/{node}")
async def stream(socket: WebSocket, node: int) -> None:
    """One stream to a node whose session is here, carried for another server."""
    authorise(socket.state.principal, "peer")
    session: Session | None = socket.app.state.gateway.session_of(node)
    if session is None:
        raise Refusal(503, "node_away", f"node {node} is not connected to this server")
    await socket.accept()
    first = decode_from_server(await socket.receive_bytes()).messages[0]
    if not isinstance(first, StreamOpen):
        await socket.close(1008, "a stream begins with StreamOpen")
        return
    carried = Carried(session, socket)
    try:
        session.post(msgspec.structs.replace(first, stream=carried.stream))
        await first_of(carried.to_peer(), carried.to_node(), quiet=(msgspec.MsgspecError, WebSocketDisconnect))
    finally:
        carried.close()


class Carried:
    """A stream of this server's session that another server reads and writes; its windows are kept over there."""

    def __init__(self, session: Session, socket: WebSocket) -> None:
        self._session, self._socket = session, socket
        self._arrived: asyncio.Queue[FromAgent] = asyncio.Queue()
        self.stream = session.register(self)

    def arrived(self, data: StreamData) -> None:
        if self._arrived.qsize() >= STREAM_LIMIT:
            self._session.post(StreamData(stream=self.stream, end=True, error="the other server is too slow"))
            data = StreamData(stream=self.stream, end=True, error="the node sends faster than its stream is read")
        self._arrived.put_nowait(data)
        if data.end:
            self._session.streams.pop(self.stream, None)

    def taken(self, size: int) -> None:
        self._arrived.put_nowait(StreamTaken(stream=self.stream, size=size))

    async def to_peer(self) -> None:
        while True:
            message = await self._arrived.get()
            await self._socket.send_bytes(encode(AgentFrame(0, 0, [message])))
            if isinstance(message, StreamData) and message.end:
                return

    async def to_node(self) -> None:
        while True:
            for message in decode_from_server(await self._socket.receive_bytes()).messages:
                if isinstance(message, StreamData | StreamTaken | StreamResize):
                    self._session.post(msgspec.structs.replace(message, stream=self.stream))

    def close(self) -> None:
        """Tell the node if nobody has."""
        if self._session.streams.pop(self.stream, None) is not None:
            self._session.post(StreamData(stream=self.stream, end=True, error="the viewer is gone"))
