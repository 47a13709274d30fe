"""What attempts left on disk goes, at a pace: creating files becomes slow for minutes after many were deleted at once."""

import asyncio
import os
import shutil
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path

from jarvis.worker.places import INNER

MOST = 100_000
"""Attempts that are remembered; what does not fit is found when the agent starts the next time."""
BATCH = 50
CATCH_UP = 200
"""Of a backlog so much is removed at once: its size settles where as much goes as comes."""
AFTER_S = 1.0
ONCE_KEPT = "spares"
"""Where agents of an earlier version kept directories to give again."""
PAUSE_S = 0.25


class Remover:
    """Removes outputs and directories of attempts whose ends are safe."""

    def __init__(self, root: Path) -> None:
        """``root``: the folder with one for each task."""
        self._root, self._leftover = root, root.with_name("leftover")
        self._leftover.mkdir(mode=0o700, exist_ok=True)
        self._bases: deque[str] = deque(maxlen=MOST)
        self._some = asyncio.Event()

    def add(self, base: str) -> None:
        """The output file and the directory of an attempt."""
        self._bases.append(base)
        self._some.set()

    def sweep(self, keep: Callable[[int], bool]) -> None:
        """Folders of tasks that are not here any more, left by an agent that ended before it removed them. They are moved
        aside at once, because a task that is sent again makes the same ones, and must not lose them while it runs; and they
        are removed later, because what runs waits to be adopted."""
        for name in os.listdir(self._root):
            if name.isdigit() and not keep(int(name)):
                os.rename(self._root / name, self._leftover / f"{name}.{time.time_ns()}")
        with suppress(FileNotFoundError):
            os.rename(self._root.with_name(ONCE_KEPT), self._leftover / f"{ONCE_KEPT}.{time.time_ns()}")
        self._some.set()

    async def run(self) -> None:
        """Until cancelled. An idle node keeps up; a busy one removes later, never next to a burst."""
        while True:
            await self._some.wait()
            self._some.clear()
            await asyncio.sleep(AFTER_S)
            gone = 1
            while gone:
                gone = await asyncio.to_thread(self._remove_some)
                await asyncio.sleep(PAUSE_S)

    def _remove_some(self) -> int:
        """How many went; what an agent before this one left comes last."""
        most = max(BATCH, len(self._bases) // CATCH_UP)
        bases = [self._bases.popleft() for _ in range(min(most, len(self._bases)))]
        remove_bases(bases)
        return len(bases) or remove_folders(self._leftover, most)


def remove_folders(parent: Path, most: int) -> int:
    """So many of the folders in ``parent``; how many of them are gone."""
    try:
        with os.scandir(parent) as entries:
            paths = [entry.path for entry in islice(entries, most)]
    except OSError:  # no descriptors are left
        return 0
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)
    return sum(not os.path.lexists(path) for path in paths)


def remove_bases(bases: list[str]) -> None:
    for base in bases:
        try:
            os.unlink(f"{base}.out")
        except OSError:
            pass
        _remove_scratch(f"{base}.d")
    for folder in {os.path.dirname(base) for base in bases}:
        try:
            os.rmdir(folder)
        except OSError:
            continue  # others of its elements are still there


def _remove_scratch(folder: str) -> None:
    """Most tasks leave nothing in it: it is another's by now, or three calls remove it."""
    try:
        for path in (*(f"{folder}/{name}" for name in INNER), folder):
            os.rmdir(path)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
