"""A thousand live processes, seen by the process table throughout, while clients submit a thousand more one by one."""

import contextlib
import os
import threading
import time
import urllib.request
from collections import Counter
from json import dumps, loads
from pathlib import Path

import pytest
from tests.e2e.cluster.harness import Home, home, wait_for

ALIVE = 1000
MORE = 1000
CLIENTS = 32
ANSWER_S = 1.0
pytestmark = pytest.mark.timeout(600)


def sleepers(mark: str) -> set[int]:
    """Pids of this test's own sleeps, found as ps finds them: by the command lines of the process table."""
    wanted = b"\0".join((b"sleep", mark.encode())) + b"\0"
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "cmdline").read_bytes() == wanted:
                found.add(int(folder.name))
    return found


class Clients:
    """``CLIENTS`` threads that share ``MORE`` submissions; each waits for its answer before the next."""

    def __init__(self, made: Home, file: Path) -> None:
        self.made, self.file = made, file
        self.ids: list[int] = []
        self.seconds: list[float] = []
        self.errors: list[str] = []
        self._left = iter(range(MORE))
        self._lock = threading.Lock()
        self.threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]

    def _run(self) -> None:
        body = dumps({"command": ["sh", "-c", f"echo $JARVIS_TASK_ID >> {self.file}"], "resources": {"cpu": 0.05}})
        server = self.made.server
        headers = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"}
        while True:
            with self._lock:
                if next(self._left, None) is None:
                    return
            begin = time.monotonic()
            try:
                request = urllib.request.Request(f"{server.url}/tasks", body.encode(), headers)
                with urllib.request.urlopen(request, timeout=30) as answer:
                    ident = int(loads(answer.read())["id"])
            except OSError as error:
                self.errors.append(str(error))
                return
            with self._lock:
                self.ids.append(ident)
                self.seconds.append(time.monotonic() - begin)


def test_a_thousand_live_processes_and_a_thousand_submissions(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    mark = f"100000.{os.getpid()}"
    with home() as made:
        made.jarvis("up", "--cpus", "64")
        with made.client() as client:
            specs = [{"command": ["sleep", mark], "resources": {"cpu": 0.01}, "name": "live"} for _ in range(ALIVE)]
            live = [int(answer["id"]) for answer in client.submit_many(specs)]
            first = wait_for(lambda: len(found := sleepers(mark)) == ALIVE and found, "all of them live", 120)
            clients = Clients(made, ran)
            for thread in clients.threads:
                thread.start()
            while any(thread.is_alive() for thread in clients.threads):
                assert sleepers(mark) == first, "one of them died or was started again"
                time.sleep(0.2)
            assert clients.errors == []
            for ident in clients.ids:
                assert client.wait(ident, 120)["state"] == "succeeded"
            assert sleepers(mark) == first
            for ident in live:
                client.act(ident, "cancel", grace=0)
            for ident in live:
                assert client.wait(ident, 120)["state"] == "cancelled"
    answers = sorted(clients.seconds)
    print(  # noqa: T201 - the figures are the point
        f"alive={len(first)} submitted={len(answers)} p50={answers[len(answers) // 2] * 1000:.0f}ms "
        f"p99={answers[len(answers) * 99 // 100] * 1000:.0f}ms max={answers[-1] * 1000:.0f}ms"
    )
    assert Counter(map(int, ran.read_text().split())) == Counter(clients.ids), "each ran exactly once"
    assert len(set(clients.ids)) == MORE
    assert answers[-1] <= ANSWER_S
    assert not sleepers(mark)
