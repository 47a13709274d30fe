"""Globs: which files of a directory are meant, as shells write it, with ``**`` for any depth."""

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase

from jarvis.core.errors import InvalidValue

MAX_GLOBS = 100
LONGEST = 1000
ANY_DEPTH = "**"


def safe_glob(pattern: str, field: str) -> str:
    """One that can match below its directory alone; raises :class:`InvalidValue`."""
    outside = pattern.startswith("/") or ".." in pattern.split("/") or "\0" in pattern
    if outside or not _parts(pattern) or len(pattern) > LONGEST:
        expected = f"a relative pattern of at most {LONGEST} characters without '..', like out/*.csv"
        raise InvalidValue(field, pattern, expected)
    return pattern


def matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Whether a relative path matches one of them. A pattern that matches a directory takes all that is below it."""
    found = [_parts(pattern) for pattern in patterns]

    def matches(path: str) -> bool:
        names = path.split("/")
        return any(_matches(parts, names) for parts in found)

    return matches


def _parts(pattern: str) -> list[str]:
    return [part for part in pattern.split("/") if part not in ("", ".")]


def _matches(parts: list[str], names: list[str]) -> bool:
    """All positions in the pattern at once, so that its time grows with the product of the lengths and no faster."""
    at = _past_any_depth(parts, {0})
    for name in names:
        stays = {i for i in at if i < len(parts) and parts[i] == ANY_DEPTH}
        moves = {i + 1 for i in at - stays if i < len(parts) and fnmatchcase(name, parts[i])}
        ends = {i + 1 for i in stays if i + 1 == len(parts)}
        at = _past_any_depth(parts, stays | moves)
        if len(parts) in moves | ends:
            return True
    return False


def _past_any_depth(parts: list[str], at: set[int]) -> set[int]:
    """``**`` may also stand for nothing, except at the end."""
    out = set(at)
    for i in range(len(parts) - 1):
        if i in out and parts[i] == ANY_DEPTH:
            out.add(i + 1)
    return out
