"""The composition root: reads settings, picks adapters, starts the shells of a server and of its own node."""

import asyncio
import getpass
import json
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from prometheus_client import CollectorRegistry

from jarvis import __version__
from jarvis.api.auth import StoreAuthenticator, token_hash
from jarvis.api.server import create_app, listen, uvicorn_options
from jarvis.api.services import ApiSettings, Services
from jarvis.bus.buses.memory import MemoryBus
from jarvis.config.settings import Settings
from jarvis.core.errors import StoreUnavailable
from jarvis.core.ids import ElementKey
from jarvis.core.permissions import Principal
from jarvis.core.resources import parse_bytes
from jarvis.monitor import health
from jarvis.monitor.metrics_collector import MetricsCollector
from jarvis.scheduler import explain
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.leader import Election
from jarvis.scheduler.scheduler import Scheduler
from jarvis.state.blob_store import BlobStore
from jarvis.state.blob_stores.directory import DirectoryBlobStore
from jarvis.state.blob_stores.memory import MemoryBlobStore
from jarvis.state.coordination import Leader, Token
from jarvis.state.ownership import claim
from jarvis.state.retention import Keep, Retention
from jarvis.state.state_manager import StateManager
from jarvis.state.store import Store
from jarvis.state.stores.memory import MemoryStore
from jarvis.state.stores.sqlite import SqliteStore
from jarvis.utils import server_file
from jarvis.utils.clock import Clock

if TYPE_CHECKING:
    from jarvis.api.gateway import Gateway
    from jarvis.api.peers import Peers
    from jarvis.bus.buses.cluster import ClusterBus
    from jarvis.bus.transport import Transport

log = logging.getLogger("jarvis.server")
DAY = 86400.0
LEASE_S = 10.0
REPORT_AFTER_S = 1.0
SEEN_EVERY_S = 2.0
PORTS = range(7517, 7717)
"""Where a server listens that was not told where."""
SUPERVISOR = Path(__file__).parent / "worker" / "supervisor" / "__main__.py"


class PortInUse(OSError):
    """Somebody listens there already."""


def open_store(settings: Settings) -> tuple[Store, BlobStore]:
    if settings.store.kind == "memory":
        return MemoryStore(), MemoryBlobStore()
    if settings.store.kind == "postgres":
        from jarvis.state.blob_stores.postgres import PostgresBlobStore  # an extra
        from jarvis.state.stores.postgres import PostgresStore

        shared = PostgresStore(settings.store.url)
        return shared, PostgresBlobStore(shared.postgres)
    return SqliteStore(settings.state_dir), DirectoryBlobStore(settings.state_dir / "blobs")


