"""The five named checks behind ``/health``: each looks at one thing, and says what is wrong with that thing alone."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from jarvis.bus.transport import Transport, TransportDown
from jarvis.core.errors import JarvisError
from jarvis.core.node import NodeState
from jarvis.scheduler.leader import Election
from jarvis.scheduler.scheduler import Scheduler
from jarvis.state.store import Store

Check = Callable[[], Awaitable[Mapping[str, Any]]]
STALLED_S = 3.0
"""The loop comes round once a second when nothing happens."""
SILENT_S = 3.0
"""A heartbeat that should have come a second ago."""
CHECK_S = 1.5


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


def scheduler_check(scheduler: Scheduler, election: Election) -> Check:
    """The leader's loop comes round, whatever the database does; a standby knows who leads."""

    async def check() -> Mapping[str, Any]:
        if election.standby:
            assert election.leader is not None
            holder, epoch = election.leader.holder, election.leader.leadership.epoch
            if election.leader.left_s <= 0:
                return {"status": "degraded", "detail": "nobody leads at the moment; tasks are taken in and wait"}
            return _ok(f"standby; {holder} leads under epoch {epoch}")
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


def workers_check(scheduler: Scheduler, election: Election) -> Check:
    """At least one node takes work; some of several missing is degraded."""

    async def check() -> Mapping[str, Any]:
        views = list(scheduler.cluster.nodes.values())
        standby = election.standby
        heard = (scheduler.clock.now() if standby else scheduler.heartbeat.at) - SILENT_S
        ready = [
            v for v in views
            if (standby or v.session is not None) and v.node.state is NodeState.READY and v.heard_at >= heard
        ]  # fmt: skip
        detail = f"{len(ready)} of {len(views)} nodes connected and heard of"
        if not ready:
            return {"status": "down", "detail": detail}
        return {"status": "ok" if len(ready) == len(views) else "degraded", "detail": detail}

    return check


def api_check(address: Callable[[], tuple[str, int]], troubles: Callable[[], str]) -> Check:
    """A new connection is taken and answered; who asks on an old one would not notice that nobody else gets in. And none of the
    loops of this process ended on a defect lately, or tells of what it cannot mend."""

    async def check() -> Mapping[str, Any]:
        host, port = address()
        try:
            async with asyncio.timeout(CHECK_S):
                reader, writer = await asyncio.open_connection(host, port)
                try:
                    writer.write(b"GET /alive HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    status = (await reader.readline()).decode("ascii", "replace").strip()
                finally:
                    writer.close()
        except TimeoutError:
            return {"status": "down", "detail": f"no answer to a new connection in {CHECK_S:g} s"}
        except OSError as error:
            return {"status": "down", "detail": f"no new connection: {error}"}
        if " 200 " not in status:
            return {"status": "down", "detail": f"answered {status!r}"}
        return {"status": "degraded", "detail": told} if (told := troubles()) else _ok("answers")

    return check


def redis_check(redis: Transport | None) -> Check:
    """Whether messages take the short way; without it they take the long one, and nothing stops."""

    async def check() -> Mapping[str, Any]:
        if redis is None:
            return {"status": "not_configured", "detail": "messages stay in the process, or go through the database"}
        try:
            async with asyncio.timeout(CHECK_S):
                seconds = await redis.ping()
        except TimeoutError:
            return {"status": "down", "detail": f"no answer in {CHECK_S:g} s: messages go through the database"}
        except TransportDown as error:
            return {"status": "down", "detail": f"{error}: messages go through the database"}
        return {**_ok("answers"), "latency_ms": round(seconds * 1000, 2)}

    return check


def checks(
    store: Store,
    scheduler: Scheduler,
    election: Election,
    api: Check,
    redis: Transport | None = None,
) -> dict[str, Check]:
    """By the names that the brief gives them."""
    return {
        "api": api,
        "scheduler_queue": scheduler_check(scheduler, election),
        "workers": workers_check(scheduler, election),
        "database": database_check(store),
        "redis": redis_check(redis),
    }
