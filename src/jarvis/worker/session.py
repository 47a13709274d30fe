"""The agent's session: one WebSocket to a server, frames of what has gathered, again and again with full jitter."""

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
import websockets
from websockets.asyncio.client import connect

from jarvis.bus.messages import MAX_FRAME, AgentFrame, FromAgent, ServerFrame, ToAgent, decode_from_server, encode
from jarvis.core.effects import Assign, Recall, Recorded, Refused, Signal, Stop, Welcome
from jarvis.core.inputs import Ended, Hello, Started

log = logging.getLogger("jarvis.session")

CONNECT_S = 10.0
SEND_S = 30.0
FIRST_WAIT_S = 0.05
LONGEST_WAIT_S = 6.0
"""After however many failures: a node that waits for longer than the leader does would be lost once one leads again."""
SILENT_HEARTBEATS = 2
LIVED_WELL_S = 5.0
SHORT_LIVES = 4
"""A session that worked says little against the next: after one that was short, at most this many doublings."""
LOOK_S = 0.2
OUTBOX_LIMIT = 100_000
"""Messages that wait, beyond those that a session begins with: of those there are no more than the agent keeps anyway."""
FRAME_MESSAGES = 2_000


FROM_LEADER = (Assign, Recall, Stop, Signal, Recorded)


class SessionHandler(Protocol):
    """What the session asks of the agent."""

    def hello(self) -> Hello: ...
    def welcomed(self, welcome: Welcome) -> None: ...
    def refused(self, refused: Refused) -> bool:
        """Whether the next Hello is another one, so that it need not wait."""
        ...

    def received(self, messages: list[ToAgent]) -> None: ...
    def disconnected(self) -> None: ...


class Address(Protocol):
    """Where the server is, as :class:`~jarvis.worker.server_address.ServerAddress` knows it."""

    def next(self) -> tuple[str, str]: ...
    def moved(self) -> bool: ...


class Socket(Protocol):
    """What the session asks of its WebSocket."""

    async def send(self, data: bytes) -> None: ...
    async def recv(self) -> str | bytes: ...
    async def close(self) -> None: ...


async def dial(url: str, token: str) -> Socket:
    """A WebSocket to a server."""
    headers = {"Authorization": f"Bearer {token}"}
    return await connect(
        url, additional_headers=headers, compression=None, max_size=MAX_FRAME, ping_interval=None, proxy=None
    )


