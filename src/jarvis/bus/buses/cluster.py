"""The bus of several servers: what is for this one stays in the process, the rest travels packed over a transport."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from jarvis.bus.buses.memory import MemoryBus
from jarvis.bus.envelope import Envelope, Opener, Sealer
from jarvis.bus.transport import Transport, TransportDown
from jarvis.core.effects import AckFrame, Effect, ToNode, ToSession, Welcome
from jarvis.core.event import Event
from jarvis.core.inputs import (
    CommandsTaken,
    FilesSeen,
    Input,
    LookAgain,
    NodeConnected,
    NodeDisconnected,
    NodeReported,
    NodesSeen,
    TasksTaken,
    WorkflowsTaken,
)
from jarvis.utils.keeper import Keeper

SEND_S = 1.0
"""A transport that takes longer is given up for this entry."""
BEGIN_ANEW_S = 2.0
"""At most, after a defect: a server that hears nothing, or is not heard, must not stay so."""
ENTRY_ITEMS = 1000
ENTRY_BYTES = 256 * 1024
EARLY_S = 5.0
EARLY_LIMIT = 1000
"""Sessions that begin or end while their server finds this one in the lease before it knows itself that it leads."""
OUT_LIMIT = 20_000
"""Items that may wait for one server before what is new is refused or lost."""
_TYPES: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        NodeConnected,
        NodeDisconnected,
        NodeReported,
        NodesSeen,
        FilesSeen,
        LookAgain,
        ToNode,
        ToSession,
        AckFrame,
    )
}
_EFFECTS = (ToNode, ToSession, AckFrame)
_encoder = msgspec.msgpack.Encoder()


class ClusterBus:
    """See the port. ``transports`` in order of preference; ``leader`` tells the name of the server that leads, ``others`` those
    of the servers beside this one. Sessions are named ``SERVER/…``, so that their names tell where they are."""

    def __init__(
        self, name: str, transports: Sequence[Transport], leader: Callable[[], str | None],
        others: Callable[[], Sequence[str]],
    ) -> None:  # fmt: skip
        self.name, self._transports, self._leader, self._others = name, list(transports), leader, others
        self._local = MemoryBus()
        self._sealer, self.opener = Sealer(b"", "", name, 0), Opener(b"", "")
        self._epoch = (0, 0)
        self._leading = False
        self._early: deque[tuple[float, NodeConnected | NodeDisconnected]] = deque(maxlen=EARLY_LIMIT)
        self._out: dict[str, list[Input | Effect | list[Event]]] = {}
        self._nodes: dict[int, str] = {}
        """Node → the server that its session was welcomed on."""
        self.on_look: Callable[[], None] = lambda: None
        """Called when another server says that who leads may have changed, while this one does not lead."""
        self._gathered = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._sending: dict[str, asyncio.Task[None]] = {}
        self.sent = self.received = self.lost = 0

    # ------------------------------------------------------------ life

    def start(self, cluster: str, key: bytes, life: int, keeper: Keeper) -> None:
        """``key`` is what all servers of the ``cluster`` share; ``life`` is higher than in any life of this name before;
        ``keeper`` keeps it running."""
        self._sealer, self.opener = Sealer(key, cluster, self.name, life), Opener(key, cluster)
        loops: dict[str, Callable[[], Awaitable[None]]] = {"sending": self._send_all}
        loops |= {f"receiving over {way.name}": partial(self._receive, way) for way in self._transports}
        self._tasks = [asyncio.create_task(keeper.keep(name, run, BEGIN_ANEW_S)) for name, run in loops.items()]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for transport in self._transports:
            await transport.close()

    def lead(self, epoch: tuple[int, int], leading: bool) -> None:
        """Who leads has changed: effects of earlier leaders are not carried out any more, and what was said to this one when
        it led before is not believed any more."""
        if epoch > self._epoch:
            self._epoch = epoch
            self._local.drop_inputs()
        self._leading = leading
        self._nodes.clear()
        since = asyncio.get_running_loop().time() - EARLY_S
        while leading and self._early:
            at, item = self._early.popleft()
            if at >= since:
                self._local.offer(item)

    def let_look(self, servers: Sequence[str]) -> None:
        """Another one leads, or nobody does: they find it in the store by themselves, but later."""
        for server in servers:
            self._put(server, LookAgain(f"leader-{self.name}"))

    # ------------------------------------------------------------ the port

    def offer(self, item: Input) -> bool:
        if self._leading:
            return self._local.offer(item)
        if isinstance(item, FilesSeen) and not item.node:  # of a machine that leads no more
            return False
        leader = self._leader()
        if isinstance(item, TasksTaken | WorkflowsTaken | CommandsTaken):
            item = LookAgain(item.cause_id)
        if leader is None or leader == self.name:
            return isinstance(item, LookAgain)
        return self._put(leader, item)

    async def take(self, timeout: float) -> list[Input]:
        return await self._local.take(timeout)

    def dispatch(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, ToSession) and isinstance(effect.message, Welcome):
                self._nodes[effect.message.node] = _server_of(effect.session)
            if isinstance(effect, ToNode):
                server = self._nodes.get(effect.node, self.name)
            elif isinstance(effect, ToSession | AckFrame):
                server = _server_of(effect.session)
            else:
                continue
            if server == self.name:
                self._local.dispatch([effect])
            else:
                self._put(server, effect)

    def sessions(self) -> AsyncIterator[ToNode | ToSession | AckFrame]:
        return self._local.sessions()

    def publish(self, events: Sequence[Event]) -> None:
        batch = list(events)
        if not batch:
            return
        self._local.publish(batch)
        for other in self._others():
            self._put(other, batch)

    def watch(self) -> AsyncIterator[list[Event]]:
        return self._local.watch()

    # ------------------------------------------------------------ out

    def _put(self, server: str, item: Input | Effect | list[Event]) -> bool:
        waiting = self._out.setdefault(server, [])
        if len(waiting) >= OUT_LIMIT:
            self.lost += 1
            return False
        if not (isinstance(item, LookAgain) and any(isinstance(other, LookAgain) for other in waiting[-1:])):
            waiting.append(item)
        self._gathered.set()
        return True

    async def _send_all(self) -> None:
        """Everything that gathered in a turn of the loop, for each server by itself: one that is away holds up nobody."""
        while True:
            await self._gathered.wait()
            await asyncio.sleep(0)
            self._look_at_ended()
            self._gathered.clear()
            for server in list(self._out):
                if server not in self._sending:
                    task = self._sending[server] = asyncio.create_task(self._send_to(server))
                    task.add_done_callback(lambda _: self._gathered.set())

    def _look_at_ended(self) -> None:
        """Raises what one of them ended on."""
        for server in [server for server, task in self._sending.items() if task.done()]:
            self._sending.pop(server).result()

    async def _send_to(self, server: str) -> None:
        while waiting := self._out.pop(server, None):
            for part in _parts(waiting):
                items = [(_kind(item), item) for item in part]
                await self._send_entry(server, self._sealer.seal(self._epoch if self._leading else (0, 0), items))

    async def _send_entry(self, server: str, entry: bytes) -> None:
        for transport in self._transports:
            try:
                async with asyncio.timeout(SEND_S):
                    await transport.send(server, entry)
                self.sent += 1
                return
            except (TransportDown, TimeoutError):
                continue
        self.lost += 1

    # ------------------------------------------------------------ in

    async def _receive(self, transport: Transport) -> None:
        async for entry in transport.receive(self.name):
            envelope = self.opener.open(entry)
            if envelope is not None:
                self.received += 1
                self._accept(envelope)

    def _accept(self, envelope: Envelope) -> None:
        for kind, raw in envelope.items:
            try:
                if kind == "events":
                    self._local.publish(msgspec.msgpack.decode(raw, type=list[Event]))
                    continue
                item = msgspec.msgpack.decode(raw, type=_TYPES[kind])
            except (msgspec.MsgspecError, KeyError):  # a server of another version
                self.opener.drop("unknown")
                continue
            if isinstance(item, _EFFECTS):
                self._carry_out(item, envelope.epoch)
            elif self._leading:
                self._local.offer(item)
            elif isinstance(item, LookAgain):
                self.on_look()
            elif isinstance(item, NodeConnected | NodeDisconnected):
                self._early.append((asyncio.get_running_loop().time(), item))
            else:
                self.opener.drop("not the leader")

    def _carry_out(self, effect: Any, epoch: tuple[int, int]) -> None:
        if epoch < self._epoch:
            self.opener.drop("old leader")
        else:
            self._local.dispatch([effect])


def _server_of(session: str) -> str:
    return session.rpartition("/")[0]


def _kind(item: object) -> str:
    return "events" if isinstance(item, list) else type(item).__name__


def _parts(items: list[Any]) -> list[list[Any]]:
    """Few enough for an entry, and small enough, unless one alone is larger."""
    parts: list[list[Any]] = [[]]
    size = 0
    for item in items:
        weight = len(_encoder.encode(item)) if len(items) > 1 else 0
        if parts[-1] and (len(parts[-1]) >= ENTRY_ITEMS or size + weight > ENTRY_BYTES):
            parts.append([])
            size = 0
        parts[-1].append(item)
        size += weight
    return parts
