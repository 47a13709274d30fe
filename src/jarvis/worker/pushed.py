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
from jarvis.worker.machine import Work
from jarvis.worker.task_executor import FetchBlob

AT_ONCE = 4
"""Files, or packs of small ones, that are made at once for an attempt."""


class Pushed:
    """Builds each directory where only the agent can go, and puts it into its place when it is whole."""

    def __init__(self, directory: Path, fetch: FetchBlob, cache_bytes: int) -> None:
        self._fetch = fetch
        self._staging = directory / "staging"
        shutil.rmtree(self._staging, ignore_errors=True)
        self._staging.mkdir(mode=0o700)
        self._cache = FileCache(directory / "files", fetch, cache_bytes)

    async def stage(self, work: Work, account: Account, target: Path) -> None:
        """Make ``target``. Raises OSError where something of it cannot be had, and leaves nothing behind."""
        task, building = work.assignment.task, self._staging / str(work.number)
        files = await self._files(task, work.spec.push)
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
            building.rename(target)
        finally:
            await asyncio.to_thread(shutil.rmtree, building, True)

    async def _files(self, task: int, manifests: tuple[str, ...]) -> list[File]:
        """Of all manifests together. The same file may be in several of them, different ones of one path may not."""
        found: dict[str, File] = {}
        try:
            for digest in manifests:
                listed = await asyncio.to_thread(decode, await self._fetch(task, digest))
                for file in listed.files:
                    before = found.setdefault(file.path, file)
                    if before.digest != file.digest:
                        raise OSError(f"{file.path} is pushed twice, with different contents")
            await asyncio.to_thread(check, list(found.values()))
        except InvalidValue as error:
            raise OSError(str(error)) from None
        return list(found.values())

    async def _make(self, task: int, together: Iterator[list[File]], building: Path) -> None:
        for files in together:
            if files[0].within is None:
                await self._cache.put(task, files[0], building / files[0].path)
            else:
                await self._cache.put_pack(task, files, building)


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
