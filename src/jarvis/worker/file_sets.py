"""Which sets of files were made here, by the digests of their manifests: so that it can be told how much of each is still kept,
also by an agent that starts anew."""

import asyncio
import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from jarvis.core.holdings import HELD_LEAST, HELD_MOST, Holdings
from jarvis.core.manifest import File

FILES_MOST = 256
"""Of a set, the largest: what is kept of the rest is thought to be as much in proportion."""


class FileSet(msgspec.Struct, gc=False, array_like=True):
    """Its bytes in all, and of its largest files those of each by digest."""

    size: int
    files: dict[str, int]


class FileSets:
    """Of the last ones that are large enough to be told of. ``kept``: the directory of files by digest."""

    def __init__(self, directory: Path, kept: Path) -> None:
        self._directory, self._kept = directory, kept
        self._sets: dict[str, FileSet] = {}
        """The one that was made last comes last."""
        self.made_some = asyncio.Event()
        directory.mkdir(mode=0o700, exist_ok=True)
        for path in sorted(directory.iterdir(), key=lambda path: path.stat().st_mtime):
            known = None if path.name.startswith(".") else _read(path)
            if known is None:  # a write that was broken off, or that a loss of power left
                path.unlink()
            else:
                self._sets[path.name] = known

    async def made(self, manifest: str, files: Sequence[File]) -> int:
        """A set came here; how much of it is kept, if that is worth telling of."""
        size = sum(file.size for file in files)
        if size < HELD_LEAST:
            return 0
        known = self._sets.pop(manifest, None)
        if known is None:
            largest = sorted(files, key=lambda file: -file.size)[:FILES_MOST]
            known = FileSet(size, {file.digest: file.size for file in largest})
        self._sets[manifest] = known
        gone = list(self._sets)[:-HELD_MOST]
        for digest in gone:
            del self._sets[digest]
        with suppress(OSError):  # it will not be told of, and nothing else
            await asyncio.to_thread(self._write, manifest, known, gone)
        self.made_some.set()
        kept = (await asyncio.to_thread(self._look, {manifest: known}))[manifest]
        return kept if kept >= HELD_LEAST else 0

    def _write(self, manifest: str, known: FileSet, gone: Sequence[str]) -> None:
        part = self._directory / f".{uuid.uuid4().hex}"
        part.write_bytes(msgspec.msgpack.encode(known))
        part.rename(self._directory / manifest)
        for digest in gone:
            (self._directory / digest).unlink(missing_ok=True)

    async def held(self) -> Holdings:
        """Bytes of each that are kept here now."""
        sets = dict(self._sets)
        return await asyncio.to_thread(self._look, sets) if sets else {}

    def _look(self, sets: dict[str, FileSet]) -> Holdings:
        there = {entry.name for entry in os.scandir(self._kept)}
        found: Holdings = {}
        for manifest, known in sets.items():
            kept = sum(size for digest, size in known.files.items() if digest in there)
            found[manifest] = known.size * kept // max(sum(known.files.values()), 1)
        return found


def _read(path: Path) -> FileSet | None:
    with suppress(msgspec.DecodeError):
        return msgspec.msgpack.decode(path.read_bytes(), type=FileSet)
    return None
