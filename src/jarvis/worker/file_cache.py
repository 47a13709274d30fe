"""Files by digest on this node, so that what many attempts need comes over the network once; checked whenever it is used."""

import asyncio
import hashlib
import logging
import os
import uuid
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from jarvis.core.manifest import File
from jarvis.worker.task_executor import FetchBlob

log = logging.getLogger("jarvis.files")

AHEAD = 4
"""Pieces that are asked for before the one that is written has come."""
READ = 1024 * 1024
TRIES = 3
EXECUTABLE, PLAIN = 0o755, 0o644
"""Modes of what is made: as Git, only whether it can be run is taken over."""


class FileCache:
    """At most ``most`` bytes, those that were used longest ago go first; a file of more than half of that is never kept."""

    def __init__(self, directory: Path, fetch: FetchBlob, most: int) -> None:
        self._directory, self._fetch, self._most = directory, fetch, most
        self._coming: dict[str, asyncio.Task[None]] = {}
        directory.mkdir(mode=0o700, exist_ok=True)
        for part in directory.glob(".*"):
            part.unlink()
        self._size = _make_room(directory, most, "")
        """Bytes that are kept, or more: it is counted again when it seems too much."""

    async def put(self, task: int, file: File, target: Path) -> None:
        """Make ``target``, a new file with these bytes. Raises OSError when they cannot be had."""
        if file.size > self._most // 2:
            await self._download(task, file, target)
            return
        for _ in range(TRIES):
            await self._here(task, file)
            with suppress(FileNotFoundError):  # it had to go in this very moment
                if await asyncio.to_thread(_copy, self._directory / file.digest, target, file):
                    return
        raise OSError(f"{file.path}: this node's copy goes bad again and again")

    async def put_pack(self, task: int, files: list[File], building: Path) -> None:
        """Make files that lie in one pack, below ``building``. Raises OSError when they cannot be had."""
        lacking = await asyncio.to_thread(self._copied, files, building)
        if lacking:
            data = await self._fetch(task, lacking[0].pieces[0])
            await asyncio.to_thread(self._cut, data, lacking, building)
            await self._added(sum(file.size for file in lacking), "")

    async def add(self, file: File, descriptor: int) -> None:
        """Keep a file that is open for another reason. Whatever its bytes are by now, they are checked when they are used."""
        path = self._directory / file.digest
        if file.size > self._most // 2 or path.exists():
            return
        part = path.with_name(f".{uuid.uuid4().hex}")
        try:
            await asyncio.to_thread(_take_over, descriptor, part, file)
            part.rename(path)
        except OSError as error:
            log.info("%s is not kept for others: %s", file.path, error)
            return
        finally:
            part.unlink(missing_ok=True)
        await self._added(file.size, file.digest)

    def _copied(self, files: list[File], building: Path) -> list[File]:
        """Those that are not kept here."""
        lacking = []
        for file in files:
            done = False
            with suppress(FileNotFoundError):
                done = _copy(self._directory / file.digest, building / file.path, file)
            if not done:
                lacking.append(file)
        return lacking

    def _cut(self, data: bytes, files: list[File], building: Path) -> None:
        for file in files:
            assert file.within is not None
            own = data[file.within : file.within + file.size]
            if hashlib.sha256(own).hexdigest() != file.digest:
                raise _wrong(file)
            part = self._directory / f".{uuid.uuid4().hex}"
            for path in (part, building / file.path):
                with path.open("xb") as out:
                    os.fchmod(out.fileno(), EXECUTABLE if file.executable else PLAIN)
                    out.write(own)
            part.rename(self._directory / file.digest)

    async def _added(self, size: int, digest: str) -> None:
        self._size += size
        if self._size > self._most:
            self._size = await asyncio.to_thread(_make_room, self._directory, self._most, digest)

    async def _here(self, task: int, file: File) -> None:
        """Those who want the same at the same time share the download."""
        path = self._directory / file.digest
        if path.exists():
            return
        coming = self._coming.get(file.digest)
        if coming is None:
            coming = self._coming[file.digest] = asyncio.create_task(self._take_in(task, file, path))
            coming.add_done_callback(lambda done: self._taken_in(file.digest, done))
        await asyncio.shield(coming)

    def _taken_in(self, digest: str, done: asyncio.Task[None]) -> None:
        """Also when those who wanted it do not wait any more."""
        self._coming.pop(digest, None)
        if not done.cancelled():
            done.exception()

    async def _take_in(self, task: int, file: File, path: Path) -> None:
        part = path.with_name(f".{uuid.uuid4().hex}")
        try:
            await self._download(task, file, part)
            part.rename(path)
        finally:
            part.unlink(missing_ok=True)
        await self._added(file.size, file.digest)

    async def _download(self, task: int, file: File, target: Path) -> None:
        whole = hashlib.sha256()
        with target.open("xb") as out:
            os.fchmod(out.fileno(), EXECUTABLE if file.executable else PLAIN)
            async for data in self._pieces(task, file):
                await asyncio.to_thread(_write, out, whole, data)
            if out.tell() != file.size or whole.hexdigest() != file.digest:
                raise _wrong(file)

    async def _pieces(self, task: int, file: File) -> AsyncIterator[bytes]:
        """In order, a few of them on their way at once."""
        coming: deque[asyncio.Future[bytes]] = deque()
        rest = iter(file.pieces)
        try:
            while True:
                while len(coming) < AHEAD and (piece := next(rest, None)) is not None:
                    coming.append(asyncio.ensure_future(self._fetch(task, piece)))
                if not coming:
                    return
                yield await coming.popleft()
        finally:
            for future in coming:
                future.cancel()


def _wrong(file: File) -> OSError:
    return OSError(f"{file.path}: its pieces do not make up the file that was meant")


def _write(out: BinaryIO, whole: "hashlib._Hash", data: bytes) -> None:
    whole.update(data)
    out.write(data)


def _take_over(descriptor: int, target: Path, file: File) -> None:
    at = 0
    with target.open("xb") as out:
        os.fchmod(out.fileno(), EXECUTABLE if file.executable else PLAIN)
        while at < file.size and (done := os.sendfile(out.fileno(), descriptor, at, file.size - at)):
            at += done


def _copy(source: Path, target: Path, file: File) -> bool:
    """Whether the copy is right; the source of a wrong one goes, and the copy with it."""
    whole = hashlib.sha256()
    with source.open("rb") as data, target.open("xb") as out:
        os.fchmod(out.fileno(), EXECUTABLE if file.executable else PLAIN)
        while block := data.read(READ):
            _write(out, whole, block)
    if whole.hexdigest() != file.digest:
        source.unlink(missing_ok=True)
        target.unlink()
        return False
    with suppress(FileNotFoundError):  # it had to go while it was copied
        os.utime(source)
    return True


def _make_room(directory: Path, most: int, but: str) -> int:
    """``but`` has only just come and stays; the bytes that are left."""
    found = []
    for entry in os.scandir(directory):
        with suppress(FileNotFoundError):
            status = entry.stat(follow_symlinks=False)
            found.append((status.st_mtime, status.st_size, entry.name))
    total = sum(size for _, size, _ in found)
    for _, size, name in sorted(found):
        if total <= most:
            break
        if name != but and not name.startswith("."):
            (directory / name).unlink(missing_ok=True)
            total -= size
    return total
