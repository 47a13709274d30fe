"""The journal: which numbers were ever started, which ended, and how. A number in it is never run again.

One line a record: crc32 in hex, a blank, JSON. There is no fsync: a process crash keeps what was written, and a power
loss changes the boot id, which voids its attempts anyway. A torn or damaged line is skipped and counted.

Records: `life` (id of the directory, boot, floor), `start` (before the spawn), `pid` (after it), `end`, `ack`.
"""

from __future__ import annotations

import json
import os
import zlib

from .protocol import encode
from .settled import Settled
from .system import boot_id, log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Record = dict[str, Any]

COMPACT_AT = 1 << 20


class Past:
    """What a journal tells about the attempts of an earlier supervisor."""

    def __init__(self) -> None:
        self.life = ""
        self.boot = ""
        self.acked = Settled()
        self.attempts: dict[int, Record] = {}
        self.damaged = 0

    def apply(self, record: Record) -> None:
        """Take one record into account; records of unknown kinds belong to a newer version and are left alone."""
        kind = record["t"]
        if kind == "life":
            self.life, self.boot = record["id"], record["boot"]
            for start, end in record.get("over", ()):
                self.acked.add_range(start, end)
            self.trim(record.get("acked", ()), record["floor"])
        elif kind == "start":
            self.attempts[record["n"]] = record
        elif kind in ("pid", "end"):
            self.attempts.setdefault(record["n"], {"n": record["n"], "tag": ""}).update(record)
        elif kind == "ack":
            self.trim(record["ns"], record["floor"])

    def trim(self, numbers: Iterable[int], floor: int | None) -> None:
        """Forget acknowledged attempts; what ended below the floor needs no memory at all."""
        for number in numbers:
            self.acked.add([number])
            self.attempts.pop(number, None)
        if floor is not None:
            self.acked.raise_floor(floor)


class Journal:
    """Appends records; `write` reaches the kernel before it returns, `note` with the next write or turn."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.compact_at = COMPACT_AT
        self._pending: list[bytes] = []
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.size = os.fstat(self.fd).st_size

    def read(self) -> Past:
        """Replay all records, then cut a torn tail off so that the next record starts on a line of its own."""
        past = Past()
        data = os.pread(self.fd, self.size, 0) if self.size else b""
        whole = data.rfind(b"\n") + 1
        for line in data[:whole].splitlines():
            record = _decode(line)
            if record is None:
                past.damaged += 1
            else:
                past.apply(record)
        if whole < len(data):
            past.damaged += 1
            os.ftruncate(self.fd, whole)
            self.size = whole
        if past.damaged:
            log(f"journal: skipped {past.damaged} damaged record(s)")
        return past

    def note(self, record: Record | str) -> None:
        """Record what may be lost in a crash of this turn without harm, because something else tells the same."""
        self._pending.append(_line(record))

    def write(self, record: Record | str) -> None:
        """Record before acting. Raises OSError (a full disk) with the journal as it was."""
        self._append(b"".join(self._pending) + _line(record))
        self._pending.clear()

    def flush(self) -> bool:
        """Write what was noted; on failure it stays noted, and the caller tries again later."""
        if not self._pending:
            return True
        try:
            self._append(b"".join(self._pending))
        except OSError as error:
            log(f"journal: {error}; will try again")
            return False
        self._pending.clear()
        return True

    def _append(self, data: bytes) -> None:
        try:
            written = os.write(self.fd, data)
            if written < len(data):
                raise OSError(28, "No space left on device")
        except OSError:
            os.ftruncate(self.fd, self.size)
            raise
        self.size += len(data)

    def rewrite(self, records: Iterable[Record | str]) -> None:
        """Replace the journal by `records`, atomically. A failure keeps the old one and waits until it has doubled."""
        data = b"".join(_line(record) for record in records)
        fresh = self.path + ".new"
        try:
            fd = _write_new(fresh, data)
            os.rename(fresh, self.path)
        except OSError as error:
            log(f"journal: not compacted: {error}")
            self.compact_at = 2 * max(self.size, COMPACT_AT)
            return
        os.close(self.fd)
        self._pending.clear()
        self.fd, self.size = fd, len(data)
        self.compact_at = max(COMPACT_AT, 4 * len(data))

    @property
    def pending(self) -> bool:
        """Whether something still waits to be written."""
        return bool(self._pending)


def end_record(number: int, end: str) -> str:
    """The record of an end; `end` is its JSON."""
    return f'{{"t":"end","n":{number},"end":{end}}}'


def life(identity: str, acked: Settled) -> Record:
    """The first record of a journal. (Versions up to 0.1 listed each number, as ``acked``.)"""
    return {"t": "life", "id": identity, "boot": boot_id(), "floor": acked.floor, "over": acked.pairs()}


def _write_new(path: str, data: bytes) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        if os.write(fd, data) < len(data):
            raise OSError(28, "No space left on device")
    except OSError:
        os.close(fd)
        os.unlink(path)
        raise
    return fd


def _line(record: Record | str) -> bytes:
    """A record, given as an object or as its JSON."""
    body = (record if isinstance(record, str) else encode(record)).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _decode(line: bytes) -> Record | None:
    crc, _, body = line.partition(b" ")
    try:
        if int(crc, 16) != zlib.crc32(body):
            return None
        record: Record = json.loads(body)
        return record
    except ValueError:
        return None
