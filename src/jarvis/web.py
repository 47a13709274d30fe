"""The API of a server, put together; apart from the rest because importing it takes longer than everything else."""

import asyncio
import dataclasses
import getpass
import logging
import secrets
import socket
from collections.abc import Callable, Coroutine, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn
from prometheus_client import CollectorRegistry

from jarvis.api.auth import StoreAuthenticator, token_hash
from jarvis.api.server import create_app, uvicorn_options
from jarvis.api.services import ApiSettings, Services
from jarvis.config.policies import queue_refused, queues_out
from jarvis.config.sources import SettingsError
from jarvis.core.ids import ElementKey
from jarvis.core.permissions import Principal
from jarvis.core.task import TaskSpec
from jarvis.monitor import health
from jarvis.monitor.metrics_collector import MetricsCollector, decided
from jarvis.scheduler import explain, licenses, quotas, whatif
from jarvis.scheduler.recommend import recommend
from jarvis.state.coordination import Token
from jarvis.state.state_manager import StateManager
from jarvis.utils.listener import listen

if TYPE_CHECKING:
    from jarvis.api.event_hub import EventHub
    from jarvis.api.gateway import Gateway
    from jarvis.api.peers import Peers
    from jarvis.api.tls import Tls, TlsServer
    from jarvis.wiring import Server

log = logging.getLogger("jarvis.server")
REPORT_AFTER_S = 1.0
PORT = 7516
"""For other machines, unless another one is said."""
LOOK_S = 60.0
CLOSE_S = 5.0


