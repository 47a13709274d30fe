"""Artifacts on their way back: into one directory and never outside it, each checked before it has its name."""

import hashlib
import os
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jarvis.sdk.errors import ClientError, NoSuchObject, Unreachable

if TYPE_CHECKING:
    from jarvis.sdk.connection import Connection

AT_ONCE = 4
TRIES = 5
READ = 1024 * 1024


def listed(connection: "Connection", ident: int | str, attempt: int | None = None) -> dict[str, Any]:
    """``attempt``, ``items`` with path, size, digest, ``left_out``: of the newest attempt that left any, or of one."""
    return dict(connection.get(f"/tasks/{ident}/artifacts", attempt=attempt))


def fetch(
    connection: "Connection", ident: int | str, directory: str | os.PathLike[str] = ".", patterns: Iterable[str] = (), *,
    attempt: int | None = None, told: Callable[[dict[str, Any]], None] = lambda item: None,
) -> list[Path]:  # fmt: skip
    """Bring those that match (all, without a pattern) into a directory; the paths that are there now. A file that is there
    with the same bytes already is left as it is, another one of its name is replaced. Raises :class:`ClientError` for a path
    that leads outside, before anything is written."""
    from jarvis.core.globs import matcher

    page, wanted = listed(connection, ident, attempt), list(patterns)
    matches = matcher(wanted)
    items = [item for item in page["items"] if not wanted or matches(item["path"])]
    if wanted and not items:
        raise NoSuchObject(f"no artifact of task {ident} matches {' '.join(wanted)}", "not_found")
    base = Path(directory)
    base.mkdir(parents=True, exist_ok=True)
    places = [_place(base, item["path"]) for item in items]
    from concurrent.futures import ThreadPoolExecutor

    def bring(item: dict[str, Any], place: Path) -> None:
        if not _is_there(place, item):
            place.parent.mkdir(parents=True, exist_ok=True)
            url = f"/tasks/{ident}/artifacts/{item['digest']}"
            _download(connection, url, {"attempt": page["attempt"]}, item, _place(base, item["path"]))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        going = [pool.submit(bring, item, place) for item, place in zip(items, places, strict=True)]
        try:
            for item, done in zip(items, going, strict=True):
                done.result()
                told(item)
        finally:
            for done in going:
                done.cancel()
    return places


def _place(base: Path, path: str) -> Path:
    """Raises :class:`ClientError` unless it is below ``base``, also by the links that are there."""
    from jarvis.core.errors import InvalidValue
    from jarvis.core.manifest import safe_path

    top = os.path.realpath(base)
    try:
        place = Path(base, *safe_path(path).split("/"))
    except InvalidValue:
        raise ClientError(f"the artifact {path!r} would lie outside of {base}", "unsafe_path") from None
    above = os.path.realpath(place.parent)
    if above != top and not above.startswith(top.rstrip(os.sep) + os.sep):
        raise ClientError(f"the artifact {path!r} would lie outside of {base}: a link leads to {above}", "unsafe_path")
    if place.is_dir() and not place.is_symlink():
        raise ClientError(f"the artifact {path!r} cannot be written: there is a directory of that name", "unsafe_path")
    return place


def _is_there(place: Path, item: dict[str, Any]) -> bool:
    if place.is_symlink() or not place.is_file() or place.stat().st_size != item["size"]:
        return False
    whole = hashlib.sha256()
    with place.open("rb") as data:
        while block := data.read(READ):
            whole.update(block)
    return whole.hexdigest() == str(item["digest"])


def _download(connection: "Connection", url: str, query: dict[str, Any], item: dict[str, Any], place: Path) -> None:
    """Under another name first; a connection that breaks is taken up where it broke off."""
    part = place.with_name(f".{uuid.uuid4().hex}.part")
    whole, got, tries = hashlib.sha256(), 0, 0
    try:
        with part.open("xb") as out:
            while got < item["size"]:
                before = got
                try:
                    with connection.stream(url, headers={"Range": f"bytes={got}-"}, **query) as blocks:
                        for block in blocks:
                            out.write(block)
                            whole.update(block)
                            got += len(block)
                except Unreachable:
                    tries = 1 if got > before else tries + 1
                    if tries >= TRIES:
                        raise
        if got != item["size"] or whole.hexdigest() != item["digest"]:
            raise ClientError(f"{item['path']}: other bytes came than the task left", "damaged", "get it again")
        if item.get("executable"):
            part.chmod(part.stat().st_mode | (part.stat().st_mode & 0o444) >> 2)
        part.replace(place)
    finally:
        part.unlink(missing_ok=True)
