"""Where agents connect: carries facts to the leader, orders to the nodes, and bodies to and from the blob store."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from jarvis.api.admission import RATE, Admission
from jarvis.api.auth import MEMBER, authorise
from jarvis.api.problems import Refusal, printable
from jarvis.api.services import Services
from jarvis.api.session import Held, Session, StreamHandle
from jarvis.bus.messages import (
    LOOK_VERSION,
    OLDEST_VERSION,
    PROTOCOL_VERSION,
    BlobData,
    BlobGet,
    BlobPut,
    BlobStored,
    ChunkStored,
    FromAgent,
    Heartbeat,
    Looked,
    OutputChunk,
    StreamData,
    StreamOpen,
    StreamTaken,
    agreed,
    decode_from_agent,
)
from jarvis.core.effects import AckFrame, Assign, Look, Recorded, ToNode, ToSession, Welcome
from jarvis.core.errors import JarvisError, NotAllowed, StoreUnavailable
from jarvis.core.holdings import Holdings, worth_telling
from jarvis.core.inputs import (
    Ended,
    FilesSeen,
    Hello,
    Input,
    NodeConnected,
    NodeDisconnected,
    NodeReported,
    NodesSeen,
    Returned,
    Started,
    encode_facts,
)
from jarvis.core.node import Node
from jarvis.core.permissions import Principal
from jarvis.core.states import ON_NODE
from jarvis.state.store import TaskFilter
from jarvis.utils.directory_listing import FILES_MOST

log = logging.getLogger(__name__)
BLOB_READ = 256 * 1024
RESCAN_S = 5.0
EXPEL_S = 2.0
"""How often it is looked whether those that are connected are still members."""
PAGE = 1000
ON_SOME_NODE = TaskFilter(states=ON_NODE)
BEGIN_ANEW_S = 0.5
"""Nodes come back spread over so long at most."""
LONGEST_UNACKED_S = 5.0
"""A fact whose acknowledgement stays away while others come has been lost alone."""
UNACKED_LIMIT = 1000
REMOVED_RETRY_S = 5.0
BACK_SOON_S = (0.0, 0.1, 0.2, 0.4, 0.8)
"""Pauses before each look for a node's session; together longer than it takes until a server has written down who is there."""
UNFIT_MOST, MARK_MOST = 200, 64
HOLDS_AT_ONCE = 2000
"""Things that are passed on at once of what nodes hold: when all nodes tell it together, as to a new leader, it is a lot."""
NO_WELCOME = "a session begins with Hello and goes on after Welcome"
_FACTS = (Ended, Started, Returned)
"""What is for the leader alone, and comes by the thousand."""


class BadFrame(Exception):
    """An agent sent what no agent of this protocol sends; its session ends."""


def node_away(node: int) -> Refusal:
    """No session to the node at the moment."""
    hint = "try again in a few seconds, or see 'jarvis node ls'"
    return Refusal(503, "node_away", f"node {node} is not connected to this server", hint)


