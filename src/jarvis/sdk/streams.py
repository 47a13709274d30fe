"""Bytes to and from a running task: its input, its terminal, a command beside it."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

from jarvis.sdk.connection import Connection
from jarvis.sdk.errors import Unreachable, from_problem
from jarvis.utils.listener import keep_alive

OPEN_S = 75.0
"""The server waits up to a minute for the task to run before it opens a stream."""
PIECE = 64 * 1024
WINDOW = 256 * 1024
"""Bytes of input that may be under way. More would fill the connection, and a send that blocks there stops the receiver too:
two ends that each wait for the other to read."""


class _KeptAlive(ClientConnection):
    """Its socket is told before the handshake: after it the server may have answered, and closed, already."""

    def __init__(self, connected: socket.socket, *args: Any, **kwargs: Any) -> None:
        keep_alive(connected)
        super().__init__(connected, *args, **kwargs)


class TaskStream:
    """One open stream. Iterate over it for the task's bytes; then ``error`` and, for a command beside it, ``code`` tell how
    it ended. Sending blocks while the task does not read, so it needs a thread beside the one that iterates."""

    def __init__(self, connection: Connection, path: str, **params: Any) -> None:
        """Raises :class:`Unreachable`; what the server refuses is raised by the first read."""
        url = connection.url.rstrip("/").replace("http", "ws", 1)
        query = urlencode({k: v for k, v in params.items() if v is not None}, doseq=True)
        headers = {"Authorization": f"Bearer {connection.token}"}
        self.error = ""
        self.code: int | None = None
        self._open = ExitStack()
        self._under_way, self._over = 0, False
        self._room = threading.Condition()
        try:
            self._socket = self._open.enter_context(connect(
                f"{url}/api/v1{path}?{query}", additional_headers=headers, compression=None, max_size=None,
                open_timeout=OPEN_S, proxy=None, ssl=connection.server.context(), ping_interval=None,
                create_connection=_KeptAlive,
            ))  # fmt: skip
        except (OSError, TimeoutError, WebSocketException) as error:
            raise Unreachable(f"no stream from {connection.url}: {error}", "unreachable") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._open.close()

    def send(self, data: bytes) -> None:
        """To the task; raises :class:`Unreachable` when nobody reads it any more."""
        for start in range(0, len(data), PIECE):
            piece = data[start : start + PIECE]
            with self._room:
                self._room.wait_for(lambda: self._under_way < WINDOW or self._over)
                self._under_way += len(piece)
            self._say(piece)

    def end(self) -> None:
        """The end of the input; nothing where the stream has ended first."""
        with suppress(Unreachable):
            self._say(json.dumps({"end": True}))

    def resize(self, rows: int, columns: int) -> None:
        self._say(json.dumps({"rows": rows, "columns": columns}))

    def _say(self, message: bytes | str) -> None:
        try:
            self._socket.send(message)
        except ConnectionClosed:
            raise Unreachable("the stream is closed", "unreachable") from None

    def __iter__(self) -> Iterator[bytes]:
        """Until its end; a connection that breaks is an ``error``. Raises what the server refuses."""
        try:
            for message in self._socket:
                if isinstance(message, bytes):
                    yield message
                else:
                    self._told(json.loads(message))
        except ConnectionClosed as closed:
            self.error = self.error or (closed.rcvd.reason if closed.rcvd is not None else "") or "the connection broke"
        finally:
            self._make_room(0, over=True)

    def _make_room(self, size: int, *, over: bool = False) -> None:
        with self._room:
            self._under_way -= size
            self._over = self._over or over
            self._room.notify_all()

    def _told(self, body: dict[str, Any]) -> None:
        if "status" in body:
            raise from_problem(int(body["status"]), body)
        if "taken" in body:
            self._make_room(int(body["taken"]))
            return
        self.error, self.code = str(body.get("error") or ""), body.get("code")
