"""Blobs as chunks in PostgreSQL: what servers share that have no disk in common. For bodies far larger than memory there are
object stores."""

import hashlib
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from collections.abc import Set as AbstractSet

from jarvis.core.errors import InvalidValue, NotFound
from jarvis.state import queries
from jarvis.state.blob_store import CHUNK
from jarvis.state.postgres import Connection, Postgres

Q = queries.load("postgres")
PART = "part-"
"""Stands before the name of a stream whose digest is not known yet; no digest begins so."""
SWEEP_PAGE = 500


class PostgresBlobStore:
    """See the port. Shares the connections of ``postgres``, which the store opens and closes. Project names are hashed, so that
    any text is one."""

    def __init__(self, postgres: Postgres, clock: Callable[[], float] | None = None) -> None:
        self._postgres, self._clock = postgres, clock

    def _at(self) -> float | None:
        return None if self._clock is None else self._clock()

    async def put(self, project: str, data: bytes) -> str:
        project, digest = _owner(project), hashlib.sha256(data).hexdigest()
        if await self._touched(project, digest):
            return digest

        async def unit(c: Connection) -> None:
            for number, start in enumerate(range(0, len(data), CHUNK)):
                await c.execute(Q["chunk_put"], project, digest, number, data[start : start + CHUNK])
            await c.execute(Q["blob_put"], self._at(), project, digest, len(data))

        await self._postgres.transaction(unit)
        return digest

    async def put_stream(self, project: str, chunks: AsyncIterator[bytes], limit: int) -> tuple[str, int]:
        hasher, size, number, pending = hashlib.sha256(), 0, 0, b""
        owner, part = _owner(project), PART + uuid.uuid4().hex
        await self._postgres.fetch(Q["blob_put"], self._at(), owner, part, 0)  # so that a sweep finds what was left
        try:
            async for piece in chunks:
                size += len(piece)
                if size > limit:
                    raise InvalidValue("body", f"more than {limit} bytes", f"at most {limit} bytes")
                hasher.update(piece)
                pending += piece
                while len(pending) >= CHUNK:
                    await self._postgres.fetch(Q["chunk_put"], owner, part, number, pending[:CHUNK])
                    number, pending = number + 1, pending[CHUNK:]
            if pending:
                await self._postgres.fetch(Q["chunk_put"], owner, part, number, pending)
        except BaseException:
            await self.delete(project, part)
            raise
        digest = hasher.hexdigest()
        await self._postgres.transaction(lambda c: self._finish(c, owner, part, digest, size))
        return digest, size

    async def _finish(self, c: Connection, project: str, part: str, digest: str, size: int) -> None:
        """The part gets its name, unless there is a blob of that name."""
        if not await c.fetch(Q["blob_touch"], self._at(), project, digest):
            await c.execute(Q["chunk_rename"], project, part, digest)
            await c.execute(Q["blob_put"], self._at(), project, digest, size)
        await c.execute(Q["chunk_delete"], project, part)
        await c.execute(Q["blob_delete"], project, part)

    async def get(self, project: str, digest: str) -> bytes:
        return await self.read(project, digest, 0, await self.size(project, digest))

    async def size(self, project: str, digest: str) -> int:
        found = [] if digest.startswith(PART) else await self._postgres.fetch(Q["blob_get"], _owner(project), digest)
        if not found:
            raise NotFound("blob", digest[:80])
        return int(found[0][0])

    async def read(self, project: str, digest: str, offset: int, length: int) -> bytes:
        size = await self.size(project, digest)
        end = min(offset + length, size)
        if offset >= end:
            return b""
        first = offset // CHUNK
        rows = await self._postgres.fetch(Q["chunk_list"], _owner(project), digest, first, (end - 1) // CHUNK)
        data = b"".join(row[1] for row in rows)
        return data[offset - first * CHUNK : end - first * CHUNK]

    async def touch(self, project: str, digest: str) -> None:
        if digest.startswith(PART) or not await self._touched(_owner(project), digest):
            raise NotFound("blob", digest[:80])

    async def _touched(self, owner: str, digest: str) -> bool:
        return bool(await self._postgres.fetch(Q["blob_touch"], self._at(), owner, digest))

    async def sweep(self, before: float, kept: Mapping[str, AbstractSet[str]]) -> int:
        freed, project, digest = 0, "", ""
        kept = {_owner(name): digests for name, digests in kept.items()}
        while page := await self._postgres.fetch(Q["blob_list_old"], before, project, digest, SWEEP_PAGE):
            for project, digest in page:
                if digest not in kept.get(project, ()):
                    freed += await self._postgres.transaction(lambda c, p=project, d=digest: _drop_old(c, p, d, before))  # type: ignore[misc]
        return freed

    async def delete(self, project: str, digest: str) -> bool:
        owner = _owner(project)

        async def unit(c: Connection) -> bool:
            await c.execute(Q["chunk_delete"], owner, digest)
            return bool(await c.fetch(Q["blob_delete"], owner, digest))

        return await self._postgres.transaction(unit)

    async def total_bytes(self) -> int:
        return int((await self._postgres.fetch(Q["blob_total"]))[0][0])


def _owner(project: str) -> str:
    return hashlib.sha256(project.encode("utf-8", "surrogatepass")).hexdigest()[:16]


async def _drop_old(c: Connection, project: str, digest: str, before: float) -> int:
    """The bytes freed: none when it was touched meanwhile."""
    found = await c.fetch(Q["blob_delete_old"], project, digest, before)
    if not found:
        return 0
    await c.execute(Q["chunk_delete"], project, digest)
    return int(found[0][0])
