"""The directory of an attempt, made from what was pushed before it starts."""

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from jarvis.core.errors import InvalidValue
from jarvis.core.manifest import File, check, decode, packs
from jarvis.worker.account import Account
from jarvis.worker.file_cache import FileCache
from jarvis.worker.file_sets import FileSets
from jarvis.worker.machine import Work
from jarvis.worker.task_executor import FetchBlob

AT_ONCE = 4
"""Files, or packs of small ones, that are made at once for an attempt."""


class Pushed:
    """Builds each directory where only the agent can go, and puts it into its place when it is whole."""

    def __init__(self, directory: Path, fetch: FetchBlob, cache: FileCache, sets: FileSets) -> None:
        self._fetch, self._cache, self._sets = fetch, cache, sets
        self._staging = directory / "staging"
        shutil.rmtree(self._staging, ignore_errors=True)
        self._staging.mkdir(mode=0o700)

    async def stage(self, work: Work, account: Account, target: Path) -> None:
        """Make ``target``. Raises OSError where something of it cannot be had, and leaves nothing behind."""
        task, building = work.assignment.task, self._staging / str(work.number)
        sets = await self._sets_of(task, work.spec.push)
        files = await asyncio.to_thread(_together, sets)
        try:
            await asyncio.to_thread(_make_folders, building, files)
            packed = packs(files)
            rest = iter([*packed.values(), *([file] for file in files if file.within is None)])
            makers = [asyncio.create_task(self._make(task, rest, building)) for _ in range(AT_ONCE)]
            try:
                await asyncio.gather(*makers)
            finally:
                for maker in makers:
                    maker.cancel()
                await asyncio.wait(makers)
            if account.switch is not None:
                await asyncio.to_thread(_give, building, account.switch["uid"], account.switch["gid"])
            for manifest, own in sets.items():
                await self._sets.made(manifest, own)
            building.rename(target)
        finally:
            await asyncio.to_thread(shutil.rmtree, building, True)

    async def _sets_of(self, task: int, manifests: tuple[str, ...]) -> dict[str, tuple[File, ...]]:
        """The files of each manifest."""
        try:
            return {
                digest: (await asyncio.to_thread(decode, await self._fetch(task, digest))).files for digest in manifests
            }
        except InvalidValue as error:
            raise OSError(str(error)) from None

    async def _make(self, task: int, together: Iterator[list[File]], building: Path) -> None:
        for files in together:
            if files[0].within is None:
                await self._cache.put(task, files[0], building / files[0].path)
            else:
                await self._cache.put_pack(task, files, building)


def _together(sets: dict[str, tuple[File, ...]]) -> list[File]:
    """Of all manifests. The same file may be in several of them, different ones of one path may not."""
    found: dict[str, File] = {}
    for files in sets.values():
        for file in files:
            before = found.setdefault(file.path, file)
            if before.digest != file.digest:
                raise OSError(f"{file.path} is pushed twice, with different contents")
    try:
        check(list(found.values()))
    except InvalidValue as error:
        raise OSError(str(error)) from None
    return list(found.values())


def _make_folders(building: Path, files: list[File]) -> None:
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(mode=0o700)
    for folder in sorted({os.path.dirname(file.path) for file in files}):
        (building / folder).mkdir(mode=0o755, parents=True, exist_ok=True)


def _give(building: Path, uid: int, gid: int) -> None:
    """To the task's owner, from the inside out: until the last step nobody else can come in."""
    for folder, _, names, descriptor in os.fwalk(building, topdown=False):
        for name in names:
            os.chown(name, uid, gid, dir_fd=descriptor, follow_symlinks=False)
        os.chown(folder, uid, gid, follow_symlinks=False)