class Server:
    """One server process with its parts. ``owner_fd``: end with whoever holds the other end of it."""

    def __init__(self, settings: Settings, with_node: bool = True, owner_fd: int | None = None) -> None:
        self.settings, self.with_node, self.owner_fd = settings, with_node, owner_fd
        self.store, self.blobs = open_store(settings)
        self.clock = Clock()
        self.name = settings.server.name or f"{socket.gethostname()}:{os.getpid()}"
        self.shared = settings.store.kind == "postgres"
        """Whether other servers may work on the same store."""
        self.redis: Transport | None = None
        self._others: list[str] = []
        self.bus: MemoryBus | ClusterBus = self._cluster_bus() if self.shared else MemoryBus()
        self.scheduler = Scheduler(
            self.store, self.bus, self.clock, self._policy, self.name, lease_s=LEASE_S if self.shared else 0.0
        )
        self.election = Election(self.scheduler, self._leader_changed)
        self.peers: Peers | None = None
        self.token = ""
        self.url = ""
        self._gateway: Gateway | None = None
        self._address: tuple[str, int] = ("", 0)
        self._tasks: list[asyncio.Task[Any]] = []
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._owner_pipe: int | None = None
        self._lock: int | None = None

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
        return Policy(self.settings.scheduler.balancer, dict(self.settings.scheduler.queues))

    # ------------------------------------------------------------ life

    async def run(self) -> None:
        """Until SIGTERM, SIGINT, or the owner is gone."""
        if self.shared:
            self._lock = claim(self.settings.state_dir)  # of this machine's part; the store has another owner
        await self.store.open()
        try:
            await self._begin()
            listener = self._listen()
            server = uvicorn.Server(uvicorn.Config(self._app(), **uvicorn_options()))
            self._spawn(self._retention().run(), "retention")
            self._announce()
            if self.shared:
                await self._join_the_others()
            if self.with_node:
                self._start_node()
            if self.owner_fd is not None:
                self._spawn(self._watch_owner(server), "owner")
            # uvicorn raises again what stopped it, to end the process: there is still a store to close.
            signal.signal(signal.SIGTERM, lambda *_: None)
            await server.serve(sockets=[listener])
        finally:
            await self._stop()

    async def _begin(self) -> None:
        """Until it is known who leads: here, usually, this server itself."""
        if not isinstance(self.bus, MemoryBus):
            cluster = await self.store.secret_keep("cluster", secrets.token_hex(8).encode())
            key = await self.store.secret_keep("bus", secrets.token_bytes(32))
            self.bus.start(cluster.decode(), key, time.time_ns())
        self._spawn(self.election.run(), "election")
        known = asyncio.create_task(self.election.known.wait())
        await asyncio.wait([known, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
        known.cancel()
        for task in self._tasks:
            if task.done():
                task.result()

    async def _join_the_others(self) -> None:
        """What only a server among several needs: to be seen, to ask the others, and an owner whom they know, too."""
        from jarvis.api.peers import Peers  # a client of its own: what a lone server does not need costs it no start

        token = await self.store.secret_keep("peers", secrets.token_urlsafe(32).encode())
        self.authenticator.admit(token_hash(token.decode()), Principal("jarvis", "peer", (), "server"))
        self.services.peers = self.peers = Peers(self.store, token.decode())
        await self.store.token_put(Token(token_hash(self.token), getpass.getuser(), "admin", ("*",), "owner"))
        await self._look_round()
        self._spawn(self._be_seen(), "be seen")

    async def _be_seen(self) -> None:
        while True:
            await asyncio.sleep(SEEN_EVERY_S)
            with suppress(StoreUnavailable):
                await self._look_round()

    async def _look_round(self) -> None:
        """Be seen, and see the others."""
        await self.store.replica_seen(self.name, self.url, __version__)
        found = await self.store.replica_list(3 * SEEN_EVERY_S)
        self._others = [replica.name for replica in found if replica.name != self.name]

    def _leader_changed(self, leader: Leader) -> None:
        """Nodes say Hello to a new one. In the embedded profile, nobody is connected yet when this happens."""
        epoch = (leader.leadership.incarnation, leader.leadership.epoch)
        if not isinstance(self.bus, MemoryBus):
            self.bus.lead(epoch, self.election.leads)
        if self._gateway is not None:
            self._gateway.begin_anew(*epoch)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))

    def _retention(self) -> Retention:
        s = self.settings.store
        keep = Keep(s.keep_days * DAY, s.keep_events_days * DAY, s.max_bytes)
        return Retention(self.store, self.blobs, keep, lambda: self.election.leads)

    async def _stop(self) -> None:
        """In the order of dependence; the node's supervisor goes on unless this server's owner is gone."""
        self.election.stop()
        server_file.remove(self.settings.state_dir, os.getpid())
        for task in self._tasks:
            if task.get_name() != "election":
                task.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.gather(*self._tasks, return_exceptions=True)
        if not isinstance(self.bus, MemoryBus):
            await self.bus.stop()
        if self._owner_pipe is not None:
            os.close(self._owner_pipe)
        if self._supervisor is not None and self.owner_fd is not None:
            with suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self._supervisor.wait, 15)
        await self.store.close()
        if self._lock is not None:
            os.close(self._lock)

    async def _watch_owner(self, server: uvicorn.Server) -> None:
        """The owner's end of the pipe closes when it ends, however it ends."""
        assert self.owner_fd is not None
        closed = asyncio.Event()
        asyncio.get_running_loop().add_reader(self.owner_fd, closed.set)
        await closed.wait()
        server.should_exit = True

    # ------------------------------------------------------------ parts

    def _app(self) -> Any:
        registry = CollectorRegistry()
        metrics = MetricsCollector(registry, self.scheduler)
        self._spawn(self._observe(metrics), "metrics")
        user = getpass.getuser()
        self.token = self._kept_token("token")
        fixed = {
            token_hash(self.token): Principal(user, "admin", ("*",), "owner"),
            token_hash(self._kept_token("node.token")): Principal(user, "node", (), "own node"),
        }
        self.authenticator = StoreAuthenticator(self.store, self.clock, fixed)
        self.services = Services(
            store=self.store, blobs=self.blobs, bus=self.bus,
            state_manager=StateManager(self.store, self.blobs, self.bus, metrics.accepted),
            clock=self.clock, authenticator=self.authenticator,
            why=self._why, node_fits=lambda spec: explain.never_fits(self.scheduler.cluster, spec),
            incarnation=lambda: self.scheduler.cluster.incarnation,
            health_checks=health.checks(self.store, self.scheduler, self.election, lambda: self._address, self.redis),
            registry=registry, replica=self.name if self.shared else "",
            settings=ApiSettings(
                allowed_hosts=self.settings.server.allowed_hosts, default_user=user,
                report_after_s=REPORT_AFTER_S if self.shared else None,
            ),
        )  # fmt: skip
        app = create_app(self.services)
        self._gateway = app.state.gateway
        return app

    async def _why(self, key: ElementKey, asked_by_peer: bool = False) -> dict[str, Any] | None:
        if self.peers is None or self.election.leads or asked_by_peer:
            return explain.why(self.scheduler.cluster, key, self.clock.now())
        return await self.peers.why(self.election.leader.holder if self.election.leader else "", key)

    async def _observe(self, metrics: MetricsCollector) -> None:
        while True:
            async for batch in self.bus.watch():
                metrics.observe(batch)

    def _listen(self) -> socket.socket:
        """The socket; a port that was free the last time is taken again, so that nodes and people find it."""
        host, port = self.settings.server.host, self.settings.server.port
        if host not in ("127.0.0.1", "::1", "localhost"):
            raise PortInUse(f"server.host {host}: beyond loopback Jarvis listens only with TLS, which is not built yet")
        remembered = self.settings.state_dir / "port"
        wanted = port
        if not port and remembered.exists():
            text = remembered.read_text(encoding="ascii").strip()
            wanted = int(text) if text.isdigit() else 0
        listener = self._bind(host, wanted, required=bool(port)) if wanted else self._first_free(host)
        self._address = listener.getsockname()[:2]
        actual = self._address[1]
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
        content = server_file.ServerFile(self.url, self.token, os.getpid(), __version__, server_file.born(os.getpid()))
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

    # ------------------------------------------------------------ the own node

    def _start_node(self) -> None:
        """The supervisor of this machine's node: one that lives already goes on, with the agent that it has."""
        directory = self.settings.state_dir / "node"
        directory.mkdir(mode=0o711, exist_ok=True)
        os.chmod(self.settings.state_dir, 0o711 if os.geteuid() == 0 else 0o700)
        command = [
            sys.executable, "-I", "-S", str(SUPERVISOR), "--dir", str(directory),
            "--agent", json.dumps(agent_command(self.settings, directory, self.url)),
        ]  # fmt: skip
        pass_fds: tuple[int, ...] = ()
        if self.owner_fd is not None:
            read_end, self._owner_pipe = os.pipe()
            command += ["--owner-fd", str(read_end)]
            pass_fds = (read_end,)
        with open(directory / "supervisor.log", "ab", opener=lambda path, how: os.open(path, how, 0o600)) as out:
            self._supervisor = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, pass_fds=pass_fds
            )
        for descriptor in pass_fds:
            os.close(descriptor)