class Gateway:
    """One per server process. Agents are not trusted: a node reads blobs of its own tasks alone."""

    def __init__(self, services: Services, new_name: Callable[[], str] = lambda: secrets.token_hex(8)) -> None:
        """``new_name``: unique names for sessions, after that of the replica that holds them."""
        self.services, self._new_name = services, new_name
        self._sessions: dict[str, Session] = {}
        self._by_node: dict[int, Session] = {}
        self._seen: dict[int, dict[str, float]] = {}
        self._health: dict[int, tuple[float, dict[str, float]]] = {}
        """Node → when it was heard here last, and what it said of itself."""
        self._told: dict[int, int] = {}
        self._unfit: dict[int, str] = {}
        self._holds: dict[int, Holdings] = {}
        """What nodes said that they hold, and is not passed on yet."""
        self._names: dict[int, str] = {}
        self._acked_at = services.clock.now()
        """When the leader acknowledged something last."""
        self._scanned_at = float("-inf")
        self._scanning = asyncio.Lock()
        self.admission = Admission()

    # ------------------------------------------------------------ from the leader

    async def run(self) -> None:
        """Until cancelled: deliver what the leader dispatches, and pass on heartbeats."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._deliver())
            group.create_task(self._flush_heartbeats())
            group.create_task(self._expel())
            if self.services.settings.report_after_s is not None:
                group.create_task(self._keep_reports(self.services.settings.report_after_s))

    async def _deliver(self) -> None:
        async for item in self.services.bus.sessions():
            self._route(item)

    def _route(self, item: ToNode | ToSession | AckFrame) -> None:
        if isinstance(item, ToNode):
            session = self._by_node.get(item.node)
            if session is not None and (session.version >= LOOK_VERSION or not isinstance(item.message, Look)):
                _note(session, item.message)
                session.post(item.message)
            return
        found = self._sessions.get(item.session)
        if found is None:
            return
        if isinstance(item, AckFrame):
            self._acked_at = self.services.clock.now()
            found.committed(item.seq)
            return
        message = item.message
        if isinstance(message, Welcome):
            self._welcome(found, message)
            message = msgspec.structs.replace(message, version=found.version)
        found.post(message)
        if item.close:
            found.finish()

    def _welcome(self, session: Session, message: Welcome) -> None:
        """A newer session of the same node replaces the older."""
        session.node, session.epoch = message.node, (message.incarnation, message.epoch)
        if self.services.replica:  # the other servers ask the store where it is, and its first heartbeat is yet to come
            self._seen.setdefault(message.node, {})
        older = self._by_node.get(message.node)
        self._by_node[message.node] = session
        if older is not None and older is not session:
            session.held.update(older.held)
            older.finish()

    async def _flush_heartbeats(self) -> None:
        while True:
            await asyncio.sleep(self.services.settings.heartbeat_flush_s)
            if not self._seen:
                continue
            holds = self._some_holds()
            seen, self._seen, told, self._told = self._seen, {}, self._told, {}
            unfit = {node: text for node, text in self._unfit.items() if node in seen}
            if self.services.replica:
                await self._write_seen(seen)
            taken = self.services.bus.offer(NodesSeen(f"seen-{self._new_name()}", seen, told, {}, unfit, holds))
            if not taken:
                self._holds = holds | self._holds
            # Where it is written down it is not said again: that would be as if it had been heard again.
            if not taken and not self.services.replica:
                self._seen = seen | self._seen

    def _some_holds(self) -> dict[int, Holdings]:
        """Of the nodes that have waited the longest for it."""
        some, things = dict[int, Holdings](), 0
        while self._holds and things < HOLDS_AT_ONCE:
            node = next(iter(self._holds))
            some[node] = self._holds.pop(node)
            things += len(some[node])
        return some

    async def _write_seen(self, seen: dict[int, dict[str, float]]) -> None:
        """For a leader whom no message reaches, and for everybody who asks where a node's session is."""
        now = self.services.clock.now()
        with contextlib.suppress(StoreUnavailable):
            rows = [(node, now, health) for node, health in seen.items()]
            await self.services.store.node_seen_many(rows, self.services.replica)

    async def _expel(self) -> None:
        """Who is not a member any more is not talked to any more."""
        while True:
            await asyncio.sleep(EXPEL_S)
            for session in [s for s in self._sessions.values() if s.member]:
                with contextlib.suppress(StoreUnavailable):
                    if await self.services.authenticator.member(session.member, fresh=False) is None:
                        session.refuse("this node was removed from the cluster", REMOVED_RETRY_S)

    def begin_anew(self, incarnation: int, epoch: int) -> None:
        """There is another leader: sessions that it did not welcome end, because only a Hello tells it what their nodes have."""
        over = [session for session in self._sessions.values() if session.epoch != (incarnation, epoch)]
        for session in over:
            session.refuse("another leader has taken over", min(len(over) / RATE, BEGIN_ANEW_S))

    async def _keep_reports(self, after_s: float) -> None:
        """Facts that the leader does not acknowledge are put where it will find them, and are safe then."""
        while True:
            await asyncio.sleep(after_s / 4)
            now = self.services.clock.now()
            patience = after_s if now - self._acked_at > after_s else LONGEST_UNACKED_S
            for session in list(self._sessions.values()):
                late = [(seq, facts) for seq, (at, facts) in session.unacked.items() if now - at > patience]
                with contextlib.suppress(StoreUnavailable):
                    if late:
                        rows = [(session.node, encode_facts(facts)) for _, facts in late]
                        await self.services.store.report_insert_many(rows)
                        session.committed(late[-1][0])

    # ------------------------------------------------------------ from agents

    async def serve(self, socket: WebSocket) -> None:
        """One session from handshake to end."""
        principal: Principal = authorise(socket.state.principal, "agent")
        await socket.accept()
        certificate = getattr(socket.state, "certificate", None)
        member = certificate.member if certificate is not None else ""
        session = Session(f"{self.services.replica}/{self._new_name()}", socket, member)
        self._sessions[session.ident] = session
        tasks = [
            asyncio.create_task(self._read(socket, session, principal)),
            asyncio.create_task(session.write()),
            asyncio.create_task(session.broken.wait()),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            failed = next((t.exception() for t in done if t.exception() is not None), None)
            await self._close(socket, session, failed)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._ended(session)

    async def _close(self, socket: WebSocket, session: Session, failed: BaseException | None) -> None:
        code, reason = (1013, "too slow") if session.broken.is_set() else (1000, "")
        if isinstance(failed, BadFrame | msgspec.MsgspecError | NotAllowed):
            code, reason = 1008, str(failed)[:100]
        elif failed is not None and not isinstance(failed, WebSocketDisconnect | RuntimeError):
            log.error("session %s of node %s failed", session.ident, session.node, exc_info=failed)
            code, reason = 1011, "the server made a mistake"
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await socket.close(code, reason)

    async def _ended(self, session: Session) -> None:
        self._sessions.pop(session.ident, None)
        session.end()
        if session.node:
            if self._by_node.get(session.node) is session:
                del self._by_node[session.node]
                self._holds.pop(session.node, None)
            self.services.bus.offer(NodeDisconnected(f"bye-{session.ident}", session.ident, session.node))

    async def _read(self, socket: WebSocket, session: Session, principal: Principal) -> None:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1006))
            data = message.get("bytes")
            if not data:
                raise BadFrame("frames are binary")
            frame = decode_from_agent(data)
            if frame.seq <= session.heard:
                continue
            if frame.seq > session.heard + 1:
                raise BadFrame("a frame is missing before this one")
            facts = [m for m in frame.messages if isinstance(m, _FACTS)]
            first = session.heard == 0
            session.frame_heard(frame.seq, facts, self.services.clock.now())
            if facts and not session.node:
                raise BadFrame(NO_WELCOME)
            for item in frame.messages:
                if not isinstance(item, _FACTS):
                    await self._take(session, principal, item, first)
            if facts:
                cause = f"{session.ident}-{frame.seq}"
                await self._offer_report(NodeReported(cause, session.ident, session.node, frame.seq, facts), session)
                for fact in facts:
                    if isinstance(fact, Returned):
                        session.forget(fact.numbers)

    async def _offer(self, item: Input) -> None:
        """While the leader takes no more, this session is read no further: that is the back-pressure."""
        delay = 0.005
        while not self.services.bus.offer(item):
            await asyncio.sleep(delay)
            delay = min(delay * 2, 0.2)

    async def _offer_report(self, item: NodeReported, session: Session) -> None:
        """What the leader does not take is written down instead, where that is done."""
        if self.services.settings.report_after_s is None:
            await self._offer(item)
        elif not self.services.bus.offer(item):
            while len(session.unacked) >= UNACKED_LIMIT:  # noqa: ASYNC110 - back-pressure while the store is away, too
                await asyncio.sleep(0.05)

    async def _take(self, session: Session, principal: Principal, item: FromAgent, first: bool) -> None:
        if isinstance(item, Hello):
            if not first:
                raise BadFrame("Hello comes once, first")
            await self._hello(session, principal, item)
        elif not session.node:
            raise BadFrame(NO_WELCOME)
        elif isinstance(item, Heartbeat):
            self._beat(session.node, item)
            session.answer()
        elif isinstance(item, OutputChunk):
            await self._chunk(session, item)
        elif isinstance(item, BlobGet):
            await self._blob_get(session, item)
        elif isinstance(item, BlobPut):
            await self._blob_put(session, item)
        elif isinstance(item, Looked):
            self.services.bus.offer(files_seen(session.node, item))
        elif isinstance(item, StreamData) and (handle := session.streams.get(item.stream)) is not None:
            handle.arrived(item)
        elif isinstance(item, StreamTaken) and (handle := session.streams.get(item.stream)) is not None:
            handle.taken(item.size)

    def _beat(self, node: int, item: Heartbeat) -> None:
        self._seen[node] = item.health
        self._health[node] = self.services.clock.now(), item.health
        if item.unfit:
            self._unfit[node] = printable(item.unfit)[:UNFIT_MOST]
        else:
            self._unfit.pop(node, None)
        if item.told >= 0:
            self._told[node] = item.told
        if item.holds is not None:
            self._holds[node] = worth_telling(item.holds)
        if item.beat:
            self._ask_leader(node, item)

    def _ask_leader(self, node: int, item: Heartbeat) -> None:
        """A node with something fenced wants to know that the leader hears it: that does not wait for others."""
        told = {node: item.told} if item.told >= 0 else {}
        unfit = {node: self._unfit[node]} if node in self._unfit else {}
        self.services.bus.offer(NodesSeen(f"beat-{node}", {node: item.health}, told, {node: item.beat}, unfit))

    async def _hello(self, session: Session, principal: Principal, hello: Hello) -> None:
        if principal.label.startswith(MEMBER):
            name = principal.label.removeprefix(MEMBER)
            if hello.name != name or (hello.node is not None and await self._name_of(hello.node) not in (name, "")):
                raise NotAllowed(f"this certificate is that of node {name!r}")
        version = agreed(hello.version, hello.oldest)
        if version is None:
            session.refuse(_no_common_version(hello))
            return
        session.version = version
        if wait := self.admission.ask(self.services.clock.now()):
            if hello.node is not None:
                self._seen.setdefault(hello.node, {})
            session.refuse("many nodes come at once: this one has its turn later", wait)
            return
        await self._offer(NodeConnected(f"hello-{session.ident}", session.ident, hello))

    async def _name_of(self, node: int) -> str:
        """Of a registered node; empty when there is none. Those of members never change."""
        if node not in self._names:
            self._names = {found.id: found.name for found in await self.services.store.node_list()}
        return self._names.get(node, "")

    # ------------------------------------------------------------ bodies

    async def _chunk(self, session: Session, item: OutputChunk) -> None:
        held = await self._held(session, item.number, item.token)
        if held is None:
            return
        digest = await self.services.blobs.put(held.project, item.data)
        session.post(ChunkStored(number=item.number, stream=item.stream, offset=item.offset, digest=digest))

    async def _blob_put(self, session: Session, item: BlobPut) -> None:
        held = await self._held(session, item.number, item.token)
        try:
            if held is None:
                raise NotAllowed(f"assignment {item.number} is not on this node")
            digest = await self.services.blobs.put(held.project, item.data)
            session.post(BlobStored(request=item.request, digest=digest))
        except JarvisError as error:
            session.post(BlobStored(request=item.request, error=str(error)))

    async def _blob_get(self, session: Session, item: BlobGet) -> None:
        try:
            held = next((h for h in session.held.values() if h.task == item.task), None)
            if held is None:
                await self._rescan()
                held = next((h for h in session.held.values() if h.task == item.task), None)
            if held is None:
                raise NotAllowed(f"task {item.task} is not on this node")
            length = max(0, min(item.length, BLOB_READ))
            size = await self.services.blobs.size(held.project, item.digest)
            data = await self.services.blobs.read(held.project, item.digest, max(0, item.offset), length)
            session.post(BlobData(request=item.request, data=data, size=size))
        except JarvisError as error:
            session.post(BlobData(request=item.request, error=str(error)))

    async def _held(self, session: Session, number: int, token: int) -> Held | None:
        held = session.held.get(number)
        if held is None:
            await self._rescan()
            held = session.held.get(number)
        return held if held is not None and held.token == token else None

    async def _rescan(self) -> None:
        """After a restart of the server the nodes hold what this gateway never sent: learn it from the store."""
        async with self._scanning:
            now = self.services.clock.now()
            if now - self._scanned_at < RESCAN_S:
                return
            self._scanned_at, before = now, None
            while page := await self.services.store.task_list(ON_SOME_NODE, before, PAGE):
                before = page[-1].id
                projects = {task.id: task.project for task in page}
                for attempt in await self.services.store.attempt_list_current(list(projects)):
                    for at in attempt.ranks or (attempt,):
                        if (session := self._by_node.get(at.node)) is not None:
                            held = Held(at.number, attempt.token, attempt.task, attempt.index, projects[attempt.task])
                            session.held.setdefault(at.number, held)

    # ------------------------------------------------------------ streams

    def session_of(self, node: int) -> Session | None:
        """The node's session, if this server holds it."""
        return self._by_node.get(node)

    def refreshed(self, node: Node) -> Node:
        """With what it said here since its row was written, which one server alone does seldom."""
        at, health = self._health.get(node.id, (0.0, {}))
        return msgspec.structs.replace(node, seen_at=at, health=health or node.health) if at > node.seen_at else node

    async def open_stream(self, node: int, request: StreamOpen) -> StreamHandle:
        """Open an interactive stream to an attempt, wherever its node's session is. Raises when the node is away, and is not back
        soon: one that has just joined, or changes its server, is somewhere in a moment."""
        for pause in BACK_SOON_S:
            await asyncio.sleep(pause)
            if (session := self._by_node.get(node)) is not None:
                handle = session.open_stream()
                session.post(msgspec.structs.replace(request, stream=handle.stream))
                return handle
            peers = self.services.peers
            if peers is not None and (elsewhere := await peers.open_stream(node, request)) is not None:
                return elsewhere
        raise node_away(node)


