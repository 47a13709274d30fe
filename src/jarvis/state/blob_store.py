"""PORT: bodies by content address (sha256, hex) within a project; streamed, never wholly in memory above 256 KiB a chunk."""

from collections.abc import AsyncIterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Protocol

CHUNK = 256 * 1024


class BlobStore(Protocol):
    """Errors: :class:`NotFound` for an unknown digest, :class:`StoreUnavailable` when the disk is full or away."""

    async def put(self, project: str, data: bytes) -> str:
        """Store bytes durably; returns their digest. Putting the same bytes again costs nothing."""
        ...

    async def put_stream(self, project: str, chunks: AsyncIterator[bytes], limit: int) -> tuple[str, int]:
        """Store a stream durably; (digest, size). Raises InvalidValue above ``limit`` bytes and keeps nothing."""
        ...

    async def get(self, project: str, digest: str) -> bytes: ...
    async def size(self, project: str, digest: str) -> int: ...
    async def read(self, project: str, digest: str, offset: int, length: int) -> bytes:
        """At most ``length`` bytes from ``offset``; empty at the end."""
        ...

    async def touch(self, project: str, digest: str) -> None:
        """Something new refers to it: it is as young as if it were put now. Raises NotFound."""
        ...

    async def sweep(self, before: float, kept: Mapping[str, AbstractSet[str]]) -> int:
        """Remove what was put or touched last before an instant (of the file system's clock) and is not in ``kept``, digests
        by project; the bytes freed."""
        ...

    async def delete(self, project: str, digest: str) -> bool:
        """Whether there was one."""
        ...

    async def total_bytes(self) -> int: ...
