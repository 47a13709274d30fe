"""The composition root: reads settings, picks adapters, starts the shells of a server and of its own node."""

import asyncio
import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jarvis import __version__
from jarvis.bus.buses.memory import MemoryBus
from jarvis.config.policies import policy_of
from jarvis.config.settings import Settings
from jarvis.core.errors import StoreUnavailable
from jarvis.own_node import own_nodes
from jarvis.scheduler.arrivals import Arrivals
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.leader import Election
from jarvis.scheduler.recall import MOST as RECALLED
from jarvis.scheduler.replay.recording import Record, RecordedScheduler
from jarvis.scheduler.scheduler import Scheduler
from jarvis.scheduler_process import SchedulerProcess, wanted
from jarvis.state.blob_store import BlobStore
from jarvis.state.blob_stores.directory import DirectoryBlobStore
from jarvis.state.blob_stores.memory import MemoryBlobStore
from jarvis.state.coordination import Leader, Replica
from jarvis.state.ownership import claim
from jarvis.state.retention import Keep, Retention
from jarvis.state.store import Store
from jarvis.state.stores.memory import MemoryStore
from jarvis.state.stores.sqlite import SqliteStore
from jarvis.utils import server_file
from jarvis.utils.clock import Clock
from jarvis.utils.keeper import Keeper
from jarvis.utils.listener import listen
from jarvis.utils.record_file import RECORD, RecordFiles

if TYPE_CHECKING:
    from jarvis.bus.buses.cluster import ClusterBus
    from jarvis.bus.transport import Transport
    from jarvis.web import Web

log = logging.getLogger("jarvis.server")
DAY = 86400.0
LEASE_S = 10.0
SEEN_EVERY_S = 2.0
AHEAD_S, AHEAD_SHARE = 1.0, 20
"""Between two rounds of reading ahead; a round that takes long is followed by a pause of so many times as long."""
PORTS = range(7517, 7717)
"""Where a server listens that was not told where."""


class PortInUse(OSError):
    """Somebody listens there already."""


def open_store(settings: Settings) -> tuple[Store, BlobStore]:
    """The store, and where bodies are kept: beside it unless the settings name a bucket."""
    store, blobs = _open_database(settings)
    if settings.store.blobs:
        from jarvis.state.blob_stores.objects import ObjectBlobStore, open_bucket  # an extra

        blobs = ObjectBlobStore(open_bucket(settings.store.blobs, settings.store.blobs_endpoint))
    return store, blobs


def _open_database(settings: Settings) -> tuple[Store, BlobStore]:
    if settings.store.kind == "memory":
        return MemoryStore(), MemoryBlobStore()
    if settings.store.kind == "postgres":
        from jarvis.state.blob_stores.postgres import PostgresBlobStore  # an extra
        from jarvis.state.stores.postgres import PostgresStore

        shared = PostgresStore(settings.store.url)
        return shared, PostgresBlobStore(shared.postgres)
    return SqliteStore(settings.state_dir), DirectoryBlobStore(settings.state_dir / "blobs")


