"""Manifest: files by their content, in pieces, as they travel with tasks: what was pushed, and what an attempt left."""

import hashlib
import re
from collections.abc import Iterable

import msgspec

from jarvis.core.errors import InvalidValue

PIECE = 1024 * 1024
"""Bytes of each piece but a file's last one: what is stored, sent and checked by itself, so that a transfer goes on where it
broke off and takes no more memory for larger files."""
SMALL = 64 * 1024
"""Files up to this size share a piece, a pack, so that a thousand of them are not a thousand transfers and synced writes."""
MAX_MANIFEST = 6 * 1024 * 1024
"""Bytes of a manifest: some 90 GB in large files, or 40,000 small ones. It travels in one message."""
MAX_PATH = 4096
MAX_NAME = 255
_LAST = "04"
"""One file in 64 has a digest below this."""
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


class File(msgspec.Struct, gc=False, frozen=True, array_like=True):
    """A regular file. ``digest``: sha256 of all of it; ``pieces``: that of each piece, in order. ``within``: where it begins in
    its only piece, which holds other files, too."""

    path: str
    size: int
    digest: str
    pieces: tuple[str, ...]
    executable: bool = False
    within: int | None = None


class Manifest(msgspec.Struct, gc=False, frozen=True, forbid_unknown_fields=True):
    """Files by rising path. ``left_out`` says what was asked for and could not be taken along, and why."""

    files: tuple[File, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def pieces(self) -> frozenset[str]:
        """Digests of all pieces."""
        return frozenset(piece for file in self.files for piece in file.pieces)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Manifest)


def encode(manifest: Manifest) -> bytes:
    """Raises :class:`InvalidValue` when it lists too much."""
    data = _encoder.encode(manifest)
    if len(data) > MAX_MANIFEST:
        expected = f"a list of at most {MAX_MANIFEST} bytes; take fewer files, or pack them into one"
        raise InvalidValue("files", f"{len(manifest.files)} files", expected)
    return data


def decode(data: bytes) -> Manifest:
    """Believes nothing: raises :class:`InvalidValue` for what is no manifest, or names a place outside of its directory."""
    try:
        manifest = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidValue("manifest", str(error)[:200], "a list of files") from None
    check(manifest.files)
    return manifest


def check(files: Iterable[File]) -> None:
    """Paths that can be there together, pieces that make up each size. Raises :class:`InvalidValue`."""
    taken: set[str] = set()
    folders: set[str] = set()
    for file in files:
        safe_path(file.path)
        above = file.path
        while "/" in above:
            above = above.rpartition("/")[0]
            folders.add(above)
        if file.path in taken:
            raise InvalidValue("path", file.path, "given once")
        taken.add(file.path)
        if not _made_up(file):
            raise InvalidValue(f"{file.path}: size", file.size, "what its pieces make up")
        if not all(_DIGEST.match(digest) for digest in (file.digest, *file.pieces)):
            raise InvalidValue(f"{file.path}: digest", file.digest, "a sha256 in hexadecimal")
    if both := taken & folders:
        raise InvalidValue("path", min(both), "either a file or a directory")


def _made_up(file: File) -> bool:
    if file.within is None:
        return file.size >= 0 and len(file.pieces) == -(-file.size // PIECE)
    return file.size > 0 and len(file.pieces) == 1 and 0 <= file.within <= PIECE - file.size


class Pack(msgspec.Struct, gc=False, frozen=True):
    """A piece of several files, each of which says where in it it lies; of a single one, that file as it is."""

    data: bytes
    files: tuple[File, ...]


class Packer:
    """Puts small files together in the order in which they come. Where a pack ends is told by the digest of its last file, so
    that of files that changed a little most packs are the same as before."""

    def __init__(self) -> None:
        self._data, self._files = bytearray(), list[File]()

    def add(self, file: File, data: bytes) -> Pack | None:
        """A file of 1 to SMALL bytes; the pack that it makes full, if it does."""
        self._files.append(msgspec.structs.replace(file, within=len(self._data)))
        self._data += data
        return self.finish() if file.digest < _LAST or len(self._data) + SMALL > PIECE else None

    def finish(self) -> Pack | None:
        """What has gathered, if anything has."""
        data, files = bytes(self._data), self._files
        self._data, self._files = bytearray(), []
        if not files:
            return None
        pieces, alone = (hashlib.sha256(data).hexdigest(),), len(files) == 1
        return Pack(
            data,
            tuple(
                msgspec.structs.replace(file, pieces=pieces, within=None if alone else file.within) for file in files
            ),
        )


def packs(files: Iterable[File]) -> dict[str, list[File]]:
    """Those that lie in packs, by the digest of theirs."""
    found: dict[str, list[File]] = {}
    for file in files:
        if file.within is not None:
            found.setdefault(file.pieces[0], []).append(file)
    return found


def safe_path(path: str, field: str = "path") -> str:
    """A path that stays below the directory that it is meant in, wherever that is; raises :class:`InvalidValue`."""
    parts = path.split("/")
    bad = any(part in ("", ".", "..") or len(part.encode("utf-8", "replace")) > MAX_NAME for part in parts)
    if bad or len(path) > MAX_PATH or "\0" in path or "\\" in path or re.match(r"[A-Za-z]:", path):
        raise InvalidValue(field, path, "a relative path without '..', '.', empty parts or backslashes")
    return path


def matches_digest(data: bytes, digest: str) -> bool:
    """Whether these are the bytes of that name."""
    return hashlib.sha256(data).hexdigest() == digest
