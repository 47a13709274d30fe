"""Sockets that listen, and what they and their peers need so that nobody waits for the dead."""

import errno
import os
import socket
from contextlib import suppress
from typing import Any, Protocol

KEEP_ALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPALIVE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""Seconds, seconds (as macOS names it), seconds, and how often. What the platform does not have is left out."""


NONE_LEFT = frozenset({errno.EMFILE, errno.ENFILE})
AWAY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
"""What somebody is told for whom no descriptor is left; under TLS the connection just ends."""


class HasOptions(Protocol):
    """A socket, or what asyncio shows of one."""

    def setsockopt(self, level: int, name: int, value: int, /) -> None: ...


def keep_alive(connection: HasOptions) -> None:
    """Notice within about a minute that the other machine is gone. Unlike a ping of ours it needs no program there that
    finds the time to read. Sockets that a listener accepts inherit it."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEP_ALIVE.items():
        if (option := getattr(socket, name, None)) is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


class Listener(socket.socket):
    """One that keeps a descriptor in reserve. When none is left, it lends that one to whoever connects, to tell them so.

    Without it they would wait unheard, and asyncio's loop, which tries as often as there may be waiters and sets itself a timer
    for each failure, would have time for nothing else.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reserve: int | None = _spare()
        self.refused = 0

    def accept(self) -> tuple[socket.socket, Any]:
        try:
            accepted = super().accept()
        except OSError as error:
            if error.errno not in NONE_LEFT:
                raise
            self._refuse()
            raise BlockingIOError(errno.EAGAIN, "no descriptor is left") from None
        if self._reserve is None:
            with suppress(OSError):
                self._reserve = _spare()
        return accepted

    def _refuse(self) -> None:
        """Tell one of those who wait."""
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None
        with suppress(OSError):
            connection, _ = super().accept()
            with connection:
                connection.setblocking(False)
                self.refused += 1
                connection.send(AWAY)
        with suppress(OSError):
            self._reserve = _spare()

    def close(self) -> None:
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None
        super().close()


def _spare() -> int:
    return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


def listen(host: str, port: int) -> socket.socket:
    """A listener for ``uvicorn.Server.serve(sockets=[…])``; port 0 takes a free one.

    Without TCP_NODELAY, which accepted sockets inherit, every small answer would wait 40 ms for the client's ACK.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, proto, _, address = found[0]
    listener = Listener(family, kind, proto)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        keep_alive(listener)
        listener.bind(address)
        listener.listen(1024)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
