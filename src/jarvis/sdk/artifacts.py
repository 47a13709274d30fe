"""Artifacts on their way back: into one directory and never outside it, each checked before it has its name."""

import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
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


def elements(connection: "Connection", ident: int | str) -> Iterator[str]:
    """Ids of the elements of an array that have begun, by index."""
    cursor = "-1"
    while cursor:
        page = connection.get(f"/tasks/{ident}/elements", cursor=cursor, limit=1000)
        yield from (item["id"] for item in page["items"])
        cursor = page["next"]


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

    def bring(items: list[dict[str, Any]]) -> None:
        lacking = [item for item in items if not _is_there(_place(base, item["path"]), item)]
        for item in lacking:
            _place(base, item["path"]).parent.mkdir(parents=True, exist_ok=True)
        query, url = {"attempt": page["attempt"]}, f"/tasks/{ident}/artifacts"
        if len(lacking) > 1:
            _unpack(connection, f"{url}/{lacking[0]['pack']}", query, lacking, base)
        elif lacking:
            _download(connection, f"{url}/{lacking[0]['digest']}", query, lacking[0], _place(base, lacking[0]["path"]))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        together = _together(items)
        going = [pool.submit(bring, some) for some in together]
        try:
            for some, done in zip(together, going, strict=True):
                done.result()
                for item in some:
                    told(item)
        finally:
            for done in going:
                done.cancel()
    return places


def _together(items: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Those of one pack come at once, all others each by itself. A server of before has no packs."""
    found: dict[str, list[dict[str, Any]]] = {}
    for number, item in enumerate(items):
        found.setdefault(item.get("pack") or str(number), []).append(item)
    return list(found.values())


def _unpack(connection: "Connection", url: str, query: dict[str, Any], items: list[dict[str, Any]], base: Path) -> None:
    """Several small files at once: a pack is no larger than a piece."""
    data = _whole(connection, url, query)
    for item in items:
        own = data[item["offset"] : item["offset"] + item["size"]]
        if hashlib.sha256(own).hexdigest() != item["digest"]:
            raise _damaged(item)
        place = _place(base, item["path"])
        part = place.with_name(f".{uuid.uuid4().hex}.part")
        try:
            part.write_bytes(own)
            _name(part, place, item)
        finally:
            part.unlink(missing_ok=True)


def _whole(connection: "Connection", url: str, query: dict[str, Any]) -> bytes:
    for left in reversed(range(TRIES)):
        try:
            with connection.stream(url, **query) as blocks:
                return b"".join(blocks)
        except Unreachable:
            if not left:
                raise
    raise AssertionError("it has answered or failed")


def _damaged(item: dict[str, Any]) -> ClientError:
    return ClientError(f"{item['path']}: other bytes came than the task left", "damaged", "get it again")


def _name(part: Path, place: Path, item: dict[str, Any]) -> None:
    """What is whole gets its mode and its name."""
    if item.get("executable"):
        part.chmod(part.stat().st_mode | (part.stat().st_mode & 0o444) >> 2)
    part.replace(place)


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
            raise _damaged(item)
        _name(part, place, item)
    finally:
        part.unlink(missing_ok=True)
