"""Blobs as files: two-level folders per project, made by the server alone; written, synced, then renamed."""

import asyncio
import errno
import hashlib
import os
import re
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TypeVar

from jarvis.core.errors import InvalidValue, NotFound, StoreUnavailable

T = TypeVar("T")
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


class DirectoryBlobStore:
    """See the port. Project names are hashed into folder names, so that none can point elsewhere."""

    def __init__(self, directory: Path) -> None:
        self._root = directory

    def _path(self, project: str, digest: str) -> Path:
        if not _DIGEST.match(digest):
            raise NotFound("blob", digest[:80])
        return self._root / _folder(project) / digest[:2] / digest[2:]

    async def put(self, project: str, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        path = self._path(project, digest)
        await asyncio.to_thread(_put, path, data)
        return digest

    async def put_stream(self, project: str, chunks: AsyncIterator[bytes], limit: int) -> tuple[str, int]:
        temporary = self._root / f".part-{uuid.uuid4().hex}"
        hasher, size = hashlib.sha256(), 0
        await _do(_make_folder, self._root)
        file = await _do(temporary.open, "xb")
        try:
            with file:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > limit:
                        raise InvalidValue("body", f"more than {limit} bytes", f"at most {limit} bytes")
                    hasher.update(chunk)
                    await _do(file.write, chunk)
                await _do(file.flush)
                await _do(os.fsync, file.fileno())
            await _do(_rename, temporary, self._path(project, hasher.hexdigest()))
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

    async def touch(self, project: str, digest: str) -> None:
        try:
            await asyncio.to_thread(os.utime, self._path(project, digest))
        except FileNotFoundError:
            raise NotFound("blob", digest) from None
        except OSError as error:
            raise _unavailable(error) from None

    async def sweep(self, before: float, kept: Mapping[str, AbstractSet[str]]) -> int:
        folders = {_folder(project): digests for project, digests in kept.items()}
        return await asyncio.to_thread(_sweep, self._root, before, folders)

    async def delete(self, project: str, digest: str) -> bool:
        try:
            self._path(project, digest).unlink()
        except FileNotFoundError:
            return False
        return True

    async def total_bytes(self) -> int:
        return await asyncio.to_thread(_total, self._root)


async def _do(work: Callable[..., T], *args: object) -> T:
    """In a thread; the disk's errors, and not those of whoever sends the bytes, become the store's."""
    try:
        return await asyncio.to_thread(work, *args)
    except OSError as error:
        raise _unavailable(error) from None


def _folder(project: str) -> str:
    return hashlib.sha256(project.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _put(path: Path, data: bytes) -> None:
    try:
        os.utime(path)
    except OSError:
        _write(path, data)
    else:
        _sync_folder(path.parent)  # who put it first may still be about to


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".part-{uuid.uuid4().hex}")
    try:
        _make_folder(path.parent)
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _rename(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _unavailable(error) from None


def _rename(temporary: Path, path: Path) -> None:
    _make_folder(path.parent)
    os.replace(temporary, path)
    _sync_folder(path.parent)


def _make_folder(path: Path) -> None:
    """Folders whose names are on disk before anything in them is told to be."""
    if path.is_dir():
        return
    _make_folder(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _sweep(root: Path, before: float, kept: Mapping[str, AbstractSet[str]]) -> int:
    """Also what a crash left half-written. Walks slowly on purpose: a sweep is never in a hurry."""
    freed = 0
    for path in root.rglob("*"):
        parts = path.relative_to(root).parts
        name = "".join(parts[1:])
        if path.is_dir() or (len(parts) == 3 and name in kept.get(parts[0], ())):
            continue
        status = path.stat(follow_symlinks=False)
        if status.st_mtime < before:
            path.unlink(missing_ok=True)
            freed += status.st_size
    return freed


def _read(path: Path, digest: str, offset: int, length: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise NotFound("blob", digest) from None
    except OSError as error:
        raise _unavailable(error) from None
    try:
        return os.pread(descriptor, length, offset)
    except OSError as error:
        raise _unavailable(error) from None
    finally:
        os.close(descriptor)


def _total(root: Path) -> int:
    return sum(f.stat().st_size for f in root.rglob("*") if f.is_file()) if root.exists() else 0


def _unavailable(error: OSError) -> StoreUnavailable:
    if error.errno == errno.ENOSPC:
        return StoreUnavailable("the disk that holds the blobs is full")
    return StoreUnavailable(f"the blob directory does not work: {error}")
