"""The Unix socket: who may connect, frames in, reports out."""

from __future__ import annotations

import os
import socket
import struct
from collections import deque

from .attempts import start_message
from .loop import HANGUP, NEVER, READ, WRITE
from .protocol import (
    CONNECTION_LIMIT,
    FIRST_FRAME_PATIENCE,
    OUT_LIMIT,
    VERSION,
    FrameReader,
    ProtocolError,
    each_start,
    pack,
)
from .system import boot_id, log, now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .attempts import Attempt
    from .children import Children
    from .loop import Loop
    from .protocol import Message

    Handler = Callable[[Message], None]

# Tasks share the CPU with us: while they run, reports gather for GATHER seconds, or until it is quiet for QUIET seconds and
# nothing waits in a lane. What is in the lanes is begun meanwhile, so nobody waits for such a report to begin anything.
GATHER = 0.040
QUIET = 0.002
# Messages handled in one turn, so that reaping and reporting go on under a flood of starts.
PER_TURN = 8
WELCOME_PART = 1000
LISTEN_AGAIN = 1.0


class Connection:
    """One peer. It is nobody until its first frame says `hello` or `attach`."""

    def __init__(self, sock: socket.socket, received: bytes = b"", unsent: bytes = b"") -> None:
        sock.setblocking(False)
        self.sock = sock
        self.reader = FrameReader(received)
        self.out = bytearray(unsent)
        self.since = now()


