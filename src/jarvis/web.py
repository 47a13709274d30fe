"""The API of a server, put together; apart from the rest because importing it takes longer than everything else."""

import getpass
import secrets
import socket
from typing import TYPE_CHECKING, Any

import uvicorn
from prometheus_client import CollectorRegistry

from jarvis.api.auth import StoreAuthenticator, token_hash
from jarvis.api.server import create_app, uvicorn_options
from jarvis.api.services import ApiSettings, Services
from jarvis.core.ids import ElementKey
from jarvis.core.permissions import Principal
from jarvis.monitor import health
from jarvis.monitor.metrics_collector import MetricsCollector
from jarvis.scheduler import explain
from jarvis.state.coordination import Token
from jarvis.state.state_manager import StateManager

if TYPE_CHECKING:
    from jarvis.api.gateway import Gateway
    from jarvis.wiring import Server

REPORT_AFTER_S = 1.0


class Web:
    """One per server process."""

    def __init__(self, server: "Server", node_token: str) -> None:
        self._server, self._user = server, getpass.getuser()
        self._registry = CollectorRegistry()
        self._metrics = MetricsCollector(self._registry, server.scheduler)
        self._authenticator = StoreAuthenticator(
            server.store, server.clock,
            {
                token_hash(server.token): Principal(self._user, "admin", ("*",), "owner"),
                token_hash(node_token): Principal(self._user, "node", (), "own node"),
            },
        )  # fmt: skip
        self.services = self._services()
        app = create_app(self.services)
        self.gateway: Gateway = app.state.gateway
        self._uvicorn = uvicorn.Server(uvicorn.Config(app, **uvicorn_options()))

    def _services(self) -> Services:
        server = self._server
        return Services(
            store=server.store, blobs=server.blobs, bus=server.bus,
            state_manager=StateManager(server.store, server.blobs, server.bus, self._metrics.accepted),
            clock=server.clock, authenticator=self._authenticator,
            why=self._why, node_fits=lambda spec: explain.never_fits(server.scheduler.cluster, spec),
            incarnation=lambda: server.scheduler.cluster.incarnation,
            health_checks=health.checks(
                server.store, server.scheduler, server.election, lambda: server.address, server.redis
            ),
            registry=self._registry, replica=server.name if server.shared else "",
            settings=ApiSettings(
                allowed_hosts=server.settings.server.allowed_hosts, default_user=self._user,
                report_after_s=REPORT_AFTER_S if server.shared else None,
            ),
        )  # fmt: skip

    async def _why(self, key: ElementKey, asked_by_peer: bool = False) -> dict[str, Any] | None:
        server, peers = self._server, self.services.peers
        if peers is None or server.election.leads or asked_by_peer:
            return explain.why(server.scheduler.cluster, key, server.clock.now())
        return await peers.why(server.election.leader.holder if server.election.leader else "", key)

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
        self.services.peers = Peers(store, token.decode())
        await store.token_put(Token(token_hash(server.token), self._user, "admin", ("*",), "owner"))
        await server.look_round()

    async def serve(self, listener: socket.socket) -> None:
        """Until it is stopped, by a signal, too."""
        await self._uvicorn.serve(sockets=[listener])

    def stop(self) -> None:
        self._uvicorn.should_exit = True
