"""Output on its way: small ends ride inline, larger ones go as compressed chunks that the server acknowledges."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import zstandard

from jarvis.bus.messages import ChunkStored, OutputChunk
from jarvis.core.attempt import Output

INLINE = 4096
CHUNK = 256 * 1024
ACK_S = 60.0


def read_range(path: str, offset: int, length: int) -> bytes:
    """Bytes of a regular file, never through a link that a task may have planted; empty when it is not there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return os.pread(descriptor, length, offset)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def file_size(path: str) -> int:
    try:
        return os.stat(path, follow_symlinks=False).st_size
    except OSError:
        return 0


def inline_output(path: str, size: int, chosen: bool) -> Output | None:
    """The output as it can ride in the end report, or None when it has to be shipped."""
    where = path if chosen else None
    if size == 0:
        return Output(path=where)
    if size <= INLINE:
        return Output(size=size, inline=read_range(path, 0, size), path=where)
    return None


class Shipper:
    """Sends large outputs chunk by chunk, each acknowledged after it is durable."""

    def __init__(self, say: Callable[[OutputChunk], None]) -> None:
        self._say = say
        self._waiting: dict[tuple[int, str, int], asyncio.Future[str]] = {}

    def stored(self, ack: ChunkStored) -> None:
        future = self._waiting.pop((ack.number, ack.stream, ack.offset), None)
        if future is not None and not future.done():
            future.set_result(ack.digest)

    async def ship(
        self, number: int, token: int, stream: str, path: str, size: int, chosen: bool, base: int = 0
    ) -> Output:
        """Send ``size`` bytes of a file from ``base`` on; a chunk that is not acknowledged (the session broke) is sent again."""
        chunks: list[tuple[int, str]] = []
        compressor = zstandard.ZstdCompressor(level=3)
        offset = 0
        while offset < size:
            data = await asyncio.to_thread(read_range, path, base + offset, min(CHUNK, size - offset))
            if not data:
                break
            packed = compressor.compress(data)
            chunk = OutputChunk(number=number, token=token, stream=stream, offset=offset, size=len(data), data=packed)
            chunks.append((offset, await self._until_stored(chunk)))
            offset += len(data)
        return Output(size=offset, chunks=tuple(chunks), path=path if chosen else None)

    async def _until_stored(self, chunk: OutputChunk) -> str:
        wait = 0.2
        while True:
            future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            self._waiting[chunk.number, chunk.stream, chunk.offset] = future
            self._say(chunk)
            try:
                async with asyncio.timeout(wait):
                    return await future
            except TimeoutError:
                wait = min(wait * 2, ACK_S)


async def follow(path: str, offset: int, ended: Callable[[], bool], poll_s: float = 0.1) -> AsyncIterator[bytes]:
    """Bytes of a growing file until its writer has ended and everything was read."""
    while True:
        over = ended()
        data = await asyncio.to_thread(read_range, path, offset, CHUNK)
        if data:
            offset += len(data)
            yield data
        elif over:
            return
        else:
            await asyncio.sleep(poll_s)


def remove_quietly(path: Path) -> None:
    """A file that is gone already is as good."""
    try:
        path.unlink()
    except OSError:
        return