def agent_command(settings: Settings, directory: Path, url: str) -> list[str]:
    """How the supervisor starts the agent."""
    worker, state_dir, mounts = settings.worker, settings.state_dir, settings.containers.mounts
    command = [sys.executable, "-m", "jarvis.worker.agent", "--dir", str(directory), "--url", url]
    command += ["--token-file", str(state_dir / "node.token"), "--server-file", str(state_dir)]
    if worker.name:
        command += ["--name", worker.name]
    if worker.cpus is not None:
        command += ["--cpus", str(worker.cpus)]
    if worker.memory is not None:
        command += ["--memory", str(parse_bytes(worker.memory, "worker.memory"))]
    if worker.gpus is not None:
        command += ["--gpus", str(worker.gpus)]
    for name, value in worker.labels.items():
        command += ["--label", f"{name}={value}"]
    for taint in worker.taints:
        command += ["--taint", taint]
    if mounts is not None:
        command += [f"--container-mounts={os.pathsep.join(mounts)}"]
    return command + (["--allow-root"] if worker.allow_root else [])


def stop_node(state_dir: Path, timeout_s: float = 20.0) -> bool:
    """End the node's supervisor with all that runs under it; False when there is none."""
    pid_file = state_dir / "node" / "supervisor.pid"
    try:
        pid = int(pid_file.read_text(encoding="ascii").split()[0])
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError, IndexError):
        return False
    if os.fsencode(str(state_dir / "node")) not in command:
        return False
    os.kill(pid, signal.SIGTERM)
    return _gone(pid, timeout_s)


def _gone(pid: int, timeout_s: float) -> bool:
    import time

    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return True
        if stat[stat.rindex(")") + 2] in "ZX":
            return True
        time.sleep(0.02)
    return False
