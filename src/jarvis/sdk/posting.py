"""Requests that a program makes by the thousand: bytes out, bytes back, over connections that are kept.

The general client takes four times as long for one (315 µs of processor time beside 70), which is much of one short task.
Every request made here may be repeated: it only reads, or it carries an ``Idempotency-Key``.
"""

import select
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPSConnection
from urllib.parse import urlsplit
from urllib.request import getproxies

from jarvis.sdk.answers import read

KEPT_MOST = 8
"""Connections that wait for the next request."""


def can_post(url: str, context: ssl.SSLContext | None) -> bool:
    """Whether this way leads there: not through a proxy, and by TLS only where it is known whom to believe."""
    return not getproxies() and (urlsplit(url).scheme == "http" or context is not None)


class Posts:
    """To one server; safe to use from several threads. Failures are OSErrors and HTTPExceptions."""

    def __init__(self, url: str, headers: Mapping[str, str], context: ssl.SSLContext | None) -> None:
        parts = urlsplit(url)
        self._scheme, self._host, self._port = parts.scheme, parts.hostname or "", parts.port
        self._path, self._context = parts.path.rstrip("/"), context
        always = {"Host": parts.netloc.rpartition("@")[2], "Accept-Encoding": "identity", **headers}
        self._always = "".join(f"{name}: {value}\r\n" for name, value in always.items())
        self._lock = threading.Lock()
        self._idle: list[HTTPConnection] = []
        self._all: set[HTTPConnection] = set()
        self._closed = False

    def post(self, path: str, body: bytes, headers: Mapping[str, str], timeout: float) -> tuple[int, bytes]:
        """Status and body of the answer. A kept connection that the server has given up meanwhile is followed by a new one."""
        more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"POST {self._path}{path} HTTP/1.1\r\n{self._always}{more}Content-Length: {len(body)}\r\n\r\n"
        data = head.encode("latin-1") + body
        kept = self._take_kept()
        if kept is not None:
            try:
                return self._exchange(kept, data, timeout)
            except ConnectionError:
                if self._closed:
                    raise
        return self._exchange(self._connect(timeout), data, timeout)

    def _take_kept(self) -> HTTPConnection | None:
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None or not _has_something(connection):
                return connection
            self._drop(connection)  # nothing was asked: this is its end

    def _connect(self, timeout: float) -> HTTPConnection:
        if self._scheme == "https":
            assert self._context is not None
            made: HTTPConnection = HTTPSConnection(self._host, self._port, timeout=timeout, context=self._context)
        else:
            made = HTTPConnection(self._host, self._port, timeout=timeout)
        with self._lock:
            if self._closed:
                raise RuntimeError("the client is closed")
            self._all.add(made)
        return made

    def _exchange(self, connection: HTTPConnection, data: bytes, timeout: float) -> tuple[int, bytes]:
        """Head and body leave in one piece, so that the server wakes up once."""
        try:
            if connection.sock is None:
                connection.connect()
            connection.sock.settimeout(timeout)
            connection.sock.sendall(data)
            answer = read(connection.sock)
        except BaseException:
            self._drop(connection)
            raise
        self._give_back(connection, answer.over)
        return answer.status, answer.body

    def _give_back(self, connection: HTTPConnection, over: bool) -> None:
        with self._lock:
            keep = not over and not self._closed and len(self._idle) < KEPT_MOST
            if keep:
                self._idle.append(connection)
        if not keep:
            self._drop(connection)

    def _drop(self, connection: HTTPConnection) -> None:
        with self._lock:
            self._all.discard(connection)
        connection.close()

    def close(self) -> None:
        """What is under way fails."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            busy = self._all.difference(idle)
        for connection in idle:
            self._drop(connection)
        for connection in busy:  # each is dropped by the thread that waits in it
            if (sock := connection.sock) is not None:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)


def _has_something(connection: HTTPConnection) -> bool:
    """Whether the server sent something, or its end, though nothing was asked."""
    if not hasattr(select, "poll"):
        return bool(select.select([connection.sock], [], [], 0)[0])
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))
