"""A network between nodes and a server: ordered links that are slow, cut, stuck or half-open, and bytes that are real frames."""

import asyncio
import zlib
from collections.abc import Callable
from random import Random
from types import SimpleNamespace
from typing import Any, Literal

from starlette.websockets import WebSocketDisconnect

from jarvis.core.permissions import Principal
from jarvis.sim.history import History
from jarvis.sim.loop import OF_NOBODY

Way = Literal["up", "down"]
"""``up`` is from a node to the server."""
AGENT = Principal("node", "node", (), "own node")


class _Pipe:
    """One direction of a link: bytes come out in the order in which they went in, later. None is the end."""

    def __init__(self, link: "Link", way: Way) -> None:
        self._link, self._way = link, way
        self._due = 0.0
        self._stuck: list[tuple[bytes | None, float]] = []
        self.out: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.over = self._dead = False

    def push(self, data: bytes | None) -> None:
        network = self._link.network
        loop = asyncio.get_running_loop()
        self._due = max(self._due + 1e-6, loop.time() + network.delay())
        loop.call_at(self._due, self._arrive, data, loop.time(), context=OF_NOBODY)
        if data is not None and network.repeats():
            self._due += 1e-6
            loop.call_at(self._due, self._arrive, data, loop.time(), context=OF_NOBODY)

    def _arrive(self, data: bytes | None, sent: float) -> None:
        if self.over or self._dead:
            return
        if self._stuck or self._link.network.blocked(self._link.node, self._way):
            self._stuck.append((data, sent))
        else:
            self._deliver(data, sent)

    def _deliver(self, data: bytes | None, sent: float = 0.0) -> None:
        self._link.network.delivered(self._link, self._way, data, sent)
        self.over = self.over or data is None
        self.out.put_nowait(data)

    def flush(self) -> None:
        """The way is free again: what was on it arrives, as TCP sends it again."""
        stuck, self._stuck = self._stuck, []
        for data, sent in stuck:
            if not self.over:
                self._deliver(data, sent)

    def die(self) -> None:
        """Its writer is gone without a word: nothing comes any more, not even what was stuck."""
        self._dead = True
        self._stuck.clear()

    def end(self) -> None:
        """Its reader hears the end now; what was under way is lost."""
        if not self.over:
            self._deliver(None)


class Link:
    """One connection: the node's end looks like a WebSocket client, the server's end like a WebSocket."""

    def __init__(self, network: "Network", node: str, ident: int) -> None:
        self.network, self.node, self.ident = network, node, ident
        self.up, self.down = _Pipe(self, "up"), _Pipe(self, "down")
        self.client, self.server = ClientEnd(self), ServerEnd(self)

    def cut(self) -> None:
        """Both ends hear of it at once; bytes on the way are lost."""
        self.up.end()
        self.down.end()

    @property
    def over(self) -> bool:
        return self.up.over and self.down.over


class ClientEnd:
    """What the agent's session takes for its socket."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._closed = False

    async def send(self, data: bytes) -> None:
        if self._closed or self._link.down.over:
            raise ConnectionResetError("the link is cut")
        self._link.up.push(data)

    async def recv(self) -> bytes:
        data = await self._link.down.out.get()
        if data is None:
            self._link.down.out.put_nowait(None)
            raise ConnectionResetError("the link is cut")
        return data

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._link.up.push(None)


class ServerEnd:
    """What the gateway takes for its WebSocket."""

    def __init__(self, link: Link) -> None:
        self.link = self._link = link
        self.state = SimpleNamespace(principal=AGENT)

    async def accept(self) -> None:
        """The handshake has its time in the dialling already."""

    async def receive(self) -> dict[str, Any]:
        data = await self._link.up.out.get()
        if data is None:
            self._link.up.out.put_nowait(None)
            return {"type": "websocket.disconnect", "code": 1006}
        return {"type": "websocket.receive", "bytes": data}

    async def send_bytes(self, data: bytes) -> None:
        if self._link.up.over:
            raise WebSocketDisconnect(1006)
        self._link.down.push(data)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        if code in (1008, 1011):
            self._link.network.fail(RuntimeError(f"the server ended a session of {self._link.node}: {code} {reason}"))
        self._link.down.push(None)


class Network:
    """All links. ``listener`` is the server that is up; without one nobody can connect."""

    def __init__(self, random: Random, history: History, fail: Callable[[BaseException], None]) -> None:
        """``fail`` hears of it when the server ends a session because it, or the node, made a mistake."""
        self._random, self._history, self.fail = random, history, fail
        self.listener: Callable[[ServerEnd], None] | None = None
        self.slowness = 1.0
        self.repeat_share = 0.0
        self._heard: dict[str, list[tuple[float, float]]] = {}
        """Node → (arrived, sent) of its frames that reached a server."""
        self._blocked: dict[tuple[str, Way], int] = {}
        self._links: list[Link] = []
        self._count = 0

    def delay(self) -> float:
        """Seconds: mostly a fraction of a millisecond, now and then much more."""
        base = self._random.uniform(0.0002, 0.002)
        return base * self.slowness * (self._random.choice((20, 200)) if self._random.random() < 0.02 else 1)

    def repeats(self) -> bool:
        return self.repeat_share > 0.0 and self._random.random() < self.repeat_share

    def blocked(self, node: str, way: Way) -> bool:
        return bool(self._blocked.get((node, way)))

    def delivered(self, link: Link, way: Way, data: bytes | None, sent: float) -> None:
        if way == "up" and data is not None:
            self._heard.setdefault(link.node, []).append((asyncio.get_running_loop().time(), sent))
        self._history.note("frame", link.node, link.ident, way, "end" if data is None else f"{zlib.crc32(data):08x}")

    def heard_at(self, node: str, before: float) -> float:
        """When the newest of the node's frames that had arrived by then was sent."""
        return max((sent for arrived, sent in self._heard.get(node, ()) if arrived <= before), default=0.0)

    async def dial(self, node: str) -> ClientEnd:
        """Connect; waits for ever when the way is blocked, as a lost SYN does."""
        await asyncio.sleep(self.delay())
        if self.blocked(node, "up") or self.blocked(node, "down"):
            await asyncio.get_running_loop().create_future()
        if self.listener is None:
            raise ConnectionRefusedError("nobody listens")
        self._count += 1
        link = Link(self, node, self._count)
        self._links = [other for other in self._links if not other.over]
        self._links.append(link)
        self.listener(link.server)
        return link.client

    # ------------------------------------------------------------ faults

    def links_of(self, node: str | None) -> list[Link]:
        return [link for link in self._links if not link.over and node in (None, link.node)]

    def cut(self, node: str | None) -> None:
        """All links of a node (None: of all nodes) break, seen by both ends unless the way is blocked."""
        for link in self.links_of(node):
            link.cut()

    def vanish(self, node: str) -> None:
        """The node's end is gone without a word: the server learns it from its own keepalive."""
        for link in self.links_of(node):
            link.down.end()
            link.up.die()
            asyncio.get_running_loop().call_later(self._random.uniform(5.0, 40.0), link.up.end)

    def block(self, node: str, *ways: Way) -> None:
        for way in ways:
            self._blocked[node, way] = self._blocked.get((node, way), 0) + 1

    def free(self, node: str, *ways: Way) -> None:
        """Undo one ``block``. Half of the links did not outlive it."""
        for way in ways:
            self._blocked[node, way] -= 1
        for link in self.links_of(node):
            if self._random.random() < 0.5:
                link.cut()
                continue
            if not self.blocked(node, "up"):
                link.up.flush()
            if not self.blocked(node, "down"):
                link.down.flush()
