"""Blobs in a bucket of an object store that speaks S3: for bodies that no disk of the servers' own should hold.

An object cannot be touched, so that something refers to it again is written down beside it, as an empty object in ``used/``;
how old a body is, is told by the younger of the two.
"""

import asyncio
import hashlib
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, TypeVar

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import ObjectStore, S3Store

from jarvis.core.errors import InvalidValue, NotFound, StoreUnavailable

if TYPE_CHECKING:
    from obstore.store import S3Config

T = TypeVar("T")
BODIES, USED, PARTS = "bodies", "used", "parts"
SMALL = 8 * 1024 * 1024
"""A stream up to this size is sent in one request; of a longer one, parts of this size."""
SWEEP_PAGE = 1000
COUNT_AGAIN_S = 3600.0
RESOLUTION_S = 1.0
"""S3 tells whole seconds, so that something may seem older than it is."""
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


def open_bucket(url: str, endpoint: str = "") -> ObjectStore:
    """The bucket of ``s3://BUCKET/PREFIX``; keys and region as AWS's own tools take them from the environment. ``endpoint``:
    where another provider's S3 is."""
    options: S3Config = {"virtual_hosted_style_request": not endpoint}
    if endpoint:
        options["endpoint"] = endpoint
    return S3Store.from_url(url, config=options, client_options={"allow_http": endpoint.startswith("http://")})


class ObjectBlobStore:
    """See the port. Project names are hashed, so that any text is one."""

    def __init__(self, bucket: ObjectStore) -> None:
        self._bucket = bucket
        self._total, self._counted_at = 0, float("-inf")

    async def put(self, project: str, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        if not await self._touched(project, digest):
            await _asked(obstore.put_async(self._bucket, _key(BODIES, project, digest), data))
            self._total += len(data)
        return digest

    async def put_stream(self, project: str, chunks: AsyncIterator[bytes], limit: int) -> tuple[str, int]:
        """What is small goes at once under its name; what is large goes elsewhere first, because its name is known last."""
        part = f"{PARTS}/{uuid.uuid4().hex}"
        writer = obstore.open_writer_async(self._bucket, part, buffer_size=SMALL)
        hasher, size, begun = hashlib.sha256(), 0, bytearray()
        try:
            async for chunk in chunks:
                size += len(chunk)
                if size > limit:
                    raise InvalidValue("body", f"more than {limit} bytes", f"at most {limit} bytes")
                hasher.update(chunk)
                begun += chunk
                if len(begun) >= SMALL:
                    await _asked(writer.write(bytes(begun)))
                    begun.clear()
            if size < SMALL:
                return await self.put(project, bytes(begun)), size
            await _asked(writer.write(bytes(begun)))
            await _asked(writer.close())
            digest = hasher.hexdigest()
            if not await self._touched(project, digest):
                await _asked(obstore.copy_async(self._bucket, part, _key(BODIES, project, digest)))
                self._total += size
            return digest, size
        finally:
            if size >= SMALL:
                await self._drop_part(writer, part)

    async def _drop_part(self, writer: Any, part: str) -> None:
        """Whatever became of it. What cannot be dropped now goes in a sweep."""
        for work in (writer.close, lambda: obstore.delete_async(self._bucket, part)):
            try:
                await work()
            except (BaseError, OSError):
                continue

    async def get(self, project: str, digest: str) -> bytes:
        found = await _asked(obstore.get_async(self._bucket, _named(project, digest)), digest)
        return bytes(await _asked(found.bytes_async(), digest))

    async def size(self, project: str, digest: str) -> int:
        return int((await _asked(obstore.head_async(self._bucket, _named(project, digest)), digest))["size"])

    async def read(self, project: str, digest: str, offset: int, length: int) -> bytes:
        end = min(offset + length, await self.size(project, digest))
        if offset >= end:
            return b""
        key = _named(project, digest)
        return bytes(await _asked(obstore.get_range_async(self._bucket, key, start=offset, end=end), digest))

    async def touch(self, project: str, digest: str) -> None:
        if not await self._touched(project, digest):
            raise NotFound("blob", digest[:80])

    async def _touched(self, project: str, digest: str) -> bool:
        """First that it is used, then whether it is there: a sweep between the two finds it used."""
        if not _DIGEST.match(digest):
            return False
        try:
            await self.size(project, digest)
            await _asked(obstore.put_async(self._bucket, _key(USED, project, digest), b""))
            await self.size(project, digest)
        except NotFound:
            return False
        return True

    async def sweep(self, before: float, kept: Mapping[str, AbstractSet[str]]) -> int:
        """Also what a crash left half-written, and marks that are older than what they speak of need be."""
        owners = {_owner(project): digests for project, digests in kept.items()}
        freed = 0
        async for key, size, at in self._listed(""):
            if at + RESOLUTION_S >= before:
                continue
            kind, owner, digest = (*key.split("/"), "", "")[:3]
            if kind == BODIES and (
                digest in owners.get(owner, ()) or await self._is_young(f"{USED}/{owner}/{digest}", before)
            ):
                continue
            await _asked(obstore.delete_async(self._bucket, key))
            freed += size
        self._total -= freed
        return freed

    async def _is_young(self, key: str, before: float) -> bool:
        try:
            found = await _asked(obstore.head_async(self._bucket, key), key)
        except NotFound:
            return False
        return found["last_modified"].timestamp() + RESOLUTION_S >= before

    async def _listed(self, prefix: str) -> AsyncIterator[tuple[str, int, float]]:
        """(key, size, when it was written) of everything below."""
        try:
            async for page in obstore.list(self._bucket, prefix or None, chunk_size=SWEEP_PAGE):
                for found in page:
                    yield found["path"], found["size"], found["last_modified"].timestamp()
        except (BaseError, OSError) as error:
            raise _unavailable(error) from None

    async def delete(self, project: str, digest: str) -> bool:
        try:
            self._total -= await self.size(project, digest)
        except NotFound:
            return False
        await asyncio.gather(*(
            _asked(obstore.delete_async(self._bucket, _key(kind, project, digest))) for kind in (BODIES, USED)
        ))  # fmt: skip
        return True

    async def total_bytes(self) -> int:
        """Counted now and then, because a bucket tells it object by object; what this server did since is known."""
        now = time.monotonic()
        if now - self._counted_at > COUNT_AGAIN_S:
            self._total, self._counted_at = sum([size async for _, size, _ in self._listed("")]), now
        return self._total


def _owner(project: str) -> str:
    return hashlib.sha256(project.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _key(kind: str, project: str, digest: str) -> str:
    return f"{kind}/{_owner(project)}/{digest}"


def _named(project: str, digest: str) -> str:
    if not _DIGEST.match(digest):
        raise NotFound("blob", digest[:80])
    return _key(BODIES, project, digest)


async def _asked(work: Awaitable[T], digest: str = "") -> T:
    """What the object store says; what it cannot say is :class:`NotFound` or :class:`StoreUnavailable`."""
    try:
        return await work
    except (NotFoundError, FileNotFoundError):
        raise NotFound("blob", digest[:80]) from None
    except (BaseError, OSError) as error:
        raise _unavailable(error) from None


def _unavailable(error: Exception) -> StoreUnavailable:
    return StoreUnavailable(f"the bucket that holds the blobs does not serve: {str(error).splitlines()[0][:300]}")
