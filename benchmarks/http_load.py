"""Load over HTTP: so many connections, as fast as answers come, or at a rate whatever the answers do (so that a slow answer
counts for all that it held up). A raw client, because a library would cost more than the server.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable


class Connection:
    """One that is kept alive; one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, request: bytes) -> int:
        """The status of the answer, read to its end."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0")
        await self._reader.readexactly(int(length.split(b":")[1]))
        return int(head[9:12])

    def close(self) -> None:
        self._writer.close()


class Load:
    """``request(n)`` gives the bytes of the n-th request."""

    def __init__(self, url: str, connections: int, request: Callable[[int], bytes]) -> None:
        self._where, self._connections, self._request = urlsplit(url), connections, request
        self.times_ms: list[float] = []
        self.bad: dict[int, int] = {}

    async def _open(self) -> list[Connection]:
        host, port = self._where.hostname, self._where.port
        return [Connection(*await asyncio.open_connection(host, port)) for _ in range(self._connections)]

    async def _one(self, connection: Connection, number: int, since: float) -> None:
        status = await connection.ask(self._request(number))
        self.times_ms.append((time.perf_counter() - since) * 1000)
        if status >= 400:
            self.bad[status] = self.bad.get(status, 0) + 1

    async def closed(self, count: int) -> float:
        """Each connection asks again when it has its answer; answers a second."""
        open_ones = await self._open()
        numbers = iter(range(count))

        async def work(connection: Connection) -> None:
            for number in numbers:
                await self._one(connection, number, time.perf_counter())

        begin = time.perf_counter()
        await asyncio.gather(*map(work, open_ones))
        seconds = time.perf_counter() - begin
        for connection in open_ones:
            connection.close()
        return count / seconds

    async def paced(self, count: int, rate: float) -> None:
        """Requests are due at fixed instants; what waits for a free connection waits on its own account."""
        free: asyncio.Queue[Connection] = asyncio.Queue()
        open_ones = await self._open()
        for connection in open_ones:
            free.put_nowait(connection)
        begin = time.perf_counter()

        async def due(number: int) -> None:
            connection = await free.get()
            await self._one(connection, number, begin + number / rate)
            free.put_nowait(connection)

        async with asyncio.TaskGroup() as group:
            for number in range(count):
                await asyncio.sleep(max(begin + number / rate - time.perf_counter(), 0))
                group.create_task(due(number))
        for connection in open_ones:
            connection.close()


def request(method: str, url: str, token: str, path: str, body: bytes = b"") -> bytes:
    """As it goes over the wire."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {urlsplit(url).netloc}", f"Authorization: Bearer {token}"]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body
