"""Files that an attempt left and its task asks for: read as what they are, stored piece by piece, listed in a manifest.

The directory is its owner's, who may do anything there, also while it is read: no link is followed, and a file that is not
the owner's own is left out, however it came there.
"""

import asyncio
import hashlib
import os
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from jarvis.core.errors import InvalidValue
from jarvis.core.globs import matcher
from jarvis.core.manifest import PIECE, SMALL, File, Manifest, Pack, Packer, encode, safe_path
from jarvis.worker.file_cache import FileCache
from jarvis.worker.machine import Work
from jarvis.worker.task_executor import PutBlob

MAX_TOLD = 20
"""So many of those that were left out are named."""
FILES_AT_ONCE = 4
AT_ONCE = 2
"""Pieces of a file on their way; all requests of a node together have a window of their own, so that heartbeats do not wait."""
TRIES = 5
FIRST_WAIT_S = 0.5
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Pulled:
    """Stores them by ``put``, as results are; those of steps stay in the ``cache``, too: steps after them may want them."""

    def __init__(self, put: PutBlob, cache: FileCache) -> None:
        self._put, self._cache = put, cache

    async def collect(self, work: Work, directory: str, owner: int | None) -> tuple[str, tuple[File, ...]]:
        """The digest of the manifest, and its files. ``owner``: whose the files must be; None where the agent has no more rights
        than the task. Raises OSError when what is there cannot be kept."""
        found = await asyncio.to_thread(_find, directory, work.spec.artifacts)
        files: dict[str, File] = {}

        async def keep(paths: Iterator[str]) -> None:
            for path in paths:
                try:
                    with _opened(directory, path, owner) as descriptor:
                        files[path] = await self._file(work, path, descriptor)
                except _LeftOut as error:
                    found.leave_out(path, str(error))

        rest = iter(found.paths)
        keepers = [asyncio.create_task(keep(rest)) for _ in range(FILES_AT_ONCE)]
        keepers.append(asyncio.create_task(self._keep_small(work, directory, owner, found, files)))
        try:
            await asyncio.gather(*keepers)
        finally:
            for keeper in keepers:
                keeper.cancel()
            await asyncio.wait(keepers)
        kept = tuple(files[path] for path in sorted(files))
        try:
            data = encode(Manifest(kept, tuple(found.told)))
        except InvalidValue as error:
            raise OSError(str(error)) from None
        return await self._store(work, data), kept

    async def _keep_small(
        self, work: Work, directory: str, owner: int | None, found: "_Found", files: dict[str, File]
    ) -> None:
        """Pack by pack, each gathered beside the event loop."""
        gathered = _packed(directory, owner, found)
        while (pack := await asyncio.to_thread(next, gathered, None)) is not None:
            if pack.data:
                await self._store(work, pack.data)
            files.update((file.path, file) for file in pack.files)

    async def _file(self, work: Work, path: str, descriptor: int) -> File:
        """Its digests are of what was read, whatever happens to it meanwhile."""
        whole, size, last = hashlib.sha256(), 0, PIECE
        going: deque[asyncio.Task[str]] = deque()
        pieces: list[str] = []
        try:
            while last == PIECE:
                data = await asyncio.to_thread(_read_piece, descriptor, size, whole)
                last = len(data)
                size += last
                if len(going) == AT_ONCE:
                    pieces.append(await going.popleft())
                if data:
                    going.append(asyncio.create_task(self._store(work, data)))
            while going:
                pieces.append(await going.popleft())
        finally:
            for storing in going:
                storing.cancel()
        executable = bool(os.fstat(descriptor).st_mode & stat.S_IXUSR)
        file = File(path, size, whole.hexdigest(), tuple(pieces), executable)
        if work.spec.origin is not None:
            await self._cache.add(file, descriptor)
        return file

    async def _store(self, work: Work, data: bytes) -> str:
        """Until the server has it, through whatever time it is away; what it refuses again and again raises OSError."""
        wait, tries = FIRST_WAIT_S, 0
        while True:
            try:
                return await self._put(work.number, work.assignment.token, data)
            except TimeoutError:
                continue
            except OSError:
                tries += 1
                if tries >= TRIES:
                    raise
            await asyncio.sleep(wait)
            wait *= 2


@dataclass
class _Found:
    paths: list[str] = field(default_factory=list)
    small: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def leave_out(self, path: str, why: str) -> None:
        if len(self.told) < MAX_TOLD:
            self.told.append(f"{path!r}: {why}")


class _LeftOut(Exception):
    """It is not taken along; says why."""


def _find(directory: str, globs: tuple[str, ...]) -> _Found:
    """Matching regular files by rising path; what else matches is told of."""
    found, matches = _Found(), matcher(globs)
    for folder, folders, names, descriptor in os.fwalk(directory):
        folders.sort()
        below = os.path.relpath(folder, directory)
        for name in sorted(names):
            path = name if below == "." else f"{below}/{name}"
            if not matches(path):
                continue
            try:
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            except FileNotFoundError:  # something that the task left running removes files
                continue
            if why := _unfit(path, status.st_mode):
                found.leave_out(path, why)
            else:
                (found.small if status.st_size <= SMALL else found.paths).append(path)
    found.paths.sort()
    found.small.sort()
    return found


def _packed(directory: str, owner: int | None, found: _Found) -> Iterator[Pack]:
    """Small files in packs; empty ones, and what has grown meanwhile as far as it was small, are in there as they are."""
    packer = Packer()
    for path in found.small:
        try:
            with _opened(directory, path, owner) as descriptor:
                data = _read(descriptor, SMALL, 0)
                executable = bool(os.fstat(descriptor).st_mode & stat.S_IXUSR)
        except _LeftOut as error:
            found.leave_out(path, str(error))
            continue
        file = File(path, len(data), hashlib.sha256(data).hexdigest(), (), executable)
        if (pack := packer.add(file, data) if data else Pack(b"", (file,))) is not None:
            yield pack
    if (last := packer.finish()) is not None:
        yield last


def _unfit(path: str, mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "links are not followed"
    if not stat.S_ISREG(mode):
        return "not a regular file"
    try:
        path.encode()
        safe_path(path)
    except (UnicodeEncodeError, InvalidValue):
        return "its name cannot be used everywhere"
    return ""


@contextmanager
def _opened(directory: str, path: str, owner: int | None) -> Iterator[int]:
    """Step by step from the directory, so that no folder on the way can have become a link."""
    *folders, name = path.split("/")
    descriptor = os.open(directory, _FOLDER)
    try:
        for step, flags in [*((folder, _FOLDER) for folder in folders), (name, _FILE)]:
            try:
                following = os.open(step, flags, dir_fd=descriptor)
            except OSError as error:
                raise _LeftOut(error.strerror or "it cannot be opened") from None
            os.close(descriptor)
            descriptor = following
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _LeftOut("not a regular file")
        if owner is not None and status.st_uid != owner:
            raise _LeftOut("it belongs to another user")
        yield descriptor
    finally:
        os.close(descriptor)


def _read_piece(descriptor: int, offset: int, whole: "hashlib._Hash") -> bytes:
    piece = _read(descriptor, PIECE, offset)
    whole.update(piece)
    return piece


def _read(descriptor: int, most: int, offset: int) -> bytes:
    parts = []
    while most and (data := os.pread(descriptor, most, offset)):
        parts.append(data)
        most, offset = most - len(data), offset + len(data)
    return b"".join(parts)
