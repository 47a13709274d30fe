"""SHELL: looks for files that schedules wait for, on the machine of the leader, and tells it what lies there.

A file counts when two looks find it the same, so that it is not taken half written. Which of them make runs is decided in the
leader's turn, which knows the ones that did already.
"""

import asyncio
import fnmatch
import logging
import os
from collections.abc import Callable, Sequence

from jarvis.bus.bus import Bus
from jarvis.core.inputs import FilesSeen
from jarvis.core.schedule import OnFile, Stamp
from jarvis.scheduler.schedules import Schedules
from jarvis.utils.places import is_below

log = logging.getLogger("jarvis.arrivals")

LOOK_S = 1.0
FILES_MOST = 1000
"""Files of one directory that are looked at, the oldest first: those that were dealt with are to be moved away."""


def listed(on: OnFile, allowed: Sequence[str]) -> dict[str, Stamp]:
    """Plain files by name; raises OSError where the directory cannot be read, or may not be."""
    if not is_below(on.directory, allowed):
        raise PermissionError(f"{on.directory} is not below a directory of server.watch")
    found: dict[str, Stamp] = {}
    with os.scandir(on.directory) as entries:
        for entry in entries:
            if _matches(entry.name, on.pattern) and entry.is_file(follow_symlinks=False):
                told = entry.stat(follow_symlinks=False)
                found[entry.name] = (told.st_mtime_ns, told.st_size)
    return dict(sorted(found.items(), key=lambda one: (one[1], one[0]))[:FILES_MOST])


def _matches(name: str, pattern: str) -> bool:
    """As shells do: a leading dot has to be written out. A name that is no text is nobody's."""
    hidden = name.startswith(".") and not pattern.startswith(".")
    return not hidden and fnmatch.fnmatchcase(name, pattern) and not any("\ud800" <= c <= "\udfff" for c in name)


class Arrivals:
    """Runs beside a scheduler and looks while that one leads."""

    def __init__(self, schedules: Schedules, bus: Bus, allowed: Sequence[str], leads: Callable[[], bool]) -> None:
        self._schedules, self._bus, self._allowed, self._leads = schedules, bus, allowed, leads
        self._before: dict[int, dict[str, Stamp]] = {}
        self._failing: set[int] = set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self._leads():
                await self.look()
            else:
                self._before.clear()

    async def look(self) -> None:
        """Once into each directory."""
        known = self._schedules.known
        waiting = {s.id: s.rule.on for s in known.values() if isinstance(s.rule.on, OnFile) and not s.paused}
        self._before = {ident: found for ident, found in self._before.items() if ident in waiting}
        for ident, on in waiting.items():
            try:
                found = await asyncio.to_thread(listed, on, self._allowed)
            except OSError as error:
                if ident not in self._failing:
                    log.warning("schedule %d cannot look for files: %s", ident, error)
                self._failing.add(ident)
                continue
            self._failing.discard(ident)
            before, self._before[ident] = self._before.get(ident, {}), found
            self._tell(ident, found, {name: stamp for name, stamp in found.items() if before.get(name) == stamp})

    def _tell(self, ident: int, found: dict[str, Stamp], settled: dict[str, Stamp]) -> None:
        schedule = self._schedules.known.get(ident)
        if schedule is not None and any(schedule.files.get(name) != stamp for name, stamp in settled.items()):
            self._bus.offer(FilesSeen(f"files-{ident}", ident, frozenset(found), settled))
