"""A proxy that knows the frames of sessions between nodes and servers, and does to them what no TCP would.

Within a connection TCP neither doubles nor reorders, so the faults are those of what stands between two connections: a proxy that
sends a frame twice, swaps two, repeats what an earlier session said, or lets a session that was given up go on beside the next.
Lawful pieces are cut anew, too: what comes as one need not arrive as one. Frames: RFC 6455, section 5.2.
"""

import asyncio
import struct
from collections import Counter, deque
from random import Random
from typing import Any

import msgspec
from tests.chaos.proxy import Proxy

BINARY, FINAL = 0x2, 0x80
MASKED = 0x80
KEPT = 2000
"""Messages of earlier frames that may be said again."""
ONCE = ("hello", "welcome", "refused")
"""Begin or refuse a session: not part of what is said in it."""


class FrameProxy(Proxy):
    """See above; each share is a probability for a frame, and ``acted`` counts what was done."""

    def __init__(self, target: tuple[str, int], random: Random) -> None:
        super().__init__(target, random)
        self.twice_share = self.swap_share = self.replay_share = self.late_share = 0.0
        self.late_s = 0.0
        """For how long a late frame and all behind it are held."""
        self.cut_small = False
        """Bytes are passed on in pieces of random sizes."""
        self.acted: Counter[str] = Counter()
        self._said: dict[bool, deque[Any]] = {True: deque(maxlen=KEPT), False: deque(maxlen=KEPT)}
        """Messages of nodes (true) and of servers, of all sessions."""

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, budget: list[int]) -> None:
        """The handshake as it is, then frame by frame."""
        await self._put(writer, await reader.readuntil(b"\r\n\r\n"), budget)
        held: bytes | None = None
        while (frame := await _read(reader)) is not None:
            for data in self._spoil(frame):
                if held is None and self._chance(self.swap_share, "swapped"):
                    held = data
                    continue
                await self._put(writer, data, budget)
                if held is not None:
                    await self._put(writer, held, budget)
                    held = None
            if budget[0] == 0:
                return

    def _chance(self, share: float, what: str) -> bool:
        acts = share > 0.0 and self._random.random() < share
        self.acted[what] += acts
        return acts

    def _spoil(self, frame: "Wire") -> list[bytes]:
        """The frame as it goes on: as often, and with what else."""
        self.acted["frames"] += 1
        if frame.payload is None:
            return [frame.data]
        seq, ack, messages = msgspec.msgpack.decode(frame.payload)
        fresh = [message for message in messages if message.get("t") not in ONCE]
        said = self._said[frame.masked]
        if fresh and said and self._chance(self.replay_share, "replayed"):
            older = self._random.sample(said, min(len(said), self._random.randint(1, 5)))
            frame = frame.with_payload(msgspec.msgpack.encode([seq, ack, [*older, *messages]]))
        said.extend(fresh)
        return [frame.data] * (2 if self._chance(self.twice_share, "doubled") else 1)

    async def _put(self, writer: asyncio.StreamWriter, data: bytes, budget: list[int]) -> None:
        while self.stuck:  # noqa: ASYNC110 - set by whoever plays the network
            await asyncio.sleep(0.02)
        if self.delay_s:
            await asyncio.sleep(self.delay_s * self._random.uniform(0.5, 1.5))
        if self._chance(self.late_share, "late"):
            await asyncio.sleep(self.late_s)
        if budget[0] >= 0:
            data = data[: budget[0]]
            budget[0] -= len(data)
        while data:
            size = self._random.randint(1, len(data)) if self.cut_small else len(data)
            writer.write(data[:size])
            await writer.drain()
            data = data[size:]


class Wire:
    """One WebSocket frame as it is on the wire; ``payload`` of whole binary messages alone."""

    def __init__(self, data: bytes, masked: bool, payload: bytes | None) -> None:
        self.data, self.masked, self.payload = data, masked, payload

    def with_payload(self, payload: bytes) -> "Wire":
        mask = MASKED if self.masked else 0
        if len(payload) < 126:
            head = struct.pack("!BB", FINAL | BINARY, mask | len(payload))
        elif len(payload) < 1 << 16:
            head = struct.pack("!BBH", FINAL | BINARY, mask | 126, len(payload))
        else:
            head = struct.pack("!BBQ", FINAL | BINARY, mask | 127, len(payload))
        key = b"\0\0\0\0" if self.masked else b""
        return Wire(head + key + payload, self.masked, payload)


async def _read(reader: asyncio.StreamReader) -> Wire | None:
    """The next frame; None when the connection has ended."""
    try:
        head = await reader.readexactly(2)
        size = head[1] & 0x7F
        if size > 125:
            more = await reader.readexactly(2 if size == 126 else 8)
            head, size = head + more, int.from_bytes(more, "big")
        masked = bool(head[1] & MASKED)
        key = await reader.readexactly(4) if masked else b""
        body = await reader.readexactly(size)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    whole = head[0] == FINAL | BINARY
    return Wire(head + key + body, masked, _unmasked(body, key) if whole else None)


def _unmasked(body: bytes, key: bytes) -> bytes:
    if not key:
        return body
    long_key = (key * (len(body) // 4 + 1))[: len(body)]
    return (int.from_bytes(body, "big") ^ int.from_bytes(long_key, "big")).to_bytes(len(body), "big")