class Server:
    """One server process with its parts. ``owner_fd``: end with whoever holds the other end of it; ``parent``: the state
    directory of the server for which this one decides; ``nodes``: how many of this machine, where they have an owner."""

    def __init__(
        self, settings: Settings, with_node: bool = True, owner_fd: int | None = None, *,
        log_file: Path | None = None, parent: Path | None = None, nodes: int = 1,
    ) -> None:  # fmt: skip
        self.settings, self.owner_fd, self._parent = settings, owner_fd, parent
        self.policy = policy_of(settings.scheduler)
        self.role = settings.server.role
        self.store, self.blobs = open_store(settings)
        self.clock, self.keeper = Clock(), Keeper()
        self.name = settings.server.name or f"{socket.gethostname()}:{os.getpid()}"
        self.shared = settings.store.kind == "postgres"
        """Whether other servers may work on the same store."""
        self.redis: Transport | None = None
        self._others: list[str] = []
        self._all_others: list[str] = []
        """The servers beside this one that take in requests, and all."""
        self.bus: MemoryBus | ClusterBus = self._cluster_bus() if self.shared else MemoryBus()
        self.scheduler = self._scheduler()
        self.apart = SchedulerProcess(settings, self.name, log_file) if wanted(settings) else None
        """The process that decides for this one."""
        self.decides = self.role != "api" and self.apart is None
        self.election = Election(self.scheduler, self._leader_changed, self._let_look, may_lead=self.decides)
        if not isinstance(self.bus, MemoryBus):
            self.bus.on_look = self.election.wake
        with_node = with_node and self.role != "scheduler"
        self.nodes = own_nodes(settings, owner_fd is not None, nodes) if with_node else []
        self.token = ""
        self.url = ""
        self.public_url = ""
        """Where other machines reach it, if they do."""
        self.address: tuple[str, int] = ("", 0)
        self.leader_changed: Callable[[int, int], None] = lambda incarnation, epoch: None
        """Told the incarnation and epoch of whoever leads now."""
        self.seen_seq: Callable[[], int] = lambda: 0
        """The number of the last event that is known here."""
        self._tasks: list[asyncio.Task[Any]] = []
        self._lock: int | None = None

    def _scheduler(self) -> Scheduler:
        ports = (self.store, self.bus, self.clock, self._policy, self.name)
        lease_s, windows = LEASE_S if self.shared else 0.0, self.settings.scheduler.windows
        record = self.settings.record
        if record.what == "off":
            return Scheduler(*ports, lease_s=lease_s, windows=windows, recall=RECALLED)
        files = RecordFiles(self.settings.state_dir / RECORD, record.max_bytes)
        return RecordedScheduler(
            *ports, record=Record(files, record.what), lease_s=lease_s, windows=windows, recall=RECALLED
        )

    def _cluster_bus(self) -> "ClusterBus":
        from jarvis.bus.buses.cluster import ClusterBus
        from jarvis.bus.transports.postgres import PostgresTransport
        from jarvis.state.stores.postgres import PostgresStore

        assert isinstance(self.store, PostgresStore)
        transports: list[Transport] = [PostgresTransport(self.store.postgres)]
        if self.settings.bus.redis_url:
            from jarvis.bus.transports.redis_streams import RedisTransport

            self.redis = RedisTransport(self.settings.bus.redis_url)
            transports.insert(0, self.redis)
        return ClusterBus(self.name, transports, self._leader_name, lambda: self._others)

    def _leader_name(self) -> str | None:
        return self.election.leader.holder if self.election.leader is not None else None

    def _policy(self) -> Policy:
        return self.policy

    # ------------------------------------------------------------ life

    async def run(self) -> None:
        """Until SIGTERM, SIGINT, or the owner is gone."""
        if self.shared:
            self._lock = claim(self.settings.state_dir)  # of this machine's part; the store has another owner
        await self.store.open()
        try:
            await self._begin()
            listener = self._listen()
            self.token, node_token = self._kept_token("token"), self._kept_token("node.token")
            for node in self.nodes:
                node.start(self.url)
            self._spawn(self._retention().run, "retention")
            await self._serve(listener, node_token)
        finally:
            await self._stop()

    async def _serve(self, listener: socket.socket, node_token: str) -> None:
        from jarvis.web import Web  # most of a start is spent on importing it: the node starts meanwhile

        web = Web(self, node_token)
        if self.settings.server.listen:
            self._spawn(await web.listen_beyond(self.settings.server.listen), "tls")
        self.leader_changed, self.seen_seq = web.gateway.begin_anew, web.seen_seq
        self._spawn(web.observe, "metrics")
        self._announce()
        if self.shared:
            await web.join_the_others()
            self._spawn(self._be_seen, "be seen")
        if self.owner_fd is not None:
            self._spawn(partial(self._watch_owner, web), "owner")
        # uvicorn raises again what stopped it, to end the process: there is still a store to close.
        signal.signal(signal.SIGTERM, lambda *_: None)
        await web.serve(listener)

    async def _begin(self) -> None:
        """Until it is known who leads: here, usually, this server itself."""
        if not isinstance(self.bus, MemoryBus):
            cluster = await self.store.secret_keep("cluster", secrets.token_hex(8).encode())
            key = await self.store.secret_keep("bus", secrets.token_bytes(32))
            self.bus.start(cluster.decode(), key, time.time_ns(), self.keeper)
        if self.apart is not None:
            self._spawn(self.apart.run, "scheduler")
        self._spawn(self.election.run, "election")
        if self.decides:
            scheduler, watch = self.scheduler, self.settings.server.watch
            arrivals = Arrivals(
                scheduler.schedules, self.bus, watch, lambda: self.election.leads, lambda: scheduler.cluster
            )
            self._spawn(arrivals.run, "arrivals")
        if self.decides and self.shared:
            self._spawn(self._read_ahead, "read ahead")
        known = asyncio.create_task(self.election.known.wait())
        await asyncio.wait([known, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
        known.cancel()

    async def _be_seen(self) -> None:
        while True:
            await asyncio.sleep(SEEN_EVERY_S)
            with suppress(StoreUnavailable):
                await self.look_round()

    async def look_round(self) -> None:
        """Be seen, and see the others."""
        epoch = self.election.leader.leadership.epoch if self.election.leader is not None else 0
        role = self.role if self.apart is None else "api"
        await self.store.replica_seen(Replica(self.name, self._reached_at(), __version__, role, epoch, self.seen_seq()))
        found = await self.store.replica_list(3 * SEEN_EVERY_S)
        self._all_others = [r.name for r in found if r.name != self.name]
        self._others = [r.name for r in found if r.name != self.name and r.role != "scheduler"]

    def _reached_at(self) -> str:
        """One that decides for another is reached by way of that one."""
        over = server_file.read(self._parent) if self._parent is not None else None
        return (over.public or over.url) if over is not None else self.public_url or self.url

    def hand_over(self) -> None:
        """This server is told to stop: another one may lead at once, while this one still answers what it was asked."""
        if self.shared:
            self.election.stop()
        if self.apart is not None:
            self.apart.end()

    def _leader_changed(self, leader: Leader) -> None:
        """Nodes say Hello to a new one, and what was said to the one before counts no more. In the embedded profile, nobody is
        connected yet when this happens, unless a defect ended the lead."""
        epoch = (leader.leadership.incarnation, leader.leadership.epoch)
        if isinstance(self.bus, MemoryBus):
            self.bus.drop_inputs()
        else:
            self.bus.lead(epoch, self.election.leads)
        self.leader_changed(*epoch)

    def _let_look(self) -> None:
        if not isinstance(self.bus, MemoryBus):
            self.bus.let_look(self._all_others)

    async def _read_ahead(self) -> None:
        """Until cancelled: what this server will read when it begins to lead."""
        from jarvis.state.stores.postgres import PostgresStore

        assert isinstance(self.store, PostgresStore)
        now = asyncio.get_running_loop().time
        while True:
            begun = now()
            if not self.election.leads:
                with suppress(StoreUnavailable):
                    await self.store.ahead.read()
            await asyncio.sleep(max(AHEAD_S, AHEAD_SHARE * (now() - begun)))

    def _spawn(self, run: Callable[[], Awaitable[None]], name: str) -> None:
        self._tasks.append(asyncio.create_task(self.keeper.keep(name, run), name=name))

    def _retention(self) -> Retention:
        s = self.settings.store
        keep = Keep(s.keep_days * DAY, s.keep_events_days * DAY, s.max_bytes)
        return Retention(self.store, self.blobs, keep, lambda: self.election.leads)

    async def _stop(self) -> None:
        """In the order of dependence; the node's supervisor goes on unless this server's owner is gone."""
        self.election.stop()
        server_file.remove(self.settings.state_dir, os.getpid())
        if self.apart is not None:
            await self.apart.gone()
        for task in self._tasks:
            if task.get_name() != "election":
                task.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.gather(*self._tasks, return_exceptions=True)
        if not isinstance(self.bus, MemoryBus):
            await self.bus.stop()
        for node in self.nodes:
            node.let_go()
        for node in self.nodes:
            await asyncio.to_thread(node.wait)
        await self.store.close()
        if self._lock is not None:
            os.close(self._lock)

    async def _watch_owner(self, web: "Web") -> None:
        """The owner's end of the pipe closes when it ends, however it ends."""
        assert self.owner_fd is not None
        closed = asyncio.Event()
        asyncio.get_running_loop().add_reader(self.owner_fd, closed.set)
        await closed.wait()
        web.stop()

    # ------------------------------------------------------------ parts

    def _listen(self) -> socket.socket:
        """The socket; a port that was free the last time is taken again, so that nodes and people find it."""
        host, port = self.settings.server.host, self.settings.server.port
        if host not in ("127.0.0.1", "::1", "localhost"):
            raise PortInUse(f"server.host {host}: for other machines say server.listen or --listen, which brings TLS")
        remembered = self.settings.state_dir / "port"
        wanted = port
        if not port and remembered.exists():
            text = remembered.read_text(encoding="ascii").strip()
            wanted = int(text) if text.isdigit() else 0
        listener = self._bind(host, wanted, required=bool(port)) if wanted else self._first_free(host)
        self.address = listener.getsockname()[:2]
        actual = self.address[1]
        if self.settings.state_dir.is_dir():
            remembered.write_text(f"{actual}\n", encoding="ascii")
        name = f"[{host}]" if ":" in host else host
        self.url = f"http://{name}:{actual}"
        return listener

    def _bind(self, host: str, port: int, required: bool) -> socket.socket:
        try:
            return listen(host, port)
        except OSError as error:
            if required or not port:
                raise PortInUse(f"server.port {port} on {host} cannot be used: {error.strerror}") from None
            return self._first_free(host)

    def _first_free(self, host: str) -> socket.socket:
        """Below the ephemeral range: a client that knocks at a dead port there may be connected to itself and hold it."""
        for port in PORTS:
            with suppress(OSError):
                return listen(host, port)
        return self._bind(host, 0, required=True)

    def _announce(self) -> None:
        self.settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        pid = os.getpid()
        content = server_file.ServerFile(self.url, self.token, pid, __version__, server_file.born(pid), self.public_url)
        server_file.write(self.settings.state_dir, content)
        log.info("listening on %s", self.url)

    def _kept_token(self, name: str) -> str:
        """256 random bits, made once, readable by the owner alone."""
        path = self.settings.state_dir / name
        self.settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(secrets.token_urlsafe(32))
        return path.read_text(encoding="ascii").strip()
