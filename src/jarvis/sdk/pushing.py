"""Files on their way to a task: which ones are meant, what the server has of them already, and the rest sent piece by piece."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jarvis.sdk.errors import ClientError, OverLimit

if TYPE_CHECKING:
    from jarvis.core.manifest import File
    from jarvis.sdk.connection import Connection

AT_ONCE = 4
"""Pieces on their way: a piece is all that each of them keeps in memory."""
ASK = 5000
ROUNDS = 5
LIMIT = 10**9
"""Bytes that are pushed without being asked for more, so that a mistyped path does not fill a cluster's disks."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a push comes to: counts and bytes, and how many of them the server lacks."""

    files: int
    size: int
    lacking: int

    def __str__(self) -> str:
        there = self.size - self.lacking
        return amount(self.files, self.size) + (f", {human(there)} of them there already" if there else "")


def amount(files: int, size: int) -> str:
    """``3 files, 12.3 MB``."""
    return f"{files:,} {'file' if files == 1 else 'files'}, {human(size)}"


def human(size: int) -> str:
    """``12.3 MB``: powers of ten, as disks are sold."""
    amount, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 1000 or unit == "TB":
            break
        amount /= 1000
    return f"{size} B" if unit == "B" else f"{amount:.1f} {unit}"


def push(
    connection: "Connection", paths: Sequence[str | os.PathLike[str]], *, take_all: bool = False, limit: int = LIMIT,
    project: str | None = None, tell: Callable[[Report], None] = lambda report: None,
) -> str:  # fmt: skip
    """Store files and directories; the digest of their manifest. ``take_all``: also what Git does not track or is told to
    ignore. Raises :class:`OverLimit` above ``limit`` bytes, before anything is sent, and :class:`ClientError` for what cannot
    be pushed. What was sent before an error need not be sent again within the hour."""
    from jarvis.core import manifest as m
    from jarvis.core.errors import InvalidValue

    named = _named(paths, take_all)
    size = sum(source.stat().st_size for source in named.values())
    if size > limit:
        raise OverLimit(
            f"{amount(len(named), size)}: more than the limit of {human(limit)}", "over_push_limit",
            "push less, or raise the limit with --push-limit or JARVIS_PUSH_LIMIT",
        )  # fmt: skip
    try:
        files = _described_all(named)
        m.check(files)
        listed = m.encode(m.Manifest(tuple(files)))
    except InvalidValue as error:
        raise ClientError(f"cannot push: {error}", "bad_push", error.hint) from None
    sender = _Sender(connection, project, {file.path: named[file.path] for file in files})
    lacking = sender.lacking(files)
    missing = sum(size for parts in lacking.values() for _, _, size in parts)
    tell(Report(len(files), sum(file.size for file in files), missing))
    for _ in range(ROUNDS):
        sender.send(lacking)
        if not (lacking := sender.lacking(files)):
            return sender.put(listed)
    raise ClientError("what was pushed does not stay on the server", "push_lost", "try again")


def _named(paths: Sequence[str | os.PathLike[str]], take_all: bool) -> dict[str, Path]:
    """Files by the path that they will have: relative to here where they are below, else by their last name."""
    named: dict[str, Path] = {}
    for given in paths:
        path = Path(given)
        if not path.exists():
            raise ClientError(f"--push {given}: there is no such file or directory", "bad_push")
        for source, name in _below(path, take_all):
            before = named.setdefault(name, source)
            if before.resolve() != source.resolve():
                raise ClientError(f"--push: {before} and {source} would both be {name}", "bad_push")
    if not named:
        raise ClientError(
            f"--push {' '.join(map(str, paths))}: there are no files", "bad_push",
            "files that Git does not track need --push-all",
        )  # fmt: skip
    return named


def _below(path: Path, take_all: bool) -> Iterator[tuple[Path, str]]:
    top, here = path.resolve(), Path.cwd().resolve()
    base = top.relative_to(here) if top.is_relative_to(here) else Path(top.name)
    if not top.is_dir():
        _check_kind(top)
        yield top, base.as_posix()
        return
    for source in _tracked(top) if not take_all and _in_git(top) else _walked(top):
        _check_link(source, top)
        if source.is_file():  # not a submodule, nor removed but tracked still
            yield source, (base / source.relative_to(top)).as_posix()


def _check_link(source: Path, top: Path) -> None:
    """A link to a file of the same push is that file; no other link can mean the same on another machine."""
    if source.is_symlink():
        target = source.resolve()
        if not target.is_relative_to(top):
            raise ClientError(
                f"--push: the link {source} leads outside, to {target}", "bad_push", "push what it leads to"
            )
        if target.is_dir():
            raise ClientError(f"--push: {source} is a link to a directory", "bad_push", "push the directory by itself")
    _check_kind(source)


