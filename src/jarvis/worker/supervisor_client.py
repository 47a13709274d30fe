"""The agent's side of the supervisor's socket: frames of JSON, one connection for orders and reports."""

import asyncio
import json
import os
import struct
from pathlib import Path
from typing import Any

_length = struct.Struct(">I")
CONNECT_S = 10.0


class SupervisorClient:
    """Orders out, reports in. A broken connection ends the agent: the supervisor starts a new one, which adopts."""

    def __init__(self, path: Path) -> None:
        self._path = path

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
        body = json.dumps(message, separators=(",", ":")).encode()
        self._writer.write(_length.pack(len(body)) + body)

    async def receive(self) -> dict[str, Any]:
        (size,) = _length.unpack(await self._reader.readexactly(4))
        message: dict[str, Any] = json.loads(await self._reader.readexactly(size))
        return message

    async def attach(self, target: dict[str, Any]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection of raw bytes to an attempt's stdin or terminal, or to an exec's channel."""
        async with asyncio.timeout(CONNECT_S):
            reader, writer = await asyncio.open_unix_connection(self._address)
            body = json.dumps({"op": "attach", **target}).encode()
            writer.write(_length.pack(len(body)) + body)
        return reader, writer

    async def attach_from(self, number: int) -> tuple[int, asyncio.StreamReader, asyncio.StreamWriter]:
        """Attach to a terminal: how many bytes it had written until then, and the connection that has the rest."""
        reader, writer = await self.attach({"number": number, "greet": True})
        try:
            async with asyncio.timeout(CONNECT_S):
                (size,) = _length.unpack(await reader.readexactly(4))
                return int(json.loads(await reader.readexactly(size))["written"]), reader, writer
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            writer.close()
            raise ConnectionError("the terminal is closed") from None
