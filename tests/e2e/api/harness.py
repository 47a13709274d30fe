"""A real server on a free port, with stores in memory and a leader that the test plays."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2 as httpx
import uvicorn
from fastapi import FastAPI

from jarvis.api.auth import StoreAuthenticator, token_hash
from jarvis.api.server import create_app, uvicorn_options
from jarvis.api.services import ApiSettings, Services
from jarvis.bus.buses.memory import MemoryBus
from jarvis.core.changes import Changes
from jarvis.core.event import Event
from jarvis.state.blob_stores.memory import MemoryBlobStore
from jarvis.state.coordination import Leadership, Token
from jarvis.state.state_manager import StateManager
from jarvis.state.stores.memory import MemoryStore
from jarvis.utils.clock import Clock
from jarvis.utils.listener import listen

TOKENS = {
    "admin": ("root", "admin", ("*",)),
    "alice": ("alice", "user", ("red",)),
    "bob": ("bob", "user", ("red",)),
    "eve": ("eve", "user", ("blue",)),
    "node": ("nodes", "node", ()),
}


@dataclass
class Running:
    """The server and what is behind it."""

    app: FastAPI
    port: int
    services: Services
    store: MemoryStore
    bus: MemoryBus
    leadership: Leadership
    clients: list[httpx.AsyncClient] = field(default_factory=list)
    seq: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def client(self, who: str | None) -> httpx.AsyncClient:
        """A client with the token of a person (or none)."""
        headers = {"Authorization": f"Bearer {who}-token"} if who else {}
        made = httpx.AsyncClient(base_url=self.url, headers=headers, timeout=10)
        self.clients.append(made)
        return made

    async def commit(self, changes: Changes, **event: Any) -> None:
        """Play the leader: rows and one event, then tell the watchers."""
        self.seq += 1
        changes.events.append(Event(seq=self.seq, at=self.services.clock.now(), **event))
        await self.store.leader_commit(self.leadership, changes)
        self.bus.publish(changes.events)


@asynccontextmanager
async def running(store: MemoryStore | None = None, replica: str = "", **settings: Any) -> AsyncIterator[Running]:
    """Start, give, stop; on a store of its own unless it is one of several servers."""
    leads, bus, clock = store is None, MemoryBus(), Clock()
    store = store or MemoryStore()
    for who, (user, role, projects) in TOKENS.items():
        await store.token_put(Token(token_hash(f"{who}-token"), user, role, tuple(projects)))
    leadership = await store.leadership_acquire("test") if leads else (await store.leader_get()).leadership
    blobs = MemoryBlobStore()
    services = Services(
        store=store, blobs=blobs, state_manager=StateManager(store, blobs, bus), bus=bus, clock=clock,
        authenticator=StoreAuthenticator(store, clock),
        incarnation=lambda: leadership.incarnation, replica=replica,
        settings=ApiSettings(heartbeat_flush_s=0.05, **settings),
    )  # fmt: skip
    app = create_app(services)
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, **uvicorn_options() | {"timeout_graceful_shutdown": 1}))
    serving = asyncio.create_task(server.serve([listener]))
    while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
        await asyncio.sleep(0.005)
    made = Running(app, listener.getsockname()[1], services, store, bus, leadership)
    made.seq = await store.event_last_seq()
    try:
        yield made
    finally:
        for client in made.clients:
            await client.aclose()
        server.should_exit = True
        await serving
        listener.close()