class Session:
    """Keeps a session open until stopped. ``say`` never blocks: what has to arrive is said again by the agent."""

    def __init__(
        self, handler: SessionHandler, address: Address,
        dial: Callable[[str, str], Awaitable[Socket]] = dial,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:  # fmt: skip
        self._handler, self._address, self._dial, self._jitter = handler, address, dial, jitter
        self._overflow = asyncio.Event()
        self._outbox: list[FromAgent] = []
        self._outbox_most = math.inf
        self._something = asyncio.Event()
        self.connected = False
        self.told = 0
        """Messages of the leader received in this session."""
        self._heard = 0

    def say(self, message: FromAgent) -> None:
        """Queue for the next frame; without a session nothing is kept, because Hello and what follows say it again. For
        the same reason a session whose server takes nothing is ended rather than kept in memory."""
        if not self.connected:
            return
        if len(self._outbox) >= self._outbox_most:
            self._overflow.set()
            return
        if not self._outbox:
            self._something.set()
        self._outbox.append(message)

    def renew(self) -> None:
        """End this session at the next word of the server, so that another Hello tells what has changed here."""
        self._overflow.set()

    async def run(self) -> None:
        """Until cancelled."""
        failures, now = 0, asyncio.get_running_loop().time
        while True:
            wait, began = None, now()
            try:
                wait = await self._once()
            except (OSError, TimeoutError, websockets.WebSocketException, msgspec.DecodeError) as error:
                log.info("no session: %s", error)
            finally:
                if self.connected:
                    self.connected = False
                    self._handler.disconnected()
                    failures = 0 if now() - began > LIVED_WELL_S else min(failures, SHORT_LIVES)
                self._outbox.clear()
            failures += 1
            most = wait if wait is not None else min(FIRST_WAIT_S * 2.0 ** min(failures - 1, 12), LONGEST_WAIT_S)
            await self._pause(self._jitter(0, most))

    async def _pause(self, wait: float) -> None:
        """Between two sessions; over at once when the server of this machine has started again."""
        now = asyncio.get_running_loop().time
        until = now() + wait
        while (left := until - now()) > 0 and not self._address.moved():  # noqa: ASYNC110 - a file
            await asyncio.sleep(min(left, LOOK_S))

    async def _once(self) -> float | None:
        """One session; how long to wait at most before the next, if the server said so."""
        url, token = self._address.next()
        async with asyncio.timeout(CONNECT_S):
            socket = await self._dial(url, token)
        try:
            return await self._serve(socket)
        finally:
            await socket.close()

    async def _serve(self, socket: Socket) -> float | None:
        await socket.send(encode(AgentFrame(1, 0, [self._handler.hello()])))
        async with asyncio.timeout(CONNECT_S):
            first = await self._receive(socket)
        answer = first.messages[0] if first.messages else None
        if isinstance(answer, Refused):
            log.warning("the server refuses: %s", answer.reason)
            return FIRST_WAIT_S if self._handler.refused(answer) else answer.retry_s or LONGEST_WAIT_S
        if not isinstance(answer, Welcome):
            return None
        self.connected = True
        self._outbox.clear()
        self._heard, self.told = first.seq, 0
        self._overflow.clear()
        self._outbox_most = math.inf  # a session that its own beginning ended would begin again and again
        self._handler.welcomed(answer)
        self._pass_on(first.messages[1:])
        self._outbox_most = len(self._outbox) + OUTBOX_LIMIT
        sender = asyncio.create_task(self._send_all(socket))
        try:
            return await self._receive_all(socket, sender, max(answer.heartbeat_s * (SILENT_HEARTBEATS + 1), 1.0))
        finally:
            sender.cancel()
            await asyncio.wait([sender], timeout=1.0)

    async def _receive_all(self, socket: Socket, sender: asyncio.Task[None], silence_s: float) -> float | None:
        """Each heartbeat is answered: a server that leaves two unanswered is not there, whatever the socket says. One that ends
        the session says when to come again."""
        while not sender.done() and not self._overflow.is_set():
            async with asyncio.timeout(silence_s):
                frame = await self._receive(socket)
            if frame.seq > self._heard + 1:
                return None  # one is missing: only a Hello tells what was in it
            if frame.seq > self._heard:
                self._heard = frame.seq
                self._pass_on(frame.messages)
                if frame.messages and isinstance(over := frame.messages[-1], Refused):
                    return over.retry_s
        return None

    def _pass_on(self, messages: list[ToAgent]) -> None:
        if messages:
            self.told += sum(isinstance(message, FROM_LEADER) for message in messages)
            self._handler.received(messages)

    async def _receive(self, socket: Socket) -> ServerFrame:
        data = await socket.recv()
        if isinstance(data, str):
            raise msgspec.DecodeError("a text frame")
        return decode_from_server(data)

    async def _send_all(self, socket: Socket) -> None:
        seq = 1
        while True:
            await self._something.wait()
            self._something.clear()
            while self._outbox:
                messages, self._outbox = self._outbox[:FRAME_MESSAGES], self._outbox[FRAME_MESSAGES:]
                for data in frames(seq + 1, self._heard, worth_saying(messages)):
                    seq += 1
                    async with asyncio.timeout(SEND_S):
                        await socket.send(data)


def worth_saying(messages: list[FromAgent]) -> list[FromAgent]:
    """Without the starts of what ends in the same breath: an end tells when it began."""
    ended = {message.number for message in messages if type(message) is Ended}
    if not ended:
        return messages
    return [message for message in messages if type(message) is not Started or message.number not in ended]


def frames(seq: int, ack: int, messages: list[FromAgent]) -> list[bytes]:
    """The messages as frames numbered from ``seq``: one, unless they are too much for one."""
    data = encode(AgentFrame(seq, ack, messages))
    if len(data) <= MAX_FRAME or len(messages) == 1:
        return [data]
    middle = len(messages) // 2
    first = frames(seq, ack, messages[:middle])
    return first + frames(seq + len(first), ack, messages[middle:])
