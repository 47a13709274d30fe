"""Blobs as files: two-level folders per project, made by the server alone; written, synced, then renamed."""

import asyncio
import errno
import hashlib
import os
import re
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

from jarvis.core.errors import InvalidValue, NotFound, StoreUnavailable

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


class DirectoryBlobStore:
    """See the port. Project names are hashed into folder names, so that none can point elsewhere."""

    def __init__(self, directory: Path) -> None:
        self._root = directory

    def _path(self, project: str, digest: str) -> Path:
        if not _DIGEST.match(digest):
            raise NotFound("blob", digest[:80])
        folder = hashlib.sha256(project.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return self._root / folder / digest[:2] / digest[2:]

    async def put(self, project: str, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        path = self._path(project, digest)
        if not path.exists():
            await asyncio.to_thread(_write, path, [data])
        return digest

    async def put_stream(self, project: str, chunks: AsyncIterator[bytes], limit: int) -> tuple[str, int]:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = self._root / f".part-{uuid.uuid4().hex}"
        hasher, size = hashlib.sha256(), 0
        try:
            with temporary.open("xb") as file:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > limit:
                        raise InvalidValue("body", f"more than {limit} bytes", f"at most {limit} bytes")
                    hasher.update(chunk)
                    await asyncio.to_thread(file.write, chunk)
                await asyncio.to_thread(_sync, file.fileno())
            path = self._path(project, hasher.hexdigest())
            await asyncio.to_thread(_rename, temporary, path)
        except OSError as error:
            raise _unavailable(error) from None
        finally:
            temporary.unlink(missing_ok=True)
        return hasher.hexdigest(), size

    async def get(self, project: str, digest: str) -> bytes:
        return await self.read(project, digest, 0, await self.size(project, digest))

    async def size(self, project: str, digest: str) -> int:
        try:
            return self._path(project, digest).stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            raise NotFound("blob", digest) from None

    async def read(self, project: str, digest: str, offset: int, length: int) -> bytes:
        return await asyncio.to_thread(_read, self._path(project, digest), digest, offset, length)

    async def delete(self, project: str, digest: str) -> bool:
        try:
            self._path(project, digest).unlink()
        except FileNotFoundError:
            return False
        return True

    async def total_bytes(self) -> int:
        return await asyncio.to_thread(_total, self._root)


def _sync(descriptor: int) -> None:
    os.fsync(descriptor)


def _write(path: Path, parts: list[bytes]) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        _rename(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _unavailable(error) from None


def _rename(temporary: Path, path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read(path: Path, digest: str, offset: int, length: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise NotFound("blob", digest) from None
    try:
        return os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)


def _total(root: Path) -> int:
    return sum(f.stat().st_size for f in root.rglob("*") if f.is_file()) if root.exists() else 0


def _unavailable(error: OSError) -> StoreUnavailable:
    if error.errno == errno.ENOSPC:
        return StoreUnavailable("the disk that holds the blobs is full")
    return StoreUnavailable(f"the blob directory cannot be written: {error}")
