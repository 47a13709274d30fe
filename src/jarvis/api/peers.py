"""The other servers of a cluster, asked for what only they have: the leader's memory, a node's session."""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

import httpx2 as httpx
import msgspec
import websockets
from websockets.asyncio.client import ClientConnection, connect

from jarvis.api.problems import Refusal
from jarvis.api.session import StreamHandle
from jarvis.bus.messages import (
    MAX_FRAME,
    ServerFrame,
    StreamData,
    StreamOpen,
    StreamTaken,
    ToAgent,
    decode_from_agent,
    encode,
)
from jarvis.core.ids import ElementKey
from jarvis.core.task import TaskSpec
from jarvis.state.store import Store
from jarvis.utils.first_of import first_of

ASK_S = 5.0
SEEN_S = 30.0
"""A server not seen for so long is not asked."""
PATH = "/replica/v1"
CONNECTION_ENDS = (OSError, msgspec.MsgspecError, websockets.WebSocketException)


def unreachable(name: str) -> Refusal:
    """The server that would know does not answer."""
    return Refusal(503, "replica_away", f"server {name or '(no leader)'} does not answer", "try again in a few seconds")


def _nowhere(name: str) -> str | None:
    return None


class Peers:
    """``token`` is what all servers of the cluster share; ``tls`` verifies them by the cluster's own authority; ``near`` tells
    where a server on this machine is reached directly."""

    def __init__(
        self, store: Store, token: str, tls: ssl.SSLContext | None = None, near: Callable[[str], str | None] = _nowhere
    ) -> None:
        self._store, self._tls, self._near = store, tls, near
        self._headers = {"Authorization": f"Bearer {token}"}

    async def _url(self, name: str) -> str:
        """Of a server that was seen lately; raises when there is none."""
        if (here := self._near(name)) is not None:
            return here + PATH
        for replica in await self._store.replica_list(SEEN_S):
            if replica.name == name:
                return replica.url.rstrip("/") + PATH
        raise unreachable(name)

    async def why(self, leader: str, key: ElementKey) -> dict[str, Any] | None:
        """What the leader knows of a pending element."""
        told: dict[str, Any] | None = await self.ask(leader, f"why/{key.task}/{key.index}")
        return told

    async def ask(self, leader: str, door: str) -> Any:
        """What the leader answers at a door that takes no body."""
        url = f"{await self._url(leader)}/{door}"
        try:
            async with httpx.AsyncClient(headers=self._headers, timeout=ASK_S, verify=self._tls or True) as client:
                response = await client.get(url)
            if response.status_code != 200:
                raise unreachable(leader)
            return response.json()
        except (httpx.HTTPError, ValueError):
            raise unreachable(leader) from None

    async def plan(
        self, leader: str, project: str, user: str, spec: TaskSpec, door: str = "plan"
    ) -> dict[str, Any]:  # fmt: skip
        """What the leader would do with a task that nobody submitted, or would ask for in its place (``recommend``)."""
        body = msgspec.msgpack.encode((project, user, spec))
        try:
            async with httpx.AsyncClient(headers=self._headers, timeout=ASK_S, verify=self._tls or True) as client:
                response = await client.post(f"{await self._url(leader)}/{door}", content=body)
            if response.status_code != 200:
                raise unreachable(leader)
            told: dict[str, Any] = response.json()
        except (httpx.HTTPError, ValueError):
            raise unreachable(leader) from None
        return told

    async def open_stream(self, node: int, request: StreamOpen) -> StreamHandle | None:
        """A stream to a node whose session another server holds; None when no server does."""
        name = (await self._store.node_replicas()).get(node)
        if name is None:
            return None
        url = await self._url(name)
        try:
            async with asyncio.timeout(ASK_S):
                socket = await connect(
                    f"ws{url.removeprefix('http')}/stream/{node}", additional_headers=self._headers, ssl=self._tls,
                    compression=None, max_size=MAX_FRAME, proxy=None,
                )  # fmt: skip
        except (OSError, TimeoutError, websockets.WebSocketException):
            raise unreachable(name) from None
        relay = Relay(socket)
        handle = StreamHandle(relay, request.stream)
        relay.begin(handle, request)
        return handle


class Relay:
    """Stands for the session of a node that is held elsewhere, for one stream."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._out: asyncio.Queue[ToAgent] = asyncio.Queue()
        self.streams: dict[int, StreamHandle] = {}

    def begin(self, handle: StreamHandle, request: StreamOpen) -> None:
        """Ask for the stream and carry it until it ends."""
        self.streams[handle.stream] = handle
        self.post(request)
        self._carrying = asyncio.create_task(self._carry(handle))

    def post(self, *messages: ToAgent) -> None:
        for message in messages:
            self._out.put_nowait(message)

    async def _carry(self, handle: StreamHandle) -> None:
        error = "the server that holds the node's session is gone"
        try:
            async with self._socket:
                await first_of(self._send(handle), self._receive(handle), quiet=CONNECTION_ENDS)
        finally:
            handle.arrived(StreamData(stream=handle.stream, end=True, error=error))

    async def _send(self, handle: StreamHandle) -> None:
        while handle.stream in self.streams or not self._out.empty():
            message = await self._out.get()
            await self._socket.send(encode(ServerFrame(0, 0, [message])))

    async def _receive(self, handle: StreamHandle) -> None:
        async for data in self._socket:
            for message in decode_from_agent(data if isinstance(data, bytes) else data.encode()).messages:
                if isinstance(message, StreamData):
                    handle.arrived(message)
                    if message.end:
                        return
                elif isinstance(message, StreamTaken):
                    handle.taken(message.size)