class Web:
    """One per server process."""

    def __init__(self, server: "Server", node_token: str) -> None:
        self._server, self._user = server, getpass.getuser()
        self._registry = CollectorRegistry()
        self._metrics = MetricsCollector(self._registry, server.scheduler, server.decides)
        self._authenticator = StoreAuthenticator(
            server.store, server.clock,
            {
                token_hash(server.token): Principal(self._user, "admin", ("*",), "owner"),
                token_hash(node_token): Principal(self._user, "node", (), "own node"),
            },
        )  # fmt: skip
        self.services = self._services()
        self._app = create_app(self.services, decides_only=server.role == "scheduler")
        self.gateway: Gateway = self._app.state.gateway
        self._uvicorn = _Uvicorn(uvicorn.Config(self._app, **uvicorn_options()), server.hand_over)
        self._tls: Tls | None = None
        self._beyond: socket.socket | None = None

    def _services(self) -> Services:
        server = self._server
        api = health.api_check(lambda: server.address, server.keeper.troubles)
        checks = health.checks(server.store, server.scheduler, server.election, api, server.redis)
        if server.apart is not None:
            checks["scheduler_queue"] = server.apart.check
        return Services(
            store=server.store, blobs=server.blobs, bus=server.bus,
            state_manager=StateManager(server.store, server.blobs, server.bus, self._metrics.accepted),
            clock=server.clock, authenticator=self._authenticator,
            why=self._why, plan=self._plan, recommend=self._recommend, licenses=self._licenses,
            holds=self._holds, used=self._used, reasons=self._reasons,
            node_fits=lambda spec: explain.never_fits(server.scheduler.cluster, spec),
            queue_refused=lambda queue: queue_refused(server.settings.scheduler, queue),
            quota_allows=lambda *what: quotas.allows(server.scheduler.cluster, *what),
            queues=lambda: queues_out(server.settings.scheduler),
            weights=lambda: server.settings.scheduler.fairness.weights,
            look_for_nodes=server.election.look,
            incarnation=lambda: server.scheduler.cluster.incarnation,
            health_checks=checks, more_metrics=self._of_the_scheduler,
            registry=self._registry, replica=server.name if server.shared else "", keeper=server.keeper,
            settings=ApiSettings(
                allowed_hosts=server.settings.server.allowed_hosts, watch=server.settings.server.watch,
                default_user=self._user,
                report_after_s=REPORT_AFTER_S if server.shared else None,
                heartbeat_flush_s=min(1.0, server.settings.scheduler.heartbeat_s),
            ),
        )  # fmt: skip

    async def _why(self, key: ElementKey, asked_by_peer: bool = False) -> dict[str, Any] | None:
        server = self._server
        if (ask := self._of_whom(asked_by_peer)) is not None:
            return await ask[0].why(ask[1], key)
        return explain.why(server.scheduler.cluster, key, server.clock.now(), server.policy)

    async def _plan(self, project: str, user: str, spec: TaskSpec, asked_by_peer: bool = False) -> dict[str, Any]:
        server = self._server
        if (ask := self._of_whom(asked_by_peer)) is not None:
            return await ask[0].plan(ask[1], project, user, spec)
        return whatif.plan_task(server.scheduler.cluster, server.policy, spec, (project, user), server.clock.now())

    async def _recommend(
        self, project: str, user: str, spec: TaskSpec, asked_by_peer: bool = False
    ) -> dict[str, Any]:  # fmt: skip
        if (ask := self._of_whom(asked_by_peer)) is not None:
            return await ask[0].plan(ask[1], project, user, spec, "recommend")
        task = whatif.as_task(spec, project, user, self._server.clock.now(), ident=0)
        return recommend(self._server.scheduler.cluster.predictor, task)

    async def _licenses(self, asked_by_peer: bool = False) -> dict[str, Any]:
        if (told := await self._asked(asked_by_peer, "licenses")) is not None:
            return told
        return {"items": licenses.listed(self._server.scheduler.cluster), "next": None}

    async def _holds(self, node: int, asked_by_peer: bool = False) -> dict[str, Any]:
        if (told := await self._asked(asked_by_peer, f"holds/{node}")) is not None:
            return told
        return {"holds": self._server.scheduler.cluster.holders.on(node)}

    async def _used(self, asked_by_peer: bool = False) -> dict[str, Any]:
        """By the id of each node, as JSON has it."""
        if (told := await self._asked(asked_by_peer, "used")) is not None:
            return told
        return {str(ident): view.used for ident, view in self._server.scheduler.cluster.nodes.items()}

    async def _reasons(self, tasks: Sequence[int], asked_by_peer: bool = False) -> dict[str, Any]:
        """By the id of each task."""
        if (told := await self._asked(asked_by_peer, f"reasons/{','.join(map(str, tasks))}")) is not None:
            return told
        cluster = self._server.scheduler.cluster
        known = ((ident, cluster.tasks.get(ident)) for ident in tasks)
        return {str(ident): cluster.history.word_of(task) for ident, task in known if task is not None}

    async def _asked(self, asked_by_peer: bool, door: str) -> dict[str, Any] | None:
        """What the leader says where that is another server; None where this one knows itself."""
        if (ask := self._of_whom(asked_by_peer)) is None:
            return None
        told: dict[str, Any] = await ask[0].ask(ask[1], door)
        return told

    def _of_whom(self, asked_by_peer: bool) -> "tuple[Peers, str] | None":
        """The leader, where it is another server and has to be asked."""
        server, peers = self._server, self.services.peers
        holder = server.election.leader.holder if server.election.leader else ""
        if peers is None or server.election.leads or (asked_by_peer and self._near(holder) is None):
            return None
        return peers, holder

    def _near(self, name: str) -> str | None:
        """Where the process is reached that decides for this one."""
        apart = self._server.apart
        return apart.url if apart is not None and apart.name == name else None

    def seen_seq(self) -> int:
        """The number of the last event that is known here."""
        hub: EventHub = self._app.state.hub
        return max(hub.seen, self._server.scheduler.cluster.last_seq)

    async def _of_the_scheduler(self) -> str:
        apart = self._server.apart
        return decided(await apart.metrics()) if apart is not None else ""

    async def observe(self) -> None:
        """Until cancelled: what happens becomes figures."""
        while True:
            async for batch in self._server.bus.watch():
                self._metrics.observe(batch)

    async def join_the_others(self) -> None:
        """What only a server among several needs: to be seen, to ask the others, and an owner whom they know, too."""
        from jarvis.api.peers import Peers  # a client of its own: what a lone server does not need costs it no start

        server, store = self._server, self._server.store
        token = await store.secret_keep("peers", secrets.token_urlsafe(32).encode())
        self._authenticator.admit(token_hash(token.decode()), Principal("jarvis", "peer", (), "server"))
        self.services.peers = Peers(
            store, token.decode(), self._tls.client() if self._tls is not None else None, self._near
        )
        await store.token_put(Token(token_hash(server.token), self._user, "admin", ("*",), "owner"))
        await server.look_round()

    async def listen_beyond(self, address: str) -> Callable[[], Coroutine[Any, Any, None]]:
        """Listen to other machines, by TLS, and let nodes join; what it gives serves until the server ends."""
        from jarvis.api.membership import Membership, authority_of  # their library comes with an extra
        from jarvis.api.tls import Tls, TlsServer, names_of

        server = self._server
        host, port = host_and_port(address)
        authority = await authority_of(server.store, server.clock.now())
        names = names_of(host, server.settings.server.advertise)
        self._beyond = listener = listen(host, port)
        name = f"[{names[0]}]" if ":" in names[0] else names[0]
        server.public_url = f"https://{name}:{listener.getsockname()[1]}"
        self.services.membership = Membership(server.store, authority, server.public_url, server.clock.now)
        self._tls = tls = Tls(server.settings.state_dir / "tls", authority, names, server.clock.now)
        known = tuple(f"[{name}]" if ":" in name else name for name in names)
        hosts = (*self.services.settings.allowed_hosts, *known)
        self.services.settings = dataclasses.replace(self.services.settings, allowed_hosts=hosts)
        config = tls.config(self._app, uvicorn_options())
        log.info("nodes join at %s, pin %s", server.public_url, self.services.membership.pin)
        return lambda: _serve_beyond(TlsServer(config), listener.dup(), self._renew)

    def _renew(self) -> None:
        """The certificate that other machines are shown, in time; that it cannot be is told for so long, days before it ends."""
        tls, now, told = self._tls, self._server.clock.now(), ""
        assert tls is not None
        try:
            if tls.renew_if_late():
                log.info("the server's certificate is a new one")
        except OSError as error:  # a full disk, a directory that is gone
            left = max(tls.end - now, 0.0) / 86400
            told = f"the certificate for other machines ends in {left:.1f} days and cannot be made anew: {error}"
            log.warning("%s", told)
        self._server.keeper.tell("the certificate", told)

    async def serve(self, listener: socket.socket) -> None:
        """Until it is stopped, by a signal, too."""
        try:
            await self._uvicorn.serve(sockets=[listener])
        finally:
            if self._beyond is not None:
                self._beyond.close()

    def stop(self) -> None:
        self._uvicorn.should_exit = True


class _Uvicorn(uvicorn.Server):
    """Tells that it was told to stop before it waits for what is under way."""

    def __init__(self, config: uvicorn.Config, told: Callable[[], None]) -> None:
        super().__init__(config)
        self._told, self._loop = told, asyncio.get_running_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._told)
        super().handle_exit(sig, frame)


async def _serve_beyond(server: "TlsServer", listener: socket.socket, renew: Callable[[], None]) -> None:
    """Until cancelled, with certificates that are made anew before they end. The listener is closed with it."""
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not serving.done():
            await asyncio.wait([serving], timeout=LOOK_S)
            renew()
        serving.result()
    finally:
        server.should_exit = True
        await asyncio.wait([serving], timeout=CLOSE_S)


def host_and_port(text: str) -> tuple[str, int]:
    """``0.0.0.0``, ``10.0.0.5:7600``, ``[::]:7600``; raises :class:`SettingsError`."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]") or (text.count(":") > 1 and not text.startswith("[")):
        host, port = text, str(PORT)
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise SettingsError(f"server.listen: {text!r} is not ADDRESS or ADDRESS:PORT")
    return host.strip("[]"), int(port)
