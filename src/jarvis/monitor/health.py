"""The five named checks behind ``/health``: each looks at one thing, and says what is wrong with that thing alone."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from jarvis.core.errors import JarvisError
from jarvis.core.node import NodeState
from jarvis.scheduler.scheduler import Scheduler
from jarvis.state.store import Store

Check = Callable[[], Awaitable[Mapping[str, Any]]]
STALLED_S = 4.0
CHECK_S = 3.0


def _ok(detail: str) -> dict[str, Any]:
    return {"status": "ok", "detail": detail}


def database_check(store: Store) -> Check:
    """A durable write and a read."""

    async def check() -> Mapping[str, Any]:
        try:
            async with asyncio.timeout(CHECK_S):
                seconds = await store.check()
        except TimeoutError:
            return {"status": "down", "detail": f"no answer in {CHECK_S:g} s"}
        except JarvisError as error:
            return {"status": "down", "detail": str(error)}
        return {
            **_ok("durable" if store.durable else "in memory: nothing survives"),
            "latency_ms": round(seconds * 1000, 2),
        }

    return check


def scheduler_check(scheduler: Scheduler) -> Check:
    """The leader's loop comes round, whatever the database does."""

    async def check() -> Mapping[str, Any]:
        silent = scheduler.clock.now() - scheduler.heartbeat.at
        if scheduler.finished:
            return {
                "status": "down",
                "detail": f"the scheduler has stopped: {scheduler.heartbeat.last_error or 'it was told to'}",
            }
        if silent > STALLED_S and not scheduler.waits_for_store:
            return {"status": "down", "detail": f"no decision for {silent:.0f} s"}
        return _ok(f"{len(scheduler.cluster.queue)} entries queued")

    return check


def workers_check(scheduler: Scheduler) -> Check:
    """At least one node takes work; some of several missing is degraded."""

    async def check() -> Mapping[str, Any]:
        views = list(scheduler.cluster.nodes.values())
        ready = [v for v in views if v.session is not None and v.node.state is NodeState.READY]
        detail = f"{len(ready)} of {len(views)} nodes connected"
        if not ready:
            return {"status": "down", "detail": detail}
        return {"status": "ok" if len(ready) == len(views) else "degraded", "detail": detail}

    return check


async def api_check() -> Mapping[str, Any]:
    """That this answers is the check."""
    return _ok("answers")


async def redis_check() -> Mapping[str, Any]:
    return {"status": "not_configured", "detail": "messages stay in the process"}


def checks(store: Store, scheduler: Scheduler) -> dict[str, Check]:
    """By the names that the brief gives them."""
    return {
        "api": api_check,
        "scheduler_queue": scheduler_check(scheduler),
        "workers": workers_check(scheduler),
        "database": database_check(store),
        "redis": redis_check,
    }
