"""Blobs in memory, for work that need not survive and for the simulation."""

import hashlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from collections.abc import Set as AbstractSet

from jarvis.core.errors import InvalidValue, NotFound


class MemoryBlobStore:
    """See the port."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._blobs: dict[tuple[str, str], bytes] = {}
        self._used: dict[tuple[str, str], float] = {}

    async def put(self, project: str, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self._blobs[project, digest] = bytes(data)
        self._used[project, digest] = self._clock()
        return digest

    async def put_stream(self, project: str, chunks: AsyncIterator[bytes], limit: int) -> tuple[str, int]:
        data = bytearray()
        async for chunk in chunks:
            data += chunk
            if len(data) > limit:
                raise InvalidValue("body", f"more than {limit} bytes", f"at most {limit} bytes")
        return await self.put(project, bytes(data)), len(data)

    async def get(self, project: str, digest: str) -> bytes:
        try:
            return self._blobs[project, digest]
        except KeyError:
            raise NotFound("blob", digest) from None

    async def size(self, project: str, digest: str) -> int:
        return len(await self.get(project, digest))

    async def read(self, project: str, digest: str, offset: int, length: int) -> bytes:
        return (await self.get(project, digest))[offset : offset + length]

    async def touch(self, project: str, digest: str) -> None:
        await self.get(project, digest)
        self._used[project, digest] = self._clock()

    async def sweep(self, before: float, kept: Mapping[str, AbstractSet[str]]) -> int:
        old = [k for k, at in self._used.items() if at < before and k[1] not in kept.get(k[0], ())]
        freed = sum(len(self._blobs[key]) for key in old)
        for key in old:
            del self._blobs[key], self._used[key]
        return freed

    async def delete(self, project: str, digest: str) -> bool:
        self._used.pop((project, digest), None)
        return self._blobs.pop((project, digest), None) is not None

    async def total_bytes(self) -> int:
        return sum(map(len, self._blobs.values()))
