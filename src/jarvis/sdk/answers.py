"""Answers read from a socket: the plain ones, as a server of ours writes them, with few steps; all others by the library, which
takes fifty microseconds more for a head.
"""

import io
import socket
from http.client import HTTPResponse, RemoteDisconnected
from typing import NamedTuple

PIECE = 1 << 18
_DIGITS = frozenset(b"0123456789")
_SEEN_ELSEWHERE = (b"transfer-encoding", b"connection")


class Answer(NamedTuple):
    """``over``: nothing more can be asked on its connection."""

    status: int
    body: bytes
    over: bool


def read(sock: socket.socket) -> Answer:
    """The answer to a POST. Failures are OSErrors and HTTPExceptions."""
    data = sock.recv(PIECE)
    if not data:
        raise RemoteDisconnected("the server closed the connection without an answer")
    head, found, body = data.partition(b"\r\n\r\n")
    length = _length(head) if found else None
    if length is None or len(body) > length:
        return _by_the_library(sock, data)
    if len(body) < length:
        body = _whole(sock, body, length)
    return Answer(int(head[9:12]), body, False)


def _length(head: bytes) -> int | None:
    """Of the body; None for a head that says anything out of the common."""
    line, *fields = head.split(b"\r\n")
    status, rest = line[9:12], line[12:13]
    if (
        not line.startswith(b"HTTP/1.1 ")
        or len(status) < 3
        or not _DIGITS.issuperset(status)
        or rest not in (b"", b" ")
    ):
        return None
    if status < b"200":  # the answer itself comes after it
        return None
    length = None
    for field in fields:
        name, _, value = field.partition(b":")
        name = name.lower()
        if name in _SEEN_ELSEWHERE or (name == b"content-length" and length is not None):
            return None
        if name == b"content-length":
            value = value.strip()
            if not value or not _DIGITS.issuperset(value):
                return None
            length = int(value)
    return length


def _whole(sock: socket.socket, begun: bytes, length: int) -> bytes:
    pieces, left = [begun], length - len(begun)
    while left:
        piece = sock.recv(min(left, PIECE))
        if not piece:
            raise ConnectionResetError(f"the server closed the connection {left} bytes before the end of its answer")
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _by_the_library(sock: socket.socket, seen: bytes) -> Answer:
    with HTTPResponse(_Again(sock, seen), method="POST") as answer:  # type: ignore[arg-type]  # of a socket it asks this alone
        answer.begin()
        return Answer(answer.status, answer.read(), answer.will_close)


class _Again:
    """A socket of which something was read already."""

    def __init__(self, sock: socket.socket, seen: bytes) -> None:
        self._sock, self._seen = sock, seen

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Rest(self._sock, self._seen))


class _Rest(io.RawIOBase):
    """What was read, then what comes."""

    def __init__(self, sock: socket.socket, seen: bytes) -> None:
        self._sock, self._seen = sock, seen

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self._seen:
            return self._sock.recv_into(buffer)
        piece = self._seen[: len(buffer)]
        buffer[: len(piece)], self._seen = piece, self._seen[len(piece) :]
        return len(piece)
