"""Bytes between an attached connection and a terminal or pipe, both ways, with bounded buffers."""

from __future__ import annotations

import base64
import os
import socket

from .loop import HANGUP, NEVER, READ, WRITE
from .protocol import STREAM_LIMIT, VIEWER_PATIENCE
from .system import close, now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .loop import Loop

END_OF_INPUT = b"\x04"  # what a terminal's user types to end it


class Stream:
    """One process's input and output. `sink` and `source` are one fd for a terminal; either may be -1. `tee` is the
    output file of a terminal, written before any viewer sees the bytes. There is at most one viewer; a new one replaces
    it. A viewer that half-closes ends the input; one that disappears leaves it open for the next."""

    def __init__(self, loop: Loop, sink: int, source: int, tee: int = -1) -> None:
        self.loop = loop
        self.sink, self.source, self.tee = sink, source, tee
        self.peer: socket.socket | None = None
        self.to_sink = bytearray()
        self.to_peer = bytearray()
        self.input_ended = self.hung_up = False
        self.written = 0
        self.stuck_since = NEVER
        self.count: Callable[[int], None] = lambda size: None
        for fd in {sink, source} - {-1}:
            os.set_blocking(fd, False)
        self.update()

    @property
    def terminal(self) -> bool:
        """Whether both ends are one terminal."""
        return self.sink == self.source != -1

    def attach(self, peer: socket.socket, first: bytes, greeting: bytes = b"") -> None:
        """Let `peer` type and watch; `first` is what it sent behind its frame, `greeting` what it is told first."""
        self.detach()
        self.peer = peer
        self.to_peer += greeting
        if self.sink >= 0:
            self.to_sink += first
        self.update()

    def detach(self) -> None:
        """Drop the viewer; the process does not notice."""
        if self.peer is not None:
            self.loop.forget(self.peer.fileno())
            self.peer.close()
            self.peer = None
            self.to_peer.clear()
            self.stuck_since = NEVER

    def close(self) -> None:
        """The process is gone: read what it left and close; a viewer stays until it has taken the rest."""
        self._drain()
        for fd in {self.sink, self.source, self.tee}:
            self.loop.forget(fd)
            close(fd)
        self.sink = self.source = self.tee = -1
        self.to_sink.clear()
        if not self.to_peer:
            self.detach()
        self.update()

    @property
    def done(self) -> bool:
        """Whether nothing is left to carry."""
        return self.peer is None and self.sink < 0 and self.source < 0

    def update(self) -> None:
        """Watch exactly what can make progress now."""
        if self.terminal:
            self._watch(self.sink, self._source_mask() | self._sink_mask(), self._on_terminal)
        else:
            self._watch(self.sink, self._sink_mask(), self._on_sink)
            self._watch(self.source, self._source_mask(), self._on_source)
        if self.peer is not None:
            self._watch(self.peer.fileno(), self._peer_mask(), self._on_peer)

    def check_viewer(self, moment: float) -> None:
        """Cut off a viewer that has taken nothing for too long."""
        if moment - self.stuck_since > VIEWER_PATIENCE:
            self.detach()
            self.update()

    def _watch(self, fd: int, mask: int, callback: Callable[[int], None]) -> None:
        if fd >= 0 and mask:
            self.loop.watch(fd, mask, callback)
        elif fd >= 0:
            self.loop.forget(fd)

    def _source_mask(self) -> int:
        wanted = self.tee >= 0 if self.peer is None else len(self.to_peer) < STREAM_LIMIT
        return READ if wanted and self.source >= 0 and not self.hung_up else 0

    def _sink_mask(self) -> int:
        return WRITE if self.to_sink and not self.hung_up else 0

    def _peer_mask(self) -> int:
        reading = READ if len(self.to_sink) < STREAM_LIMIT and not self.input_ended else 0
        return reading | (WRITE if self.to_peer else 0)

    def _on_terminal(self, mask: int) -> None:
        if mask & WRITE:
            self._write_sink()
        if mask & (READ | HANGUP):
            self._read_source()
        self.update()

    def _on_sink(self, mask: int) -> None:
        self._write_sink()
        self.update()

    def _on_source(self, mask: int) -> None:
        self._read_source()
        self.update()

    def _on_peer(self, mask: int) -> None:
        if mask & READ and self.peer is not None and not self.input_ended:
            self._read_peer(mask)
        if mask & WRITE:
            self._write_peer()
        if mask & HANGUP and not mask & READ:
            self.detach()
        self.update()

    def _read_source(self) -> bool:
        """Take what the process wrote; False when there is nothing now."""
        try:
            data = os.read(self.source, STREAM_LIMIT)
        except BlockingIOError:
            return False
        except OSError:  # a terminal whose other side is closed
            data = b""
        if not data:
            self._source_ended()
            return False
        self.written += len(data)
        self.count(len(data))
        self._save(data)
        if self.peer is not None:
            self.to_peer += data
            self._write_peer()
        return True

    def _save(self, data: bytes) -> None:
        try:
            while data and self.tee >= 0:
                data = data[os.write(self.tee, data) :]
        except OSError:  # a full disk loses output, not the task
            pass

    def _source_ended(self) -> None:
        if not self.terminal:
            self.loop.forget(self.source)
            close(self.source)
            self.source = -1
        else:
            self._hang_on()
        if not self.to_peer:
            self.detach()

    def _hang_on(self) -> None:
        """Nobody has the terminal open any more. Closing our end now would hang up a program that has closed its own and
        is about to exit: that waits for the end of the process."""
        self.hung_up = True
        self.loop.forget(self.source)
        self.to_sink.clear()

    def _drain(self) -> None:
        for _ in range(1024):  # bounded: a stray could write for ever
            if self.source < 0 or (self.tee < 0 and self.peer is None) or not self._read_source():
                return

    def _write_sink(self) -> None:
        try:
            del self.to_sink[: os.write(self.sink, self.to_sink)]
        except BlockingIOError:
            return
        except OSError:  # nobody reads any more
            self.to_sink.clear()
            self.input_ended = True
        if self.input_ended and not self.to_sink:
            self._close_sink()

    def _close_sink(self) -> None:
        if self.sink >= 0 and not self.terminal:
            self.loop.forget(self.sink)
            close(self.sink)
            self.sink = -1
        if self.source < 0:
            self.detach()

    def _read_peer(self, mask: int) -> None:
        assert self.peer is not None
        try:
            data = self.peer.recv(STREAM_LIMIT)
        except BlockingIOError:
            return
        except OSError:
            self.detach()
            return
        if data:
            if self.sink >= 0:
                self.to_sink += data
        elif mask & HANGUP:  # it is gone altogether: not the end of the input, another viewer may come
            self.detach()
        else:
            self._end_input()

    def _end_input(self) -> None:
        if self.terminal:
            self.to_sink += END_OF_INPUT
            self.input_ended = True
            return
        self.input_ended = True
        if not self.to_sink:
            self._close_sink()

    def _write_peer(self) -> None:
        if self.peer is None:
            return
        try:
            sent = self.peer.send(self.to_peer)
            del self.to_peer[:sent]
        except BlockingIOError:
            self.stuck_since = min(self.stuck_since, now())
            return
        except OSError:
            self.detach()
            return
        self.stuck_since = NEVER if not self.to_peer else now()
        if not self.to_peer and self.source < 0:
            self.detach()

    def to_state(self) -> dict[str, Any]:
        """Descriptors and buffers, for an upgrade."""
        return {
            "sink": self.sink,
            "source": self.source,
            "tee": self.tee,
            "peer": self.peer.fileno() if self.peer else -1,
            "to_sink": base64.b64encode(self.to_sink).decode(),
            "to_peer": base64.b64encode(self.to_peer).decode(),
            "input_ended": self.input_ended,
            "written": self.written,
        }


def from_state(loop: Loop, state: dict[str, Any]) -> Stream:
    """The opposite of `Stream.to_state`."""
    stream = Stream(loop, state["sink"], state["source"], state["tee"])
    stream.input_ended, stream.written = state["input_ended"], state["written"]
    stream.to_sink += base64.b64decode(state["to_sink"])
    if state["peer"] >= 0:
        peer = socket.socket(fileno=state["peer"])
        peer.setblocking(False)
        stream.peer = peer
        stream.to_peer += base64.b64decode(state["to_peer"])
    stream.update()
    return stream


class Viewers:
    """Looks once a second after viewers that do not take their bytes."""

    def __init__(self) -> None:
        self.streams: set[Stream] = set()
        self.due = NEVER

    def add(self, stream: Stream) -> None:
        """Look after this one until it is done."""
        self.streams.add(stream)
        self.due = min(self.due, now() + 1.0)

    def on_due(self, moment: float) -> None:
        """Cut off the stuck, forget the done."""
        for stream in self.streams:
            stream.check_viewer(moment)
        self.streams = {stream for stream in self.streams if not stream.done}
        self.due = moment + 1.0 if self.streams else NEVER
