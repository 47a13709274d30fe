"""Segments of a record: compressed frames in files, written by a thread, never waited for.

What is lost with the power or a kill is the last moment: a record explains, it is not the truth. A reader takes what is whole.
"""

import logging
import os
import queue
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

log = logging.getLogger("jarvis.record")

LENGTH = struct.Struct("!I")
WAITING_MOST = 20_000
"""Frames that may wait for the thread; beyond, the segment ends."""
GATHERED_MOST = 1_000
SEGMENTS_MOST = 500
FLUSH_S, GATHER_S = 0.2, 0.02
"""How often what was written is whole for a reader; how long frames gather, so that not each of them wakes the thread."""
SOON_S, END_S = 0.1, 2.0
"""How long the leader lets a segment take to end when another begins, and when it resigns."""
PAUSE_S = 60.0
"""After a disk that failed or was too slow."""
PIECE = 1 << 20
SUFFIX = ".record"
RECORD = "record"
"""The directory below the state directory of the server that leads."""


class RecordFiles:
    """Below one directory, at most ``keep_bytes`` together: the oldest segment goes first."""

    def __init__(self, directory: Path, keep_bytes: int) -> None:
        self.directory, self._keep = directory, keep_bytes
        self.segment_bytes = max(keep_bytes // 8, 1)
        self.written = 0
        """Bytes of the segment at hand."""
        self.broken = True
        """No segment is at hand: what comes is not kept."""
        self._frames: queue.Queue[bytes | None] = queue.Queue(WAITING_MOST)
        self._thread: threading.Thread | None = None
        self._not_before = 0.0

    @property
    def wants_segment(self) -> bool:
        """Whether it is time for :meth:`begin`: not soon after a disk failed."""
        return (self.broken or self.written > self.segment_bytes) and time.monotonic() >= self._not_before

    def begin(self) -> None:
        """A new segment; the one before ends. Nothing, for a while, where that one cannot be written to its end at once."""
        if not self.end(SOON_S):
            self._give_up("the disk is too slow")
            return
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._make_room()
        path = self.directory / f"{time.time_ns():020d}{SUFFIX}"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._frames, self.written, self.broken = queue.Queue(WAITING_MOST), 0, False
        self._thread = threading.Thread(
            target=self._write, args=(file, self._frames), name="jarvis-record", daemon=True
        )
        self._thread.start()

    def append(self, frame: bytes) -> None:
        """Soon in the file, unless the disk is slower than the leader for long: then the segment ends here."""
        if self.broken:
            return
        try:
            self._frames.put_nowait(frame)
        except queue.Full:
            self._give_up("the disk is too slow")

    def end(self, within: float = END_S) -> bool:
        """Whether what was appended is in the file, after so many seconds at most."""
        self.broken = True
        if self._thread is None:
            return True
        with suppress(queue.Full):  # then it is told another time
            self._frames.put_nowait(None)
        self._thread.join(within)
        if self._thread.is_alive():
            return False
        self._thread = None
        return True

    def _give_up(self, why: str) -> None:
        self.broken, self._not_before = True, time.monotonic() + PAUSE_S
        log.warning("the record of decisions has a gap: %s", why)

    def _write(self, file: int, frames: "queue.Queue[bytes | None]") -> None:
        packer, flushed = zlib.compressobj(1), time.monotonic()
        try:
            with os.fdopen(file, "wb", buffering=0) as out:
                while True:
                    gathered, last = _gather(frames)
                    if gathered:
                        self.written += out.write(packer.compress(b"".join(gathered)))
                    if last:
                        self.written += out.write(packer.flush(zlib.Z_FINISH))
                        return
                    if time.monotonic() - flushed >= FLUSH_S:
                        self.written += out.write(packer.flush(zlib.Z_SYNC_FLUSH))
                        flushed = time.monotonic()
        except OSError as error:
            self._give_up(str(error))

    def _make_room(self) -> None:
        """For one more segment."""
        kept = segments(self.directory)
        total = sum(path.stat().st_size for path in kept)
        while kept and (total + self.segment_bytes > self._keep or len(kept) >= SEGMENTS_MOST):
            oldest = kept.pop(0)
            total -= oldest.stat().st_size
            oldest.unlink()


def _gather(frames: "queue.Queue[bytes | None]") -> tuple[list[bytes], bool]:
    """Frames with their lengths, none where none comes for a while; whether the last one of all was among them."""
    gathered: list[bytes] = []
    try:
        frame = frames.get(timeout=FLUSH_S)
        if frame is not None and frames.empty():
            time.sleep(GATHER_S)
        while frame is not None:
            gathered += (LENGTH.pack(len(frame)), frame)
            if len(gathered) >= GATHERED_MOST:
                return gathered, False
            frame = frames.get_nowait()
    except queue.Empty:
        return gathered, False
    return gathered, True


def segments(directory: Path) -> list[Path]:
    """Oldest first."""
    return sorted(directory.glob(f"*{SUFFIX}"))


def frames(path: Path) -> Iterator[bytes]:
    """Those that are whole."""
    unpacker, rest = zlib.decompressobj(), b""
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            rest += unpacker.decompress(piece)
            at = 0
            while len(rest) - at >= LENGTH.size:
                (size,) = LENGTH.unpack_from(rest, at)
                if len(rest) - at - LENGTH.size < size:
                    break
                yield rest[at + LENGTH.size : at + LENGTH.size + size]
                at += LENGTH.size + size
            rest = rest[at:]
