"""The process in which a server of several decides: a server of role ``scheduler`` that its parent starts, watches and ends."""

import asyncio
import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jarvis.config.settings import Settings
from jarvis.utils import server_file

log = logging.getLogger("jarvis.server")
SUFFIX = ":scheduler"
"""After its parent's name."""
DIRECTORY = "scheduler"
"""Below its parent's state directory."""
ASK_S = 1.5
END_S = 8.0
AGAIN_S = 0.2
"""Pause before it is started again; doubled for one that ended at once, up to ``AGAIN_MOST_S``."""
AGAIN_MOST_S = 5.0
HEALTHY_S = 10.0
PROCESSORS = 4
"""With fewer, a process more costs more than it brings (measured: docs/decisions/0015-roles.md)."""


class SchedulerProcess:
    """One for each server that decides apart. It ends with its parent, however that one ends: it holds a pipe of it."""

    def __init__(self, settings: Settings, name: str, log_file: Path | None) -> None:
        """``name`` is the parent's."""
        self._settings, self._log_file = settings, log_file
        self.name = name + SUFFIX
        self.directory = settings.state_dir / DIRECTORY
        self._pipe: int | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._ending = asyncio.Event()
        self._client: Any = None

    async def run(self) -> None:
        """Until cancelled or ended: one that ends is followed by another."""
        pause = AGAIN_S
        while not self._ending.is_set():
            begun = time.monotonic()
            await self._start()
            assert self._process is not None
            code = await self._process.wait()
            self._let_go()
            if self._ending.is_set():
                return
            pause = AGAIN_S if time.monotonic() - begun > HEALTHY_S else min(2 * pause, AGAIN_MOST_S)
            log.error("the scheduler's process ended with %s; another one starts in %.1f s", code, pause)
            await asyncio.sleep(pause)

    async def _start(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        watch = list(self._settings.server.watch)
        server = {"role": "scheduler", "name": self.name, "port": 0, "listen": "", "host": "127.0.0.1", "watch": watch}
        flags = {"state_dir": str(self.directory), "server": server}
        read_end, self._pipe = os.pipe()
        command = [sys.executable, "-m", "jarvis.cli", "server", "--flags", json.dumps(flags)]
        command += ["--owner-fd", str(read_end), "--parent", str(self._settings.state_dir)]
        if self._log_file is not None:
            command += ["--log-file", str(self.directory / self._log_file.name)]
        try:
            self._process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, pass_fds=(read_end,), env=self._environment(),
                start_new_session=True,
            )  # fmt: skip
        except BaseException:
            self._let_go()
            raise
        finally:
            os.close(read_end)

    def _environment(self) -> dict[str, str]:
        """What must not be read in a list of processes goes this way."""
        store, bus = self._settings.store, self._settings.bus
        more = {
            "JARVIS_STORE__KIND": store.kind,
            "JARVIS_STORE__URL": store.url,
            "JARVIS_BUS__REDIS_URL": bus.redis_url,
        }
        return {**os.environ, **{name: value for name, value in more.items() if value}}

    def _let_go(self) -> None:
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None

    def end(self) -> None:
        """It hands over and ends; nobody follows it."""
        self._ending.set()
        self._let_go()

    async def gone(self) -> None:
        """Ended, and if it cannot end by itself, killed."""
        self.end()
        if self._process is not None:
            try:
                async with asyncio.timeout(END_S):
                    await self._process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
        if self._client is not None:
            await self._client.aclose()

    # ------------------------------------------------------------ asked

    @property
    def url(self) -> str | None:
        """Where this machine reaches it, while it runs."""
        content = server_file.read(self.directory)
        process = self._process
        if content is None or process is None or process.returncode is not None or content.pid != process.pid:
            return None
        return content.url

    async def check(self) -> Mapping[str, Any]:
        """What its own health says about its loop. While it is away tasks are taken in all the same, and wait."""
        answer = await self._ask("/health")
        if answer is None:
            return {"status": "degraded", "detail": f"the process {self.name} does not answer; tasks wait"}
        checks: dict[str, dict[str, Any]] = answer.json()["checks"]
        found = checks["scheduler_queue"]
        if found["status"] == "ok" and checks["api"]["status"] == "degraded":  # a loop of it ended on a defect
            found = checks["api"]
        if found["status"] == "down":  # this server is not: it takes tasks, and another scheduler may lead
            found["status"] = "degraded"
        return {name: found[name] for name in ("status", "detail")}

    async def metrics(self) -> str:
        """Its figures as Prometheus reads them; empty while it does not answer."""
        answer = await self._ask("/metrics")
        return "" if answer is None else str(answer.text)

    async def _ask(self, path: str) -> Any:
        import httpx2 as httpx  # not before somebody asks: a start is short

        if self._client is None:
            self._client = httpx.AsyncClient(timeout=ASK_S)
        content, url = server_file.read(self.directory), self.url
        if content is None or url is None:
            return None
        try:
            answer = await self._client.get(url + path, headers={"Authorization": f"Bearer {content.token}"})
        except httpx.HTTPError:
            return None
        return answer if answer.status_code in (200, 503) else None


def _processors() -> int:
    """That this process may use, where that is told."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def wanted(settings: Settings) -> bool:
    """Whether a server with these settings decides in a process of its own."""
    server = settings.server
    if server.role != "all" or settings.store.kind != "postgres":
        return False
    return server.scheduler_process == "own" or (server.scheduler_process == "auto" and _processors() >= PROCESSORS)