def _check_kind(path: Path) -> None:
    if path.exists() and not path.is_dir() and not path.is_file():
        raise ClientError(f"--push: {path} is not a regular file", "bad_push")


def _in_git(top: Path) -> bool:
    import subprocess  # most commands push nothing

    command = ["git", "-C", str(top), "rev-parse", "--is-inside-work-tree"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return False
    return done.returncode == 0 and done.stdout.strip() == "true"


def _tracked(top: Path) -> Iterator[Path]:
    import subprocess

    done = subprocess.run(["git", "-C", str(top), "ls-files", "-z"], capture_output=True, check=True)
    for name in done.stdout.split(b"\0"):
        if name:
            yield top / os.fsdecode(name)


def _walked(top: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(top):
        folders.sort()
        links = [name for name in folders if Path(folder, name).is_symlink()]
        yield from (Path(folder, name) for name in sorted(links + names))


def _described_all(named: dict[str, Path]) -> "list[File]":
    """By rising path; small ones in packs."""
    from jarvis.core.manifest import SMALL, Packer

    packer, files = Packer(), []
    for name in sorted(named):
        file, data = _described(name, named[name])
        pack = packer.add(file, data) if 0 < file.size <= SMALL else None
        files += [] if 0 < file.size <= SMALL else [file]
        files += pack.files if pack else ()
    files += last.files if (last := packer.finish()) else ()
    return sorted(files, key=lambda file: file.path)


def _described(name: str, source: Path) -> "tuple[File, bytes]":
    """With the bytes of its last piece."""
    from jarvis.core.manifest import PIECE, File, safe_path

    try:
        safe_path(name.encode().decode())
        whole, pieces, size, last = hashlib.sha256(), [], 0, b""
        with source.open("rb") as data:
            while piece := data.read(PIECE):
                whole.update(piece)
                pieces.append(hashlib.sha256(piece).hexdigest())
                size, last = size + len(piece), piece
            executable = bool(os.fstat(data.fileno()).st_mode & stat.S_IXUSR)
    except UnicodeEncodeError:
        raise ClientError(f"--push: the name {name!r} is not UTF-8", "bad_push") from None
    except OSError as error:
        raise ClientError(f"--push: {source}: {error.strerror}", "bad_push") from None
    return File(name, size, whole.hexdigest(), tuple(pieces), executable), last


Part = tuple[str, int, int]
"""Of a file: its path, where it begins and how long it is."""


class _Sender:
    """Sends pieces of ``sources``, by the path of each file."""

    def __init__(self, connection: "Connection", project: str | None, sources: dict[str, Path]) -> None:
        self._connection, self._project, self._sources = connection, project, sources

    def lacking(self, files: "Iterable[File]") -> dict[str, list[Part]]:
        """What each piece is made of that the server has not got, by its digest."""
        from jarvis.core.manifest import PIECE, packs

        files = list(files)
        places: dict[str, list[Part]] = {}
        for file in files:
            for number, piece in enumerate(file.pieces):
                places[piece] = [(file.path, number * PIECE, min(PIECE, file.size - number * PIECE))]
        for pack, inside in packs(files).items():
            places[pack] = [(file.path, 0, file.size) for file in sorted(inside, key=lambda file: file.within or 0)]
        asked, out = list(places), {}
        for start in range(0, len(asked), ASK):
            body = {"digests": asked[start : start + ASK]} | ({"project": self._project} if self._project else {})
            for digest in self._connection.post("/blobs/missing", body)["missing"]:
                out[digest] = places[digest]
        return out

    def send(self, lacking: dict[str, list[Part]]) -> None:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(AT_ONCE) as pool:
            going = [pool.submit(self._send_one, digest, parts) for digest, parts in lacking.items()]
            try:
                for sent in going:
                    sent.result()
            finally:
                for sent in going:
                    sent.cancel()

    def _send_one(self, digest: str, parts: list[Part]) -> None:
        piece = b"".join(self._read(*part) for part in parts)
        if hashlib.sha256(piece).hexdigest() != digest:
            first = self._sources[parts[0][0]]
            which = f"{first}" if len(parts) == 1 else f"{first}, or another of {len(parts)} files after it,"
            raise ClientError(f"{which} changed while it was pushed", "changed", "push it again")
        self.put(piece)

    def _read(self, path: str, offset: int, size: int) -> bytes:
        with self._sources[path].open("rb") as data:
            data.seek(offset)
            return data.read(size)

    def put(self, piece: bytes) -> str:
        answer = self._connection.request("PUT", "/blobs", content=piece, params={"project": self._project}).json()
        digest = str(answer["digest"])
        if digest != hashlib.sha256(piece).hexdigest():
            raise ClientError("the server stored other bytes than it was sent", "damaged", "try again")
        return digest
