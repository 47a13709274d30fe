"""SHELL: the files of a directory that a schedule may wait for, as the leader sees them on its machine and agents on theirs."""

import fnmatch
import os
from collections.abc import Sequence

from jarvis.utils.places import is_below

FILES_MOST = 1000
"""Files of one directory that are looked at, the oldest first: those that were dealt with are to be moved away."""


def listed(directory: str, pattern: str, allowed: Sequence[str], setting: str) -> dict[str, tuple[int, int]]:
    """Plain files by name, with their time of change in nanoseconds and their size in bytes. Raises OSError where the directory
    cannot be read, or may not be: it is not below one that is ``allowed``, by the ``setting`` of that name."""
    if not is_below(directory, allowed):
        raise PermissionError(f"{directory} is not below a directory of {setting}")
    found: dict[str, tuple[int, int]] = {}
    with os.scandir(directory) as entries:
        for entry in entries:
            if matches(entry.name, pattern) and entry.is_file(follow_symlinks=False):
                told = entry.stat(follow_symlinks=False)
                found[entry.name] = (told.st_mtime_ns, told.st_size)
    return dict(sorted(found.items(), key=lambda one: (one[1], one[0]))[:FILES_MOST])


def matches(name: str, pattern: str) -> bool:
    """As shells do: a leading dot has to be written out. A name that is no text is nobody's."""
    hidden = name.startswith(".") and not pattern.startswith(".")
    return not hidden and fnmatch.fnmatchcase(name, pattern) and not any("\ud800" <= c <= "\udfff" for c in name)
