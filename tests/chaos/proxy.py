"""A TCP proxy that does to bytes what networks do: slow, narrow, stuck, doubled, cut with a reset at a random byte."""

import asyncio
import socket
import struct
from random import Random


class Proxy:
    """Passes connections on to ``target`` (host, port); its faults may be set at any time."""

    def __init__(self, target: tuple[str, int], random: Random) -> None:
        self._target, self._random = target, random
        self.delay_s = 0.0
        """Mean; each piece takes between half and one and a half of it, in order."""
        self.bytes_per_s: float | None = None
        self.stuck = False
        """Nothing is passed on, and nobody is told."""
        self.reset_after: int | None = None
        """Each new connection is reset after at most so many bytes."""
        self.port = 0
        self.connections = self.resets = 0
        self._open: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        await self.cut()

    async def cut(self) -> None:
        """All connections end."""
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            there, back = await asyncio.open_connection(*self._target)
        except OSError:
            writer.close()
            self._open.discard(task)
            return
        budget = [self._random.randint(1, self.reset_after)] if self.reset_after else [-1]
        ways = [
            asyncio.create_task(self._pass(reader, back, budget)),
            asyncio.create_task(self._pass(there, writer, budget)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for end in (writer, back):
                if budget[0] == 0:
                    _reset(end)
                end.close()
            self.resets += budget[0] == 0
            self._open.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, budget: list[int]) -> None:
        while data := await reader.read(64 * 1024):
            while self.stuck:  # noqa: ASYNC110 - set by whoever plays the network
                await asyncio.sleep(0.02)
            if self.delay_s:
                await asyncio.sleep(self.delay_s * self._random.uniform(0.5, 1.5))
            if self.bytes_per_s:
                await asyncio.sleep(len(data) / self.bytes_per_s)
            if budget[0] >= 0:
                data = data[: budget[0]]
                budget[0] -= len(data)
            writer.write(data)
            await writer.drain()
            if budget[0] == 0:
                return


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
