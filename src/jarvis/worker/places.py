"""Places of attempts: a directory and an output file. One that was left as it was given is given again, because to make files
costs more than the rest of a short task's start, and to remove many makes that slower for minutes on some file systems."""

import itertools
import os
import stat
import time
from collections.abc import Sequence
from pathlib import Path

MOST = 1000
MODE = 0o700
INNER = TMP, OUTPUTS = "tmp", "outputs"
"""What an attempt finds in its directory."""
_INNER_SORTED = sorted(INNER)
_DIRECTORY_MODE = stat.S_IFDIR | MODE
OUTPUT_MODE = 0o600
_FILE_MODE = stat.S_IFREG | OUTPUT_MODE
OUTPUT_MOST = 64 * 1024
"""Larger output is removed by whoever has the time for it."""
SETTLED_NS = 1_000_000_000
"""Two changes of a directory within one tick of the kernel's clock look like one; after a second they do not."""


class Places:
    """Kept by owner (uid), because an owner may have left what is not seen: attributes, or a process of somebody else that still
    has the file."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._free: dict[int, list[str]] = {}
        self._count = 0
        self._seen: dict[str, tuple[int, ...]] = {}
        """When the directories of a place changed last, where they were seen since to be as they were given."""
        self._names = itertools.count(1)
        folder.mkdir(mode=0o711, exist_ok=True)

    def find(self, used: set[str]) -> list[str]:
        """Take over what agents before this one left but for what is in use; names of those that cannot be given again."""
        names = {name.partition(".")[0] for name in os.listdir(self._folder)}
        self._names = itertools.count(max((int(name) for name in names | used if name.isdigit()), default=0) + 1)
        return [name for name in names - used if not self.keep(name)]

    def base(self, name: str) -> str:
        """The directory of a place is this with ``.d`` behind it, its output file with ``.out``."""
        return f"{self._folder}/{name}"

    def take(self, owner: int) -> str | None:
        """One of theirs, as it was given to the first who had it."""
        free = self._free.get(owner)
        if not free:
            return None
        self._count -= 1
        return free.pop()

    def name(self) -> str:
        """Of a place that is yet to be made."""
        return str(next(self._names))

    def keep(self, name: str) -> bool:
        """Keep the place of an attempt none of whose processes lives; False where it holds anything, or was changed."""
        try:
            owner = self._untouched(name) if self._count < MOST else None
            if owner is None or not _emptied(f"{self._folder}/{name}.out", owner):
                self._seen.pop(name, None)
                return False
        except OSError:
            return False
        self._free.setdefault(owner, []).append(name)
        self._count += 1
        return True

    def _untouched(self, name: str) -> int | None:
        """The owner of a directory that is as it was given; None where it is not. Raises OSError where it is not there."""
        path = f"{self._folder}/{name}.d"
        found = outer, tmp, outputs = os.lstat(path), os.lstat(f"{path}/{TMP}"), os.lstat(f"{path}/{OUTPUTS}")
        changed = (outer.st_ctime_ns, tmp.st_ctime_ns, outputs.st_ctime_ns)
        if self._seen.get(name) != changed:
            if any(status.st_mode != _DIRECTORY_MODE or status.st_uid != outer.st_uid for status in found):
                return None
            if sorted(os.listdir(path)) != _INNER_SORTED or any(os.listdir(f"{path}/{one}") for one in INNER):
                return None
            if time.time_ns() - max(changed) > SETTLED_NS:
                self._seen[name] = changed
        return outer.st_uid


def _emptied(path: str, owner: int) -> bool:
    """Whether this file of theirs is the only way to it and holds nothing any more; what was written elsewhere has none."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return True
    plain = status.st_mode == _FILE_MODE and status.st_nlink == 1 and status.st_uid == owner
    if not plain or status.st_size > OUTPUT_MOST:
        return False
    if status.st_size:
        os.truncate(path, 0)
    return True


def made(folders: Sequence[str]) -> bool:
    """Make those that are not there yet: an order that was given back is given again. False while the parent of the first is
    missing, which goes when all in it is removed, whoever is about to begin there."""
    for folder in folders:
        try:
            os.mkdir(folder, MODE)
        except FileExistsError:
            continue
        except FileNotFoundError:
            return False
    return True
