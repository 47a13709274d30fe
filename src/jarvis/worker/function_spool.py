"""The spool of a warm process: a file mapped into its memory, so that what it writes survives its kill without a system call.

Head: magic, the number and token of the current call, where its output begins in the log, the end of the frames. Then
the frames of results that nobody has acknowledged yet. Whoever reads it after the process is gone trusts nothing in it.
"""

import mmap
import os
import struct
from collections.abc import Callable

from jarvis.worker.function_protocol import RESULT, FrameError, Frames, Result, decode_result

_head = struct.Struct("<8sQQQQ")
_current = struct.Struct("<QQQ")
_tail = struct.Struct("<Q")
MAGIC = b"JVSPOOL1"
CURRENT_AT, TAIL_AT, FIRST = 8, 32, 64
FIRST_SIZE = 1 << 16
READ_LIMIT = 64 << 20


class Spool:
    """The writer's side."""

    def __init__(self, path: str, opener: Callable[[str, int], int] | None = None) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        self._file = os.open(path, flags, 0o600) if opener is None else opener(path, flags)
        self._size = FIRST_SIZE
        os.ftruncate(self._file, self._size)
        self._map = mmap.mmap(self._file, self._size)
        self._end = FIRST
        _head.pack_into(self._map, 0, MAGIC, 0, 0, 0, FIRST)

    def begin(self, number: int, token: int, log_start: int) -> None:
        """This call runs now; 0 when none does."""
        _current.pack_into(self._map, CURRENT_AT, number, token, log_start)

    def add(self, frame: bytes) -> None:
        """Keep a result: its bytes first, then the end that makes them count."""
        end = self._end + len(frame)
        if end > self._size:
            self._size = max(2 * self._size, end)
            os.ftruncate(self._file, self._size)
            self._map.resize(self._size)
        self._map[self._end : end] = frame
        self._end = end
        _tail.pack_into(self._map, TAIL_AT, end)

    def clear(self) -> None:
        """All is acknowledged; a file that grew large is cut back."""
        self._end = FIRST
        _tail.pack_into(self._map, TAIL_AT, FIRST)
        if self._size > 16 * FIRST_SIZE:
            self._size = FIRST_SIZE
            self._map.resize(self._size)
            os.ftruncate(self._file, self._size)

    @property
    def used(self) -> int:
        return self._end - FIRST

    def close(self) -> None:
        self._map.close()
        os.close(self._file)


class Found:
    """What a spool holds: results by number, and the call that was current."""

    def __init__(self) -> None:
        self.results: dict[int, Result] = {}
        self.number = self.token = self.log_start = 0


def read(path: str) -> Found:
    """The reader's side. A missing, foreign or torn spool is an empty one."""
    found = Found()
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return found
    try:
        head = os.pread(descriptor, _head.size, 0)
        if len(head) < _head.size:
            return found
        magic, found.number, found.token, found.log_start, end = _head.unpack(head)
        if magic != MAGIC or not FIRST <= end <= READ_LIMIT:
            return Found()
        _take_results(os.pread(descriptor, end - FIRST, FIRST), found)
    except OSError:
        return found
    finally:
        os.close(descriptor)
    return found


def _take_results(data: bytes, found: Found) -> None:
    try:
        for kind, body in Frames().feed(data):
            if kind == RESULT:
                result = decode_result(body)
                found.results[result.number] = result
    except (FrameError, ValueError):  # msgspec's errors are ValueErrors
        return