class Server:
    """Accepts, reads, dispatches to `handlers`, and writes what `report` was given."""

    def __init__(self, loop: Loop, children: Children, listener: socket.socket) -> None:
        self.loop, self.children, self.listener = loop, children, listener
        self.handlers: dict[str, Handler] = {}
        self.attach: Callable[[Message, socket.socket, bytes], bool] = lambda message, peer, rest: False
        self.fence_until: Callable[[], float] = lambda: 0.0
        self.agent: Connection | None = None
        self.strangers: dict[int, Connection] = {}
        self.inbox: deque[Message] = deque()
        self.pending: deque[Message | str] = deque()
        self.starts: dict[int, Attempt] = {}  # by number, those whose end is not reported yet
        self.first_pending = self.last_pending = 0.0
        self.due = self.listen_at = NEVER
        listener.setblocking(False)
        loop.watch(listener.fileno(), READ, self._on_listener)

    # --- connecting ---------------------------------------------------------------------------------------------------

    def _on_listener(self, mask: int) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except BlockingIOError:
                return
            except OSError:  # no descriptors: who waits there would keep us turning
                self.loop.forget(self.listener.fileno())
                self.listen_at = now() + LISTEN_AGAIN
                self.due = min(self.due, self.listen_at)
                return
            if _allowed(sock) and len(self.strangers) < CONNECTION_LIMIT:
                self._welcome_stranger(Connection(sock))
            else:
                sock.close()

    def _welcome_stranger(self, connection: Connection) -> None:
        self.strangers[connection.sock.fileno()] = connection
        self.loop.watch(connection.sock.fileno(), READ, lambda mask: self._on_stranger(connection))
        self.due = min(self.due, now() + FIRST_FRAME_PATIENCE)

    def _on_stranger(self, connection: Connection) -> None:
        message: Message | None = None
        try:
            data = connection.sock.recv(65536)
            connection.reader.feed(data)
            message = connection.reader.next()
        except BlockingIOError:
            return
        except (OSError, ProtocolError):
            data = b""
        if message is None:
            if not data:
                self._drop_stranger(connection)
            return
        self._introduce(connection, message)

    def _introduce(self, connection: Connection, message: Message) -> None:
        fd = connection.sock.fileno()
        if message.get("op") == "hello":
            del self.strangers[fd]
            self._become_agent(connection)
        elif message.get("op") == "attach":
            del self.strangers[fd]
            self.loop.forget(fd)
            if not self.attach(message, connection.sock, bytes(connection.reader.data)):
                connection.sock.close()
        else:
            self._drop_stranger(connection)

    def _drop_stranger(self, connection: Connection) -> None:
        self.strangers.pop(connection.sock.fileno(), None)
        self.loop.forget(connection.sock.fileno())
        connection.sock.close()

    def _become_agent(self, connection: Connection) -> None:
        """The newest agent is the agent; it learns everything that was not acknowledged."""
        self.drop_agent()
        self.adopt_agent(connection)
        views = [attempt.view() for attempt in self.children.attempts.values()]
        parts = [views[at : at + WELCOME_PART] for at in range(0, len(views), WELCOME_PART)] or [[]]
        head = {"op": "welcome", "version": VERSION, "pid": os.getpid(), "boot_id": boot_id()}
        head["fence_until"] = self.fence_until()
        for index, part in enumerate(parts):
            more = index + 1 < len(parts)
            connection.out += pack({**(head if index == 0 else {"op": "attempts"}), "attempts": part, "more": more})
        self._write(connection)
        self._collect(connection)

    def adopt_agent(self, connection: Connection) -> None:
        """Take this connection for the agent's without a word (an upgrade keeps it)."""
        self.agent = connection
        self._watch_agent(connection)
        self._collect(connection)

    def drop_agent(self) -> None:
        """The agent is gone or replaced; what it had sent and was not yet handled it will send again."""
        if self.agent is not None:
            self.loop.forget(self.agent.sock.fileno())
            self.agent.sock.close()
            self.agent = None
        self.inbox.clear()
        self.pending.clear()
        self.starts.clear()

    # --- the agent ----------------------------------------------------------------------------------------------------

    def _watch_agent(self, connection: Connection) -> None:
        full = len(connection.out) > OUT_LIMIT or len(self.inbox) > PER_TURN
        mask = (0 if full else READ) | (WRITE if connection.out else 0)
        self.loop.watch(connection.sock.fileno(), mask, lambda mask: self._on_agent(connection, mask))

    def _on_agent(self, connection: Connection, mask: int) -> None:
        if mask & WRITE:
            self._write(connection)
        if mask & (READ | HANGUP) and self.agent is connection:
            self._read(connection)

    def _read(self, connection: Connection) -> None:
        try:
            data = connection.sock.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.drop_agent()
            return
        connection.reader.feed(data)
        self._collect(connection)

    def _collect(self, connection: Connection) -> None:
        try:
            for message in connection.reader:
                self._take(message)
        except ProtocolError as error:
            log(f"agent connection closed: {error}")
            self.drop_agent()
            return
        if self.inbox:
            self.loop.hurry = True
        if self.agent is connection:
            self._watch_agent(connection)

    def _take(self, message: Message) -> None:
        if message.get("op") != "starts":
            self.inbox.append(message)
            return
        try:
            self.inbox.extend(each_start(message))
        except (KeyError, TypeError) as error:
            self.report({"op": "error", "of": "starts", "error": f"{type(error).__name__}: {error}"})

    def handle_some(self) -> None:
        """Handle a few messages; the rest come next turn, without sleeping."""
        if not self.inbox:
            return
        agent = self.agent
        for _ in range(min(PER_TURN, len(self.inbox))):
            self._handle(self.inbox.popleft())
            if self.agent is not agent:
                return
        if self.inbox:
            self.loop.hurry = True
        elif agent is not None:
            self._watch_agent(agent)

    def _handle(self, message: Message) -> None:
        handler = self.handlers.get(str(message.get("op")))
        try:
            if handler is None:
                raise ValueError("unknown op")
            handler(message)
        except (KeyError, TypeError, ValueError, OSError) as error:
            text = f"{type(error).__name__}: {error}"
            self.report({"op": "error", "of": message.get("op"), "number": message.get("number"), "error": text})

    # --- reports ------------------------------------------------------------------------------------------------------

    def report(self, message: Message | str) -> None:
        """Queue a report. Without an agent it is dropped: `welcome` tells the next one everything that matters."""
        if self.agent is not None:
            self._gather()
            self.pending.append(message)

    def report_start(self, attempt: Attempt) -> None:
        """Queue the report of a start behind all others, because it may follow from an end among them."""
        if self.agent is not None:
            self._gather()
            self.starts[attempt.number] = attempt

    def report_end(self, number: int, message: str) -> None:
        """Queue the report of an end, which says all that the report of its start would."""
        self.starts.pop(number, None)
        self.report(message)

    def _gather(self) -> None:
        self.last_pending = now()
        if not (self.pending or self.starts):
            self.first_pending = self.last_pending

    def flush(self) -> None:
        """Send what has gathered, unless tasks are running and more is likely to come at once."""
        if not (self.pending or self.starts) or self.agent is None:
            return
        if self.children.busy:
            at = self.first_pending + GATHER
            if not self.children.lanes:
                at = min(at, self.last_pending + QUIET)
            if now() < at:
                self.due = min(self.due, at)
                return
        self.flush_now()

    def flush_now(self) -> None:
        """Send without gathering, as far as the buffer's limit allows."""
        if self.agent is None:
            return
        while self.pending and len(self.agent.out) <= OUT_LIMIT:
            self.agent.out += pack(self.pending.popleft())
        while self.starts and not self.pending and len(self.agent.out) <= OUT_LIMIT:
            self.agent.out += pack(start_message(self.starts.pop(next(iter(self.starts)))))
        self._write(self.agent)

    def _write(self, connection: Connection) -> None:
        try:
            while connection.out:
                del connection.out[: connection.sock.send(connection.out)]
        except BlockingIOError:
            pass
        except OSError:
            if self.agent is connection:
                self.drop_agent()
            return
        self._watch_agent(connection)

    def on_due(self, moment: float) -> None:
        """Turn away those who connect and say nothing; `flush` runs at the end of every turn by itself."""
        for connection in list(self.strangers.values()):
            if moment - connection.since > FIRST_FRAME_PATIENCE:
                self._drop_stranger(connection)
        self.due = moment + FIRST_FRAME_PATIENCE if self.strangers else NEVER
        if self.listen_at <= moment:
            self.listen_at = NEVER
            self.loop.watch(self.listener.fileno(), READ, self._on_listener)
        self.due = min(self.due, self.listen_at)


def _allowed(sock: socket.socket) -> bool:
    """Our own user or root, as the kernel attests it."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return uid in (os.geteuid(), 0)


def listen(directory: str, name: str) -> socket.socket:
    """Bind by a relative name: a state directory may be deeper than the 107 bytes of a socket address."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    os.chdir(directory)
    mask = os.umask(0o177)
    try:
        if os.path.lexists(name):
            os.unlink(name)  # of a dead supervisor: we hold the lock
        sock.bind(name)
    finally:
        os.umask(mask)
        os.chdir("/")
    sock.listen(64)
    return sock
