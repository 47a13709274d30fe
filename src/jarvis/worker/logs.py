"""Output on its way: small ends ride inline, larger ones go as compressed chunks that the server acknowledges."""

import asyncio
import errno
import os
import stat
from collections.abc import AsyncIterator, Callable

import zstandard

from jarvis.bus.messages import ChunkStored, OutputChunk
from jarvis.core.attempt import Output

INLINE = 4096
CHUNK = 256 * 1024
PIECE = 64 * 1024
ACK_S = 60.0
WINDOW = 4
"""Chunks on their way at once."""


EXHAUSTED = (errno.EMFILE, errno.ENFILE)
"""No descriptors are left: whoever meets that ends the agent, and the next one finds all as it is."""


def exhausted(task: asyncio.Task[None]) -> OSError | None:
    """What ended it, if that is a lack of descriptors."""
    error = None if task.cancelled() else task.exception()
    return error if isinstance(error, OSError) and is_lack(error) else None


def is_lack(error: Exception) -> bool:
    """Of descriptors."""
    return isinstance(error, OSError) and error.errno in EXHAUSTED


def read_range(path: str, offset: int, length: int, owner: int | None = None) -> bytes:
    """Bytes of a file, never through a link that a task may have planted; empty when it is not there. ``owner``: only
    if the file is theirs, because a directory on a user's own path may have become a link as well."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in EXHAUSTED:  # then nothing is known of the file
            raise
        return b""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or (owner is not None and status.st_uid != owner):
            return b""
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


def inline_output(path: str, size: int, chosen: bool, owner: int | None = None) -> Output | None:
    """The output as it can ride in the end report, or None when it has to be shipped."""
    where = path if chosen else None
    if size == 0:
        return Output(path=where)
    if size <= INLINE:
        return Output(size=size, inline=read_range(path, 0, size, owner), path=where)
    return None


def read_packed(path: str, offset: int, length: int, owner: int | None) -> tuple[int, bytes]:
    """(size, zstd) of a range."""
    data = read_range(path, offset, length, owner)
    return len(data), zstandard.ZstdCompressor(level=3).compress(data) if data else b""


class Shipper:
    """Sends large outputs chunk by chunk, each acknowledged after it is durable."""

    def __init__(self, say: Callable[[OutputChunk], None]) -> None:
        self._say = say
        self._waiting: dict[tuple[int, str, int], asyncio.Future[str]] = {}
        self._window = asyncio.Semaphore(WINDOW)

    def stored(self, ack: ChunkStored) -> None:
        future = self._waiting.pop((ack.number, ack.stream, ack.offset), None)
        if future is not None and not future.done():
            future.set_result(ack.digest)

    async def ship(
        self, number: int, token: int, stream: str, path: str, size: int, chosen: bool, base: int = 0,
        owner: int | None = None,
    ) -> Output:  # fmt: skip
        """Send ``size`` bytes of a file from ``base`` on; a chunk that is not acknowledged (the session broke) is sent again."""
        chunks: list[tuple[int, str]] = []
        offset = 0
        while offset < size:
            async with self._window:
                data, packed = await asyncio.to_thread(
                    read_packed, path, base + offset, min(CHUNK, size - offset), owner
                )
                if not data:
                    break
                chunk = OutputChunk(number=number, token=token, stream=stream, offset=offset, size=data, data=packed)
                chunks.append((offset, await self._until_stored(chunk)))
            offset += data
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


async def follow(
    path: str, offset: int, ended: Callable[[], bool], owner: int | None = None, poll_s: float = 0.1
) -> AsyncIterator[bytes]:
    """Bytes of a growing file until its writer has ended and everything was read."""
    while True:
        over = ended()
        data = await asyncio.to_thread(read_range, path, offset, PIECE, owner)
        if data:
            offset += len(data)
            yield data
        elif over:
            return
        else:
            await asyncio.sleep(poll_s)
