"""Frames between agent and supervisor: a big-endian length of 4 bytes, then one JSON object.

Every buffer is bounded:
- a frame is at most FRAME_LIMIT long; a longer one ends the connection, because its sender is not an agent of ours;
- towards the agent at most OUT_LIMIT waits. While it is full, commands are not read, so that nothing new is caused, and
  further reports queue up unencoded; nothing is dropped;
- ends that nobody acknowledges are held for at most UNACKED_LIMIT attempts; beyond that a start is refused;
- a stream holds at most STREAM_LIMIT in each direction and stops reading its source meanwhile, as a terminal does; a
  viewer of a task's terminal that takes nothing for VIEWER_PATIENCE seconds is cut off, so that it cannot hold up the
  task; output of a terminal goes to the output file first. A command beside a task waits for its reader.
"""

from __future__ import annotations

import json
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Message = dict[str, Any]

VERSION = 2
"""Since 2 it reads `starts`."""
FRAME_LIMIT = 4 << 20
OUT_LIMIT = 1 << 20
UNACKED_LIMIT = 50_000
QUEUED_LIMIT = 10_000
STREAM_LIMIT = 64 << 10
VIEWER_PATIENCE = 10.0
CONNECTION_LIMIT = 256
FIRST_FRAME_PATIENCE = 10.0

_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
_decode = json.JSONDecoder().raw_decode
_length = struct.Struct(">I")


class ProtocolError(Exception):
    """The peer does not speak this protocol."""


def encode(message: Message | str) -> str:
    """Write one message as compact JSON (the journal uses the same form)."""
    return _encode(message)


def each_start(message: Message) -> list[Message]:
    """The `start` messages of one `starts`: what each has of its own, over what they have in common, and likewise their
    environments. Raises KeyError and TypeError."""
    common, env = message["common"], message["common"]["env"]
    starts = [{**common, **own} for own in message["each"]]
    for start in starts:
        if start["env"] is not env:
            start["env"] = {**env, **start["env"]}
    return starts


def pack(message: Message | str) -> bytes:
    """Frame one message, given as an object or as its JSON."""
    body = (message if isinstance(message, str) else _encode(message)).encode()
    return _length.pack(len(body)) + body


class FrameReader:
    """Cuts a stream of bytes into messages. `parse` reads one."""

    def __init__(self, data: bytes = b"", parse: Callable[[bytearray], Message] | None = None) -> None:
        self.data = bytearray(data)
        self.parse = parse or _parse

    def feed(self, data: bytes) -> None:
        """Add what was received."""
        self.data += data

    def next(self) -> Message | None:
        """Take the next complete message, or None."""
        if len(self.data) < 4:
            return None
        (size,) = _length.unpack_from(self.data)
        if size > FRAME_LIMIT:
            raise ProtocolError(f"a frame of {size} bytes is over the limit of {FRAME_LIMIT}")
        if len(self.data) < 4 + size:
            return None
        message = self.parse(self.data[4 : 4 + size])
        del self.data[: 4 + size]
        return message

    def __iter__(self) -> Iterator[Message]:
        while (message := self.next()) is not None:
            yield message


def _parse(body: bytearray) -> Message:
    try:
        text = body.decode(errors="surrogatepass")
        message, end = _decode(text)
    except ValueError as error:
        raise ProtocolError(f"not JSON: {error}") from None
    if end != len(text) or not isinstance(message, dict):
        raise ProtocolError("a frame holds one JSON object")
    return message
