"""The agent's side of the supervisor's socket: frames of JSON, one connection for orders and reports."""

import asyncio
import json
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from jarvis.worker.supervisor.protocol import FRAME_LIMIT, FrameReader

_length = struct.Struct(">I")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode
CONNECT_S = 10.0
READ_MOST = 1 << 16
STARTS_VERSION = 2
STARTS_MOST = 64
"""Orders that are given together; with more there would be little more to save."""


def _encoded(message: dict[str, Any]) -> bytes:
    """Bytes of arguments and variables that are no text are surrogates, which JSON has as escapes alone."""
    try:
        return _encode(message)
    except UnicodeEncodeError:
        return json.dumps(message).encode()


def _decoded(body: bytearray) -> dict[str, Any]:
    """The opposite: messages of errors have names of files."""
    try:
        return _decode(body)
    except ValueError:
        message: dict[str, Any] = json.loads(body)
        return message


def _frame(message: dict[str, Any]) -> bytes:
    body = _encoded(message)
    return _length.pack(len(body)) + body


def frames(messages: list[dict[str, Any]]) -> Iterator[bytes]:
    """The same in the same order, where orders that follow each other are given together: most of what elements of an array are
    told is the same, and the supervisor has less to read."""
    run: list[dict[str, Any]] = []
    for message in messages:
        if run and (len(run) == STARTS_MOST or not _go_together(run[0], message)):
            yield _frames_of(run)
            run = []
        run.append(message)
    yield _frames_of(run)


def _go_together(first: dict[str, Any], message: dict[str, Any]) -> bool:
    """What has a field less than another would get it from that."""
    both = first["op"] == message["op"] == "start"
    return both and first.keys() == message.keys() and first["env"].keys() == message["env"].keys()


def _frames_of(run: list[dict[str, Any]]) -> bytes:
    if len(run) > 1:
        first, env = run[0], run[0]["env"]
        together = _frame({"op": "starts", "common": first, "each": [_beside(first, env, message) for message in run]})
        if len(together) <= FRAME_LIMIT:
            return together
    return b"".join(map(_frame, run))


def _beside(first: dict[str, Any], env: dict[str, str], message: dict[str, Any]) -> dict[str, Any]:
    own = {name: value for name, value in message.items() if value != first[name]}
    if "env" in own:
        own["env"] = {name: value for name, value in message["env"].items() if value != env[name]}
    return own


class SupervisorClient:
    """Orders out, reports in. A broken connection ends the agent: the supervisor starts a new one, which adopts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unsent: list[dict[str, Any]] = []
        self._version = 0
        self._frames = FrameReader(parse=_decoded)

    @property
    def _address(self) -> str:
        """Through the directory's descriptor: the path may be longer than the 107 bytes of a socket's address."""
        return f"/proc/self/fd/{self._folder}/{self._path.name}"

    async def connect(self) -> dict[str, Any]:
        """Say hello; the answer, with the parts of a long one put together."""
        async with asyncio.timeout(CONNECT_S):
            self._folder = os.open(self._path.parent, os.O_PATH)
            self._reader, self._writer = await asyncio.open_unix_connection(self._address, limit=8 << 20)
            self.send({"op": "hello", "version": 1})
            welcome = await self.receive()
            self._version = welcome["version"]
            more = welcome.get("more")
            while more:
                part = await self.receive()
                welcome["attempts"] += part["attempts"]
                more = part.get("more")
        return welcome

    def send(self, message: dict[str, Any]) -> None:
        """In order; what one turn of the loop says is written at once. The message must stay as it is until then."""
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unsent.append(message)

    def _flush(self) -> None:
        messages, self._unsent = self._unsent, []
        framed = frames(messages) if self._version >= STARTS_VERSION else map(_frame, messages)
        self._writer.write(b"".join(framed))

    async def receive(self) -> dict[str, Any]:
        while (message := self._frames.next()) is None:
            await self._read()
        return message

    async def receive_some(self) -> list[dict[str, Any]]:
        """All that has come, and at least one."""
        while not (messages := list(self._frames)):
            await self._read()
        return messages

    async def _read(self) -> None:
        data = await self._reader.read(READ_MOST)
        if not data:
            raise asyncio.IncompleteReadError(data, None)
        self._frames.feed(data)

    async def attach(self, target: dict[str, Any]) -> "Attachment":
        """A connection of raw bytes to an attempt's stdin or terminal, or to an exec's channel."""
        async with asyncio.timeout(CONNECT_S):
            attached = await Attachment.open(self._address)
            attached.write(_frame({"op": "attach", **target}))
            await attached.drain()
        return attached

    async def attach_from(self, number: int) -> tuple[int, "Attachment"]:
        """Attach to a terminal: how many bytes it had written until then, and the connection that has the rest."""
        attached = await self.attach({"number": number, "greet": True})
        try:
            async with asyncio.timeout(CONNECT_S):
                (size,) = _length.unpack(await attached.exactly(4))
                return int(json.loads(await attached.exactly(size))["written"]), attached
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            attached.close()
            raise ConnectionError("the terminal is closed") from None


class Attachment:
    """Bytes both ways. The socket has one descriptor for each: asyncio gives up both directions of a transport whose write
    fails, and a process that reads no more may still have something to say."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._sink = socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno()))
        self._sink.setblocking(False)
        self._unsent = b""

    @classmethod
    async def open(cls, address: str) -> "Attachment":
        return cls(*await asyncio.open_unix_connection(address))

    async def read(self, most: int) -> bytes:
        """What came, or nothing at its end; a process that left input unread resets the connection, which is one."""
        try:
            return await self._reader.read(most)
        except ConnectionError:
            return b""

    async def exactly(self, size: int) -> bytes:
        return await self._reader.readexactly(size)

    def write(self, data: bytes) -> None:
        self._unsent += data

    async def drain(self) -> None:
        """Until the supervisor has taken what was written."""
        data, self._unsent = self._unsent, b""
        await asyncio.get_running_loop().sock_sendall(self._sink, data)

    def write_eof(self) -> None:
        self._sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._sink.close()
        self._writer.close()
