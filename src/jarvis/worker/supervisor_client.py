"""The agent's side of the supervisor's socket: frames of JSON, one connection for orders and reports."""

import asyncio
import json
import os
import socket
import struct
from pathlib import Path
from typing import Any

import msgspec

from jarvis.worker.supervisor.protocol import FRAME_LIMIT, ProtocolError

_length = struct.Struct(">I")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode
CONNECT_S = 10.0
READ_MOST = 1 << 16


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


class SupervisorClient:
    """Orders out, reports in. A broken connection ends the agent: the supervisor starts a new one, which adopts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unsent: list[bytes] = []
        self._data = bytearray()
        self._messages: list[dict[str, Any]] = []

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
            more = welcome.get("more")
            while more:
                part = await self.receive()
                welcome["attempts"] += part["attempts"]
                more = part.get("more")
        return welcome

    def send(self, message: dict[str, Any]) -> None:
        """In order; what one turn of the loop says is written at once."""
        body = _encoded(message)
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unsent += (_length.pack(len(body)), body)

    def _flush(self) -> None:
        data, self._unsent = b"".join(self._unsent), []
        self._writer.write(data)

    async def receive(self) -> dict[str, Any]:
        while not self._messages:
            await self._read()
        return self._messages.pop(0)

    async def receive_some(self) -> list[dict[str, Any]]:
        """All that has come, and at least one."""
        while not self._messages:
            await self._read()
        messages, self._messages = self._messages, []
        return messages

    async def _read(self) -> None:
        data = await self._reader.read(READ_MOST)
        if not data:
            raise asyncio.IncompleteReadError(data, None)
        self._feed(data)

    def _feed(self, data: bytes) -> None:
        """Of the last message only a part may be there."""
        self._data += data
        come, at = self._data, 0
        while at + 4 <= len(come):
            (size,) = _length.unpack_from(come, at)
            if size > FRAME_LIMIT:
                raise ProtocolError(f"a frame of {size} bytes is over the limit of {FRAME_LIMIT}")
            end = at + 4 + size
            if end > len(come):
                break
            self._messages.append(_decoded(come[at + 4 : end]))
            at = end
        del come[:at]

    async def attach(self, target: dict[str, Any]) -> "Attachment":
        """A connection of raw bytes to an attempt's stdin or terminal, or to an exec's channel."""
        async with asyncio.timeout(CONNECT_S):
            attached = await Attachment.open(self._address)
            body = json.dumps({"op": "attach", **target}).encode()
            attached.write(_length.pack(len(body)) + body)
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
