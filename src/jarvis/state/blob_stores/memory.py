"""Blobs in memory, for work that need not survive and for the simulation."""

import hashlib
from collections.abc import AsyncIterator

from jarvis.core.errors import InvalidValue, NotFound


class MemoryBlobStore:
    """See the port."""

    def __init__(self) -> None:
        self._blobs: dict[tuple[str, str], bytes] = {}

    async def put(self, project: str, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self._blobs[project, digest] = bytes(data)
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

    async def delete(self, project: str, digest: str) -> bool:
        return self._blobs.pop((project, digest), None) is not None

    async def total_bytes(self) -> int:
        return sum(map(len, self._blobs.values()))
