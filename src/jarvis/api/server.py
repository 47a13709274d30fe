"""The application: all routes at the root and under /api/v1, behind one guard."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.websockets import WebSocket

from jarvis.api import problems
from jarvis.api.auth import Guard
from jarvis.api.direct import Direct
from jarvis.api.event_hub import EventHub
from jarvis.api.gateway import Gateway
from jarvis.api.services import Services
from jarvis.api.whole_answers import WholeAnswers
from jarvis.bus.messages import MAX_FRAME
from jarvis.utils.absent import absent

with absent("pydantic.v1"):  # FastAPI asks of each route's parameters whether they are of that generation
    from jarvis.api.routes import (
        artifacts,
        blobs,
        cluster,
        events,
        history,
        joining,
        logs,
        maintenance,
        nodes,
        peers,
        quotas,
        results,
        schedules,
        streams,
        tasks,
        tokens,
        workflows,
    )

ROUTERS = (
    results.router,
    tasks.router,
    logs.router,
    artifacts.router,
    streams.router,
    events.router,
    nodes.router,
    blobs.router,
    cluster.vital,
    cluster.router,
    tokens.router,
    quotas.router,
    history.router,
    maintenance.router,
    workflows.router,
    schedules.router,
)
HOT = {
    "/tasks": tasks.submit,
    "/tasks/batch": tasks.submit_batch,
    "/tasks/calls": tasks.submit_calls,
    "/tasks/results": results.results,
}
"""What clients ask most."""
POLL_S = 2.0
BEGIN_ANEW_S = 2.0
"""At most, after a defect in what everybody depends on."""
agents = APIRouter(include_in_schema=False)


@agents.websocket("/agent/v1/session")
async def agent_session(socket: WebSocket) -> None:
    """Where agents connect."""
    gateway: Gateway = socket.app.state.gateway
    await gateway.serve(socket)


def create_app(services: Services, *, decides_only: bool = False) -> FastAPI:
    """The ASGI application of one server; its lifespan runs the gateway and the event hub.

    ``decides_only``: of a server that takes no requests but those about itself, and what only a leader knows.
    """
    app = FastAPI(
        title="Jarvis",
        version=services.version,
        lifespan=_deliver_alone if decides_only else _lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.services = services
    app.state.hub = EventHub(services.bus, services.store, POLL_S if services.replica else None)
    app.state.gateway = Gateway(services)
    app.state.health = cluster.Health(services)
    for router in (cluster.vital,) if decides_only else ROUTERS:
        app.include_router(router, prefix="/api/v1")
        app.include_router(router, include_in_schema=False)
    for router in (peers.leader,) if decides_only else (agents, joining.router, peers.leader, peers.router):
        app.include_router(router)
    problems.install(app)
    if not decides_only:
        app.add_middleware(Direct, posts=HOT)
    app.add_middleware(Guard, services=services)
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]
    return app


def _described(app: FastAPI) -> dict[str, Any]:
    """Made when somebody asks, as its models are of no use else."""
    from jarvis.api.openapi import describe

    return app.openapi_schema or describe(FastAPI.openapi(app))


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with _kept(app, {"event hub": app.state.hub.run, "gateway": app.state.gateway.run}):
        yield


@asynccontextmanager
async def _deliver_alone(app: FastAPI) -> AsyncIterator[None]:
    async with _kept(app, {"gateway": app.state.gateway.run}):
        yield


@asynccontextmanager
async def _kept(app: FastAPI, loops: dict[str, Callable[[], Awaitable[None]]]) -> AsyncIterator[None]:
    keep = app.state.services.keeper.keep
    running = [asyncio.create_task(keep(name, run, BEGIN_ANEW_S), name=name) for name, run in loops.items()]
    try:
        yield
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def uvicorn_options() -> dict[str, Any]:
    """What uvicorn must be told so that frames and proxies are treated as the API expects."""
    return {
        "http": WholeAnswers,
        "ws": "websockets-sansio",
        "ws_max_size": MAX_FRAME,
        "ws_ping_interval": 20.0,
        # No time limit for the answer: one end of a stream may be too busy to read for as long as it likes. Who is gone
        # altogether is noticed by TCP.
        "ws_ping_timeout": None,
        "server_header": False,
        "proxy_headers": False,
        "access_log": False,
        "timeout_graceful_shutdown": 5,
        "log_config": None,
    }
