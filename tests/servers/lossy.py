"""A socket before PostgreSQL that loses the connection at the very commit: before it arrives, or after it was done."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit


class Lossy:
    """``fates`` are those of the next commits that pass: ``before``, ``after`` or ``held``."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self.fates: list[str] = []
        self.lost = 0
        self.go_on = asyncio.Event()
        """A commit that is held is passed on once this is set; its client has been cut off long before."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, to_server = await asyncio.open_connection(*self._server)
        back = asyncio.create_task(_copy(answers, writer))
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                fate = self.fates.pop(0) if self.fates and b"COMMIT" in data else ""
                if not fate:
                    to_server.write(data)
                    continue
                self.lost += 1
                back.cancel()
                await asyncio.gather(back, return_exceptions=True)
                await self._lose(fate, data, (answers, to_server), writer)
                break
        back.cancel()
        to_server.transport.abort()
        writer.transport.abort()

    async def _lose(
        self, fate: str, data: bytes, server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        client: asyncio.StreamWriter,
    ) -> None:  # fmt: skip
        if fate == "before":
            return
        if fate == "held":
            client.transport.abort()
            await self.go_on.wait()
        server[1].write(data)
        await server[0].read(65536)  # it is done when the server says so, and only this proxy hears it


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.transport.abort()


@asynccontextmanager
async def lossy(url: str) -> AsyncIterator[tuple[Lossy, str]]:
    """The proxy, and the URL of the same database through it."""
    parts = urlsplit(url)
    proxy = Lossy(parts.hostname or "", parts.port or 0)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield proxy, url.replace(f":{parts.port}/", f":{port}/")
    finally:
        server.close()
        proxy.go_on.set()
