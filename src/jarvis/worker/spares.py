"""Directories of attempts that were left as they were given are given again: to move one costs less than to make one."""

import itertools
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

MOST = 1000
MODE = 0o700
INNER = ("tmp", "outputs")
"""What an attempt finds in its directory."""


class Spares:
    """Kept by owner (uid), because an owner may have left what is not seen: times, or attributes."""

    def __init__(self, folder: Path) -> None:
        """Those in ``folder`` are of an agent before this one."""
        self._folder = folder
        self._free: dict[int, list[str]] = {}
        folder.mkdir(mode=0o700, exist_ok=True)
        found = [entry for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
        for entry in found:
            self._free.setdefault(entry.stat(follow_symlinks=False).st_uid, []).append(entry.path)
        self._count = len(found)
        self._names = itertools.count(max((int(entry.name) for entry in found if entry.name.isdigit()), default=0) + 1)

    def take(self, path: str, owner: int) -> bool:
        """Move one of theirs there, whose parent is made where it is missing; False where that cannot be, because there is none
        or because something is there already."""
        free = self._free.get(owner)
        if not free or os.path.lexists(path):
            return False
        spare = free.pop()
        self._count -= 1
        with suppress(OSError):
            try:
                os.rename(spare, path)
            except FileNotFoundError:
                os.mkdir(os.path.dirname(path), 0o711)
                os.rename(spare, path)
            return True
        return False

    def keep(self, path: str) -> bool:
        """Keep the directory of an attempt none of whose processes lives; False where it holds anything, or was changed."""
        try:
            owner = untouched(path)
            if owner is None or self._count >= MOST:
                return False
            spare = f"{self._folder}/{next(self._names)}"
            os.rename(path, spare)
        except OSError:
            return False
        self._free.setdefault(owner, []).append(spare)
        self._count += 1
        return True


def untouched(path: str) -> int | None:
    """The owner of a directory that is as it was given; None where it is not. Raises OSError where it is not there."""
    if sorted(os.listdir(path)) != sorted(INNER):
        return None
    owners = [_plain(one) for one in (path, *(f"{path}/{name}" for name in INNER))]
    if len(set(owners)) > 1 or any(os.listdir(f"{path}/{name}") for name in INNER):
        return None
    return owners[0]


def _plain(path: str) -> int | None:
    """The owner of a directory of the usual mode."""
    status = os.lstat(path)
    return status.st_uid if stat.S_ISDIR(status.st_mode) and stat.S_IMODE(status.st_mode) == MODE else None


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
