"""A recorded workload, submitted to real servers by its users at its times, which pass many times faster."""

import http.client
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.cluster.harness import Home, wait_for
from tests.e2e.servers.harness import Servers

from jarvis.sim.traces.formats import read
from jarvis.sim.traces.workload import Recorded
from jarvis.utils import server_file

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = 4
AT_ONCE = 1000
"""Tasks in a request, at most."""
SLICE_S = 0.5
"""What is submitted within so long goes out together."""


def recorded(name: str) -> list[Recorded]:
    """A log below ``JARVIS_TRACES``; without it the test fails and says so."""
    path = Path(os.environ.get("JARVIS_TRACES", "")) / name
    if not path.is_file():
        pytest.fail(
            f"set JARVIS_TRACES to the directory that holds {name} (docs/benchmarks.md says where it comes from)"
        )
    return read(path).items


class Pool:
    """A process with many simulated nodes that join any of the servers; ``figures``: the last line that it printed."""

    def __init__(self, homes: list[Home], count: int, cpus: int, ledger: Path, name: str = "sim") -> None:
        self.figures: dict[str, int] = {"connected": 0}
        directories = ":".join(str(home.directory) for home in homes)
        command = ["-m", "tests.chaos.swarm", directories, str(count), "--cpus", str(cpus), "--name", name]
        self._process = subprocess.Popen(
            [sys.executable, *command, "--ledger", str(ledger)], cwd=ROOT, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        wait_for(lambda: self.figures["connected"] == count, f"{count} nodes are connected", 60)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.figures = json.loads(line)

    def kill(self) -> None:
        """All of its nodes at once, as when their power goes."""
        self._process.kill()
        self.end()

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        finally:
            self._process.kill()
            self._process.wait(30)
            self._thread.join(10)
            self._process.stdout.close()


class Users:
    """Those of the log, each with a token of their own, asking one server after the other until one answers."""

    def __init__(self, made: Servers, items: list[Recorded], within_s: float, bound_s: float = 0.0) -> None:
        """``within_s``: how long the whole log takes here; ``bound_s``: what a task takes here at most."""
        self.made, self.items, self._bound = made, items, bound_s
        self.acknowledged: dict[int, Recorded] = {}
        self.repeated = 0
        """Requests that were not answered the first time."""
        self._faster = max((items[-1].submitted - items[0].submitted) / within_s, 1e-9)
        self._lock = threading.Lock()
        self._tokens = self._made_tokens()

    def _made_tokens(self) -> dict[str, str]:
        projects: dict[str, set[str]] = {}
        for item in self.items:
            projects.setdefault(item.user, set()).add(item.project)
        home = self.made.homes[self.made.leader()]
        with home.client() as client:
            return {
                user: client.connection.post("/tokens", {"role": "user", "user": user, "projects": sorted(named)})[
                    "token"
                ]
                for user, named in projects.items()
            }

    def submit_all(self) -> None:
        """At the times of the log, or as fast as the servers take it."""
        begun, first = time.monotonic(), self.items[0].submitted
        with ThreadPoolExecutor(CLIENTS) as clients:
            for at, together in groupby(self.items, lambda i: int((i.submitted - first) / self._faster / SLICE_S)):
                time.sleep(max(begun + at * SLICE_S - time.monotonic(), 0.0))
                list(clients.map(self._submit, self._requests(list(together))))

    @staticmethod
    def _requests(items: list[Recorded]) -> Iterator[list[Recorded]]:
        for _, mine in groupby(sorted(items, key=lambda item: item.user), lambda item: item.user):
            rows = list(mine)
            yield from (rows[at : at + AT_ONCE] for at in range(0, len(rows), AT_ONCE))

    def _spec(self, item: Recorded) -> dict[str, Any]:
        seconds = min(item.run / self._faster, self._bound)
        return {
            "name": item.name, "project": item.project, "cwd": "/", "time_limit": item.limit,
            "resources": {"cpu": item.resources["cpu"] // 1000}, "command": ["sleep", f"{seconds:.3f}"],
        }  # fmt: skip

    def _submit(self, items: list[Recorded]) -> None:
        body = json.dumps({"tasks": [self._spec(item) for item in items]}).encode()
        key = uuid.uuid4().hex
        deadline, homes = time.monotonic() + 120, list(self.made.homes.values())
        while (answer := self._ask(homes[0], items[0].user, body, key)) is None:
            assert time.monotonic() < deadline, "no server answers"
            homes.append(homes.pop(0))
            self.repeated += 1
            time.sleep(0.1)
        with self._lock:
            for item, row in zip(items, answer, strict=True):
                assert row["id"] not in self.acknowledged, "an id was given twice"
                self.acknowledged[row["id"]] = item

    def _ask(self, home: Home, user: str, body: bytes, key: str) -> list[dict[str, Any]] | None:
        content = server_file.read(home.directory)
        if content is None or not server_file.lives(content):
            return None
        link = http.client.HTTPConnection(content.url.removeprefix("http://"), timeout=60)
        headers = {"Authorization": f"Bearer {self._tokens[user]}", "Content-Type": "application/json"}
        try:
            link.request("POST", "/tasks/batch", body, headers | {"Idempotency-Key": key})
            answer = link.getresponse()
            told = json.loads(answer.read())
        except (OSError, ValueError, http.client.HTTPException):
            return None
        finally:
            link.close()
        assert answer.status < 300 or answer.status in (409, 503), told
        return list(told["results"]) if answer.status < 300 else None
