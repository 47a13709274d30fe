"""The server about itself: alive, ready, health, figures, version."""

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from jarvis.api.problems import problem, respond
from jarvis.api.routes.common import Context, Ctx, answer, body_of
from jarvis.api.schemas.task_in import BackupIn, schema_of
from jarvis.api.schemas.values import rfc3339
from jarvis.api.services import HealthCheck, Services
from jarvis.core.errors import InvalidValue
from jarvis.core.node import NodeState

router = APIRouter(tags=["cluster"])
vital = APIRouter(tags=["cluster"])
"""What a server that only decides answers, too."""
CHECKS = ("api", "scheduler_queue", "workers", "database", "redis")
VITAL = ("api", "scheduler_queue", "database")
CHECK_S = 2.0
KEEP_S, KEEP_UNWELL_S = 1.0, 0.05
"""How long an answer is kept; one in which something is unwell for less, because who waits for a start asks."""
SERVER_SEEN_S = 60.0
"""A server that was not seen for so long is not shown."""
TAKEOVERS_SHOWN = 10


class Health:
    """Runs the checks at most once a second (while something is unwell, twenty times), however many ask; remembers since when
    each is as it is."""

    def __init__(self, services: Services, now: Callable[[], float] = time.monotonic) -> None:
        self._services, self._now = services, now
        self._checks: dict[str, dict[str, Any]] = {}
        self._old_at = float("-inf")
        self._lock = asyncio.Lock()

    async def look(self) -> tuple[str, dict[str, dict[str, Any]]]:
        async with self._lock:
            if self._now() >= self._old_at:
                given = {"api": _api_is_ok} | self._services.health_checks
                names = [*CHECKS, *sorted(set(given) - set(CHECKS))]
                told = await asyncio.gather(*(_one(given.get(name)) for name in names))
                now = rfc3339(self._services.clock.now())
                for name, found in zip(names, told, strict=True):
                    before = self._checks.get(name, {})
                    same = before.get("status") == found["status"]
                    self._checks[name] = found | {"since": before["since"] if same else now}
                self._old_at = self._now() + (KEEP_UNWELL_S if self._unwell() else KEEP_S)
        down = any(self._checks[name]["status"] == "down" for name in VITAL)
        return "down" if down else "degraded" if self._unwell() else "ok", self._checks

    def _unwell(self) -> bool:
        return any(c["status"] in ("down", "degraded") for c in self._checks.values())


async def _api_is_ok() -> Mapping[str, Any]:
    return {"status": "ok", "detail": ""}


async def _one(check: HealthCheck | None) -> dict[str, Any]:
    """One check; what raises or hangs is down."""
    if check is None:
        return {"status": "not_configured", "detail": "", "latency_ms": None}
    started = time.monotonic()
    try:
        async with asyncio.timeout(CHECK_S):
            found = dict(await check())
    except TimeoutError:
        found = {"status": "down", "detail": f"no answer within {CHECK_S:g} s"}
    except Exception as error:  # noqa: BLE001  # a check that breaks says that its subject is down
        found = {"status": "down", "detail": f"{type(error).__name__}: {error}"}
    return found | {"latency_ms": round((time.monotonic() - started) * 1000, 2)}


def _health(request: Request) -> Health:
    health: Health = request.app.state.health
    return health


@vital.get("/alive")
async def alive() -> Response:
    """The process answers."""
    return answer({"status": "ok"})


@vital.get("/ready")
async def ready(request: Request) -> Response:
    """Whether it can take work: 503 when not."""
    status, checks = await _health(request).look()
    if status == "down":
        names = [name for name in VITAL if checks[name]["status"] == "down"]
        return respond(problem(503, "not_ready", f"down: {', '.join(names)}", "see /health with a token"))
    return answer({"status": "ok"})


@vital.get("/health")
async def health(request: Request, context: Ctx) -> Response:
    """Everything this server depends on; brief without a token."""
    status, checks = await _health(request).look()
    code = 503 if status == "down" else 200
    if context.principal is None:
        return answer({"status": status}, code)
    return answer({"status": status, "checks": checks, "version": context.services.version}, code)


@router.get("/version")
async def version(context: Ctx) -> Response:
    """What runs here."""
    context.allow("see")
    return answer({"version": context.services.version, "api": "v1", "incarnation": context.services.incarnation()})


async def _figures(context: Context) -> dict[str, Any]:
    counts = await context.services.store.counts()
    nodes = await context.services.store.node_list()
    return {
        "tasks": {state.value: number for state, number in counts.tasks_by_state.items()},
        "nodes": {s.value: sum(n.state is s for n in nodes) for s in NodeState} | {"total": len(nodes)},
        "events": counts.events,
        "disk": {"database_bytes": counts.database_bytes, "blob_bytes": await context.services.blobs.total_bytes()},
        "durable": context.services.store.durable,
    }


@router.get("/stats")
async def stats(context: Ctx) -> Response:
    """Counts of tasks, nodes, events and bytes."""
    context.allow("see")
    return answer(await _figures(context))


@router.get("/cluster")
async def cluster(request: Request, context: Ctx) -> Response:
    """The servers of this cluster, which of them leads, and the last ones that began to."""
    context.allow("see")
    store = context.services.store
    leader, replicas = await store.leader_get(), await store.replica_list(SERVER_SEEN_S)
    last = await store.event_last_seq()
    servers = [
        {
            "name": r.name, "url": r.url, "version": r.version, "role": r.role, "epoch": r.epoch,
            "lag": max(last - r.seq, 0), "seen_at": rfc3339(r.seen_at), "leads": r.name == leader.holder,
        }
        for r in replicas
    ]  # fmt: skip
    if not context.services.replica:
        own: dict[str, Any] = {
            "url": "",
            "version": context.services.version,
            "seen_at": rfc3339(context.services.clock.now()),
        }
        own |= {"role": "all", "epoch": leader.leadership.epoch, "lag": 0}
        servers = [{"name": leader.holder, **own, "leads": True}]
    _, checks = await _health(request).look()
    took = [
        {"epoch": t.epoch, "leader": t.holder, "at": rfc3339(t.at), "cause": t.cause, "silent_s": round(t.silent_s, 3)}
        for t in await store.takeover_list(TAKEOVERS_SHOWN)
    ]
    return answer({
        "incarnation": leader.leadership.incarnation, "epoch": leader.leadership.epoch, "leader": leader.holder,
        "lease_left_s": round(max(leader.left_s, 0.0), 3), "servers": servers, "takeovers": took,
        "checks": {name: checks[name] for name in ("database", "redis")},
    })  # fmt: skip


@vital.get("/metrics")
async def metrics(context: Ctx) -> Response:
    """Prometheus' text format, from the registry that all parts share, and of the process that decides for this server."""
    context.allow("see")
    own = generate_latest(context.services.registry)
    return Response(own + (await context.services.more_metrics()).encode(), media_type=CONTENT_TYPE_LATEST)


def _size(path: Path) -> int:
    return path.stat().st_size


@router.post("/backups", status_code=201, openapi_extra=schema_of(BackupIn))
async def backup(request: Request, context: Ctx) -> Response:
    """A checked copy of the database into a new file on the server's machine."""
    context.allow("operate")
    body = await body_of(request, BackupIn)
    path = Path(body.path)
    if not path.is_absolute() or "\x00" in body.path or not path.parent.is_dir():
        raise InvalidValue("path", body.path, "an absolute path in a directory that exists")
    await context.services.store.backup(path)
    return answer({"path": body.path, "bytes": await asyncio.to_thread(_size, path)}, 201)