def files_seen(node: int, item: Looked) -> FilesSeen:
    """What a node says is not believed to be names of files, nor few of them."""
    if (
        len(item.files) > FILES_MOST
        or len(item.mark) > MARK_MOST
        or any("/" in name or not name for name in item.files)
    ):
        raise BadFrame("these are not the files of one directory")
    moving = set(item.moving)
    settled = {name: stamp for name, stamp in item.files.items() if name not in moving}
    problem = printable(item.problem)[:UNFIT_MOST]
    return FilesSeen(f"files-{item.schedule}", item.schedule, frozenset(item.files), settled, node, item.mark, problem)


def _no_common_version(hello: Hello) -> str:
    who = f"node {hello.name!r} (version {hello.software})"
    todo = f"upgrade {who}" if hello.version < OLDEST_VERSION else f"upgrade this server before {who}"
    said = f"this server speaks versions {OLDEST_VERSION} to {PROTOCOL_VERSION} of the protocol"
    return f"{said}, the node {hello.oldest} to {hello.version}: {todo}"


def _note(session: Session, message: object) -> None:
    """Remember what a node has, for the bodies it asks for and sends."""
    if isinstance(message, Assign):
        for a in message.assignments:
            session.held[a.number] = Held(a.number, a.token, a.task, a.index, a.project)
    elif isinstance(message, Recorded):
        session.forget(message.numbers)
