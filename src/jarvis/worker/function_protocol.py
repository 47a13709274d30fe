"""Between the agent and a warm process: frames of a length, one byte that tells the kind, and msgpack.

Results have the same form on the wire and in the spool, so each is encoded once.
"""

import struct
from collections.abc import Iterator

import msgspec

from jarvis.core.effects import Assignment
from jarvis.core.gpus import Share

HEAD = struct.Struct(">IB")
FRAME_LIMIT = 16 << 20
CALL, WITHDRAW, ACK, STOP, BODY = 0, 1, 2, 3, 4
STATE, RESULT, WITHDRAWN = 0, 1, 2
RESULT_LIMIT = 7 << 20
"""A larger result does not fit into a frame of the session."""


class FrameError(Exception):
    """The peer does not speak this protocol."""


class Call(msgspec.Struct, gc=False, array_like=True):
    """One call. ``code`` comes with the first call of a function, ``args`` when they are not in the spec."""

    assignment: Assignment
    code: bytes | None = None
    args: bytes | None = None


class Body(msgspec.Struct, gc=False, array_like=True):
    """A stored result that the next call is given."""

    digest: str
    data: bytes


class State(msgspec.Struct, gc=False, array_like=True):
    """What a warm process has, said first to an agent that connects; unacknowledged results follow."""

    current: Assignment | None
    queued: list[Assignment]
    calls: int
    unacked: int


class Result(msgspec.Struct, gc=False, array_like=True):
    """How a call ended. ``output`` holds what it printed if that is little, else it is a range of the log."""

    number: int
    token: int
    ok: bool
    payload: bytes
    exception: str = ""
    message: str = ""
    wall_s: float = 0.0
    user_s: float = 0.0
    system_s: float = 0.0
    max_rss: int = 0
    output: bytes = b""
    log_start: int = 0
    log_end: int = 0
    json: bytes = b""
    """Of a step: its result as JSON, if that can say it."""


class Place(msgspec.Struct, gc=False):
    """What a warm process is told at its start, as JSON: where and as whom it is."""

    folder: str
    node: str
    home: str
    user: str
    shell: str
    api_url: str = ""
    shares: tuple[Share, ...] = ()


_encoder = msgspec.msgpack.Encoder()
decode_call = msgspec.msgpack.Decoder(Call).decode
decode_body = msgspec.msgpack.Decoder(Body).decode
decode_numbers = msgspec.msgpack.Decoder(list[int]).decode
decode_state = msgspec.msgpack.Decoder(State).decode
decode_result = msgspec.msgpack.Decoder(Result).decode


def frame(kind: int, body: Call | Body | State | Result | list[int]) -> bytes:
    data = _encoder.encode(body)
    return HEAD.pack(len(data), kind) + data


class Frames:
    """Cuts a stream of bytes into (kind, body)."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Add what was received; yields the frames that are complete. Take them all before feeding again."""
        self._data += data
        end = len(self._data)
        if end < HEAD.size or end < HEAD.size + self._size_of(self._data, 0):
            return
        whole, at = bytes(self._data), 0
        self._data.clear()
        while end - at >= HEAD.size:
            begin = at + HEAD.size
            stop = begin + self._size_of(whole, at)
            if stop > end:
                break
            yield whole[begin - 1], whole[begin:stop]
            at = stop
        self._data += whole[at:]

    @staticmethod
    def _size_of(data: bytes | bytearray, at: int) -> int:
        size: int = HEAD.unpack_from(data, at)[0]
        if size > FRAME_LIMIT:
            raise FrameError(f"a frame of {size} bytes")
        return size
