"""Each check of ``/health`` is broken in turn: it alone goes red within five seconds, and green again when repaired."""

import asyncio
import contextlib
import os
import resource
import signal
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path

import httpx2 as httpx
import pytest
from tests.e2e.cluster.harness import Home

from jarvis.config.settings import load
from jarvis.wiring import Server

RED_S = 5.0
PATIENCE = 30.0
pytestmark = pytest.mark.timeout(180)


@asynccontextmanager
async def running(directory: Path, **more: dict[str, str]) -> AsyncIterator[tuple[Server, httpx.AsyncClient]]:
    """A server in this process with a real node beside it; both end when our end of the pipe is closed. ``more``: settings."""
    settings, _ = load({"state_dir": str(directory), **more}, environ={})
    read_end, write_end = os.pipe()
    server = Server(settings, owner_fd=read_end)
    serving = asyncio.create_task(server.run())
    try:
        async with asyncio.timeout(PATIENCE):
            while not server.url:  # noqa: ASYNC110 - the server has no event for it
                await asyncio.sleep(0.01)
        headers = {"Authorization": f"Bearer {server.token}"}
        async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=10) as client:
            await until(client, {}, PATIENCE)
            yield server, client
    finally:
        os.close(write_end)
        async with asyncio.timeout(PATIENCE):
            await serving
        os.close(read_end)


async def reds(client: httpx.AsyncClient) -> dict[str, str]:
    """Names of the checks that are not well, with what they say."""
    checks = (await client.get("/health")).json()["checks"]
    return {name: c["detail"] for name, c in checks.items() if c["status"] not in ("ok", "not_configured")}


async def until(client: httpx.AsyncClient, wanted: set[str] | dict[str, str], patience: float) -> float:
    """Wait until exactly these are red; seconds that it took."""
    begin = time.monotonic()
    while True:
        found = await reds(client)
        if set(found) == set(wanted):
            return time.monotonic() - begin
        assert time.monotonic() - begin < patience, f"red: {found}, wanted: {wanted}"
        await asyncio.sleep(0.1)


@contextmanager
def no_new_connections() -> Iterator[None]:
    """Every descriptor is taken."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    taken = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.dup(0))
    try:
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def stalled_scheduler(server: Server) -> Iterator[None]:
    """A turn that never comes to its end."""
    go_on = asyncio.Event()
    original = server.scheduler.run_once

    async def stuck(inputs: object) -> object:
        await go_on.wait()
        return await original(inputs)  # type: ignore[arg-type]

    server.scheduler.run_once = stuck  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        server.scheduler.run_once = original  # type: ignore[method-assign]
        go_on.set()


@contextmanager
def frozen_agent(directory: Path) -> Iterator[None]:
    pid = Home(directory).agent()
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def locked_database(directory: Path) -> Iterator[None]:
    """Somebody opened the file by hand and began to write."""
    other = sqlite3.connect(directory / "jarvis.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


async def test_each_check_goes_red_alone_and_green_again() -> None:
    with tempfile.TemporaryDirectory(prefix="jv-") as folder:
        directory = Path(folder) / "s"
        async with running(directory) as (server, client):
            faults: dict[str, Callable[[], AbstractContextManager[None]]] = {
                "api": no_new_connections,
                "scheduler_queue": lambda: stalled_scheduler(server),
                "workers": lambda: frozen_agent(directory),
                "database": lambda: locked_database(directory),
            }
            took = {}
            for name, fault in faults.items():
                with fault():
                    took[name] = await until(client, {name}, RED_S)
                await until(client, {}, PATIENCE)
            checks = (await client.get("/health")).json()["checks"]
            assert set(checks) == {*faults, "redis"}
            assert checks["redis"]["status"] == "not_configured"
    print({name: f"red after {seconds:.1f} s" for name, seconds in took.items()})  # noqa: T201 - the figures
