"""One agent's session: what goes to it gathers until the loop turns, then travels as one frame."""

import asyncio
from collections.abc import MutableMapping
from typing import Any, Protocol

import msgspec
from starlette.websockets import WebSocket

from jarvis.bus.messages import (
    MAX_FRAME,
    OLDEST_VERSION,
    PROTOCOL_VERSION,
    ServerFrame,
    StreamData,
    StreamTaken,
    ToAgent,
    encode,
)
from jarvis.bus.window import LIMIT, MESSAGE_COST, ReceiveWindow, SendWindow
from jarvis.core.effects import Recorded, Refused
from jarvis.core.inputs import Fact

OUT_LIMIT = 20_000
"""Messages that may wait for a slow agent before its session is ended: it comes back and compares."""
LATER_S = 0.005
"""How long a node may wait to hear that something of its is recorded: what it is to do next mostly comes before, and takes it
along. Between two calls of a client that waits for each, a frame of its own would take the processor from the answer."""
STREAM_LIMIT = LIMIT // MESSAGE_COST * 2
"""Pieces that a node may send before any was taken; more is against the protocol."""


class Held(msgspec.Struct, gc=False, frozen=True):
    """An assignment that the node has, as far as the gateway needs it."""

    number: int
    token: int
    task: int
    index: int
    project: str


class StreamEnd(Protocol):
    """Who takes what a node says in a stream."""

    def arrived(self, data: StreamData) -> None: ...
    def taken(self, size: int) -> None: ...


class Carrier(Protocol):
    """What streams travel on: a node's session, or the way to the server that has it."""

    @property
    def streams(self) -> MutableMapping[int, Any]: ...
    def post(self, *messages: ToAgent) -> None: ...


class StreamHandle:
    """The server's end of an interactive stream. Either side waits for a slow reader; a node that does not wait loses the
    stream and not the session."""

    def __init__(self, session: Carrier, stream: int) -> None:
        self._session, self.stream = session, stream
        self._arrived: asyncio.Queue[StreamData] = asyncio.Queue()
        self._out, self._in = SendWindow(), ReceiveWindow()

    def arrived(self, data: StreamData) -> None:
        if self._arrived.qsize() >= STREAM_LIMIT:
            data = StreamData(stream=self.stream, end=True, error="the node sends faster than its stream is read")
            self._session.post(data)
        self._arrived.put_nowait(data)
        if data.end:
            self._session.streams.pop(self.stream, None)

    async def receive(self) -> StreamData:
        return await self._arrived.get()

    def took(self, data: bytes) -> None:
        """What was received has been passed on: the node may send more."""
        if size := self._in.took(data):
            self._session.post(StreamTaken(stream=self.stream, size=size))

    def taken(self, size: int) -> None:
        self._out.taken(size)

    async def send(self, data: bytes) -> None:
        """To the task, as fast as it reads."""
        await self._out.admit(data)
        self._session.post(StreamData(stream=self.stream, data=data))

    def post(self, message: ToAgent) -> None:
        self._session.post(message)

    def close(self) -> None:
        if self._session.streams.pop(self.stream, None) is not None:
            self._session.post(StreamData(stream=self.stream, end=True, error="the viewer is gone"))


class Session:
    """State of one connection. ``node`` is 0 until the leader has welcomed it; ``member`` is what its certificate stands for."""

    def __init__(self, ident: str, socket: WebSocket, member: str = "") -> None:
        self.ident, self._socket, self.member = ident, socket, member
        self.node = 0
        self.version = 1
        """Of the protocol, as agreed on."""
        self.epoch = (0, 0)
        """(incarnation, epoch) of the leader that welcomed it."""
        self.unacked: dict[int, tuple[float, list[Fact]]] = {}
        """Frame → when it came and the facts in it that the leader has not acknowledged."""
        self.held: dict[int, Held] = {}
        self.streams: dict[int, StreamEnd] = {}
        self.heard = 0
        self.closing = False
        self.broken = asyncio.Event()
        self._ack = self._seq = self._next_stream = 0
        self._pending: list[ToAgent] = []
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    def refuse(self, reason: str, retry_s: float | None = None) -> None:
        """No session, or none any more."""
        self.post(Refused(reason=reason, retry_s=retry_s))
        self.finish()

    def post(self, *messages: ToAgent) -> None:
        """Queue for the next frame. Who is refused also hears what this server speaks."""
        if len(self._pending) + len(messages) > OUT_LIMIT:
            self.broken.set()
            return
        self._pending.extend(_with_versions(m) if isinstance(m, Refused) else m for m in messages)
        if all(isinstance(message, Recorded) for message in messages):
            self._wake_later()
        else:
            self._wake.set()

    def _wake_later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LATER_S, self._wake.set)

    def forget(self, numbers: list[int]) -> None:
        """These are no longer on the node."""
        for number in numbers:
            self.held.pop(number, None)

    def register(self, end: StreamEnd) -> int:
        """A new stream's number; what the node says in it goes to ``end``."""
        self._next_stream += 1
        self.streams[self._next_stream] = end
        return self._next_stream

    def open_stream(self) -> StreamHandle:
        handle = StreamHandle(self, self._next_stream + 1)
        self.register(handle)
        return handle

    def frame_heard(self, seq: int, facts: list[Fact], now: float) -> None:
        """A frame without facts is safe at once, unless one with facts before it is still open."""
        self.heard = seq
        if facts:
            self.unacked[seq] = (now, facts)
        elif not self.unacked:
            self._ack = seq

    def committed(self, seq: int) -> None:
        """The leader has committed the facts up to this frame."""
        while self.unacked and (first := next(iter(self.unacked))) <= seq:
            del self.unacked[first]
        self._ack = max(self._ack, self.heard if not self.unacked else seq)
        self._wake_later()

    def answer(self) -> None:
        """A frame even if nothing is to be said: a node that hears nothing takes this server for gone."""
        self._wake.set()

    def finish(self) -> None:
        """Send what is left and end."""
        self.closing = True
        self._wake.set()

    async def write(self) -> None:
        """Until finished: one frame for everything that gathered in a turn of the loop."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._stop_timer()
            messages, self._pending = self._pending, []
            await self._send(messages)
            if self.closing and not self._pending:
                return

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _send(self, messages: list[ToAgent]) -> None:
        data = encode(ServerFrame(self._seq + 1, self._ack, messages))
        if len(data) > MAX_FRAME and len(messages) > 1:
            middle = len(messages) // 2
            await self._send(messages[:middle])
            await self._send(messages[middle:])
            return
        self._seq += 1
        await self._socket.send_bytes(data)

    def end(self) -> None:
        """Tell everybody who streams that the node is gone."""
        self._stop_timer()
        for stream, end in list(self.streams.items()):
            end.arrived(StreamData(stream=stream, end=True, error="the node's session ended"))


def _with_versions(refused: Refused) -> Refused:
    return msgspec.structs.replace(refused, oldest=OLDEST_VERSION, newest=PROTOCOL_VERSION)
