"""Blobs as files: two-level folders per project, made by the server alone; written, synced, then renamed."""

import asyncio
import errno
import hashlib
import os
import re
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG
from typing import Any, BinaryIO, TypeVar

from jarvis.core.errors import InvalidValue, NotFound, StoreUnavailable

T = TypeVar("T")
PART = ".part-"
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
        await self._do(_keep, path, data)
        return digest

    async def put_stream(self, project: str, chunks: AsyncIterator[bytes], limit: int) -> tuple[str, int]:
        hasher, size = hashlib.sha256(), 0
        file = await self._do(_begin, self._root)
        try:
            async for chunk in chunks:
                size += len(chunk)
                if size > limit:
                    raise InvalidValue("body", f"more than {limit} bytes", f"at most {limit} bytes")
                hasher.update(chunk)
                await self._do(file.write, chunk)
            await self._do(_finish, file, self._path(project, hasher.hexdigest()))
        finally:
            await asyncio.to_thread(_discard, file)
        return hasher.hexdigest(), size

    async def _do(self, work: Callable[..., T], *args: Any) -> T:
        """In a thread; what the disk refuses is StoreUnavailable."""
        try:
            return await asyncio.to_thread(work, *args)
        except OSError as error:
            raise _unavailable(error) from None

    async def get(self, project: str, digest: str) -> bytes:
        return await self.read(project, digest, 0, await self.size(project, digest))

    async def size(self, project: str, digest: str) -> int:
        try:
            return self._path(project, digest).stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            raise NotFound("blob", digest) from None

    async def read(self, project: str, digest: str, offset: int, length: int) -> bytes:
        return await self._do(_read, self._path(project, digest), digest, offset, length)

    async def touch(self, project: str, digest: str) -> None:
        path = self._path(project, digest)
        if not await self._do(_touch, path):
            raise NotFound("blob", digest)

    async def sweep(self, before: float, kept: Mapping[str, AbstractSet[str]]) -> int:
        folders = {_folder(project): digests for project, digests in kept.items()}
        return await self._do(_sweep, self._root, before, folders)

    async def delete(self, project: str, digest: str) -> bool:
        try:
            self._path(project, digest).unlink()
        except (FileNotFoundError, NotFound):
            return False
        return True

    async def total_bytes(self) -> int:
        return await asyncio.to_thread(_total, self._root)


def _folder(project: str) -> str:
    return hashlib.sha256(project.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _keep(path: Path, data: bytes) -> None:
    if path.exists():
        os.utime(path)
        # Whoever wrote it may not have come to the end yet; it is durable when its name is.
        _sync_directory(path.parent)
        return
    file = _begin(path.parent)
    try:
        file.write(data)
        _finish(file, path)
    finally:
        _discard(file)


def _begin(folder: Path) -> BinaryIO:
    """A new file under a name that no digest has."""
    _make(folder)
    return (folder / f"{PART}{uuid.uuid4().hex}").open("xb")


def _finish(file: BinaryIO, path: Path) -> None:
    """First the bytes, then the name."""
    file.flush()
    os.fsync(file.fileno())
    _make(path.parent)
    os.replace(file.name, path)
    _sync_directory(path.parent)


def _discard(file: BinaryIO) -> None:
    """Whatever is left of it under its first name."""
    with suppress(OSError):
        file.close()
    Path(file.name).unlink(missing_ok=True)


def _make(folder: Path) -> None:
    """A folder is durable when the one above it is."""
    if folder.is_dir():
        return
    _make(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    _sync_directory(folder.parent)


def _sync_directory(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _touch(path: Path) -> bool:
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _sweep(root: Path, before: float, kept: Mapping[str, AbstractSet[str]]) -> int:
    """Also what a crash left half-written. Walks slowly on purpose: a sweep is never in a hurry."""
    freed = 0
    for path in root.rglob("*"):
        parts = path.relative_to(root).parts
        name = "".join(parts[1:])
        if path.is_dir() or (len(parts) == 3 and name in kept.get(parts[0], ())):
            continue
        with suppress(FileNotFoundError):  # a file on its way that has its name by now
            status = path.stat(follow_symlinks=False)
            if status.st_mtime < before:
                path.unlink()
                freed += status.st_size
    return freed


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
    total = 0
    for file in root.rglob("*"):
        with suppress(FileNotFoundError):  # removed meanwhile
            stat = file.stat(follow_symlinks=False)
            total += stat.st_size if S_ISREG(stat.st_mode) else 0
    return total


def _unavailable(error: OSError) -> StoreUnavailable:
    if error.errno == errno.ENOSPC:
        return StoreUnavailable("the disk that holds the blobs is full")
    return StoreUnavailable(f"the blob directory cannot be written: {error}")
