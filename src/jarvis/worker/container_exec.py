"""A command beside a task in its container: bytes both ways, and its exit code."""

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiodocker.execs import Exec
    from aiodocker.stream import Message, Stream

END_OF_INPUT = b"\x04"  # what a terminal's user types to end it
QUIET_S = 1.0
"""After that long without output the engine is asked whether the command is over."""


class ContainerExec:
    """Read and written like a connection; made by :meth:`~jarvis.worker.container_engine.Engine.execute`."""

    def __init__(self, started: "Exec", stream: "Stream", tty: bool) -> None:
        self._exec, self._stream, self._tty = started, stream, tty
        self._unsent: list[bytes] = []
        self._reading: asyncio.Future[Message | None] | None = None

    async def read(self, _most: int) -> bytes:
        """What came, or nothing when it has ended; the engine breaks off where input is left that nobody reads."""
        from aiohttp import ClientError

        try:
            message = await self._next()
        except (ClientError, OSError):
            return b""
        return b"" if message is None else bytes(message.data)

    async def _next(self) -> "Message | None":
        """An engine that has input left for a command that is over waits for a reader of it, and never says the end."""
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._stream.read_out())
        over = False
        while not (await asyncio.wait([self._reading], timeout=QUIET_S))[0]:
            if over:
                self._reading.cancel()
                return None
            over = not (await self._exec.inspect())["Running"]
        reading, self._reading = self._reading, None
        return reading.result()

    def write(self, data: bytes) -> None:
        self._unsent.append(data)

    async def drain(self) -> None:
        """Until the engine has taken what was written."""
        data, self._unsent = b"".join(self._unsent), []
        await self._stream.write_in(data)

    def write_eof(self) -> None:
        """The end of its input, which the client library can only say together with that of its output."""
        response: Any = self._stream._resp  # noqa: SLF001
        transport = response.connection.transport if response is not None and response.connection is not None else None
        if transport is None:
            return
        if self._tty:
            transport.write(END_OF_INPUT)
        else:
            transport.write_eof()

    async def resize(self, rows: int, columns: int) -> None:
        await self._exec.resize(h=rows, w=columns)

    def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        response: Any = self._stream._resp  # noqa: SLF001
        if response is not None:
            response.close()

    async def code(self, patience_s: float) -> int:
        """Its exit code; the engine may need a moment after its output has ended."""
        async with asyncio.timeout(patience_s):
            while (found := await self._exec.inspect())["Running"]:  # noqa: ASYNC110 - the engine has no event for it
                await asyncio.sleep(0.02)
        return int(found["ExitCode"])
