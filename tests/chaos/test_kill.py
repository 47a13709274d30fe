"""kill -9 of server and agent at random moments under load: nothing acknowledged is lost, nothing running is restarted.

The judges are the clients' own ledger of acknowledgements and a file that the tasks themselves write.
"""

import os
import random
import signal
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable
from http.client import HTTPException
from json import dumps, loads
from pathlib import Path

import msgspec
import pytest
from tests.e2e.cluster.harness import Home, home, wait_for

from jarvis.sdk.client import Client
from jarvis.utils import server_file

SOAK = bool(os.environ.get("JARVIS_SOAK"))
CYCLES = int(os.environ.get("JARVIS_CYCLES") or (200 if SOAK else 20))
LONG_TASKS = 20
CLIENTS = 8
PAUSE_S = 0.04
"""Of each client between two submissions: about 150 a second together, however long it takes."""
AT_ONCE = 5000
pytestmark = pytest.mark.timeout(3600 if SOAK else 900)


class Load:
    """Clients that submit one by one, repeat with the same key until they get an answer, and keep a ledger."""

    def __init__(self, made: Home, ledger_file: Path) -> None:
        self.made, self.file = made, ledger_file
        self.acknowledged: list[int] = []
        self.in_flight = 0
        self.stopping = False
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.run) for _ in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def run(self) -> None:
        while not self.stopping:
            ident = self.until_answered(uuid.uuid4().hex)
            with self.lock:
                self.acknowledged += ident
            time.sleep(PAUSE_S)

    def until_answered(self, key: str) -> list[int]:
        while not self.stopping:
            if (ident := self.post(key)) is not None:
                return [ident]
        return []

    def post(self, key: str) -> int | None:
        content = server_file.read(self.made.directory)
        if content is None:
            time.sleep(0.02)
            return None
        body = dumps({"command": ["sh", "-c", f"echo $JARVIS_TASK_ID >> {self.file}"], "resources": {"cpu": 0.1}})
        request = urllib.request.Request(
            f"{content.url}/tasks", body.encode(),
            {"Authorization": f"Bearer {content.token}", "Idempotency-Key": key, "Content-Type": "application/json"},
        )  # fmt: skip
        with self.lock:
            self.in_flight += 1
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(loads(answer.read())["id"])
        except (OSError, ValueError, HTTPException):
            time.sleep(0.02)
            return None
        finally:
            with self.lock:
                self.in_flight -= 1

    def stop(self) -> None:
        self.stopping = True
        for thread in self.threads:
            thread.join(60)


def kill_server(made: Home) -> None:
    os.kill(made.server.pid, signal.SIGKILL)
    made.jarvis("up")


def kill_agent(made: Home) -> None:
    pid = wait_for(made.agent, "an agent lives")
    before = sessions(made)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: (again := made.agent()) is not None and again != pid, "the supervisor starts another")
    wait_for(lambda: sessions(made) > before, "it is connected")


def sessions(made: Home) -> int:
    """How many sessions the agents of this node have had; its own log says so."""
    return (made.directory / "node" / "agent.log").read_text().count("connected as node")


def ends(client: Client, tasks: list[int], patience: float = 300.0) -> dict[int, str]:
    """How each of the tasks ended, once all have."""
    found: dict[int, str] = {}
    deadline = time.monotonic() + patience
    while len(found) < len(tasks):
        assert time.monotonic() < deadline, f"{len(tasks) - len(found)} of {len(tasks)} tasks do not end"
        wanted = [ident for ident in tasks if ident not in found][:AT_ONCE]
        body = msgspec.msgpack.encode({"ids": wanted, "wait": 5.0})
        answer = client.connection.request("POST", "/tasks/results", content=body)
        found |= {row[0]: row[1] for row in msgspec.msgpack.decode(answer.content)["results"]}
    return found


@pytest.mark.parametrize("kill", [kill_server, kill_agent])
def test_nothing_is_lost_or_doubled(kill: Callable[[Home], None], tmp_path: Path) -> None:
    short, long, stop = tmp_path / "short", tmp_path / "long", tmp_path / "stop"
    seed = random.randrange(1 << 32)
    rng = random.Random(seed)
    with home() as made:
        made.jarvis("up", "--cpus", "64")
        script = f"echo $JARVIS_TASK_ID >> {long}; while [ ! -e {stop} ]; do sleep 0.5; done"
        with made.client() as client:
            tasks = [client.submit(command=["sh", "-c", script]).id for _ in range(LONG_TASKS)]
        wait_for(lambda: long.exists() and len(long.read_text().split()) == LONG_TASKS, "the long tasks run")
        load, cycles, wasted, up_s, taken = Load(made, short), 0, 0, 0.0, 0
        try:
            while cycles < CYCLES:
                begin, before = time.monotonic(), len(load.acknowledged)
                time.sleep(rng.uniform(0.05, 1.0))
                in_flight = load.in_flight > 0
                up_s, taken = up_s + time.monotonic() - begin, taken + len(load.acknowledged) - before
                kill(made)
                cycles, wasted = cycles + in_flight, wasted + (not in_flight)
                assert wasted < 10 * CYCLES, "no request was ever in flight"
        finally:
            load.stop()
        stop.touch()
        with made.client() as client:
            assert set(ends(client, tasks + load.acknowledged).values()) == {"succeeded"}
    ran = Counter(map(int, short.read_text().split()))
    starts = Counter(map(int, long.read_text().split()))
    lost = [i for i in load.acknowledged if i not in ran]
    doubled = [i for i, n in ran.items() if n > 1]
    print(  # noqa: T201 - the figure is the point
        f"seed={seed} cycles={cycles} acknowledged={len(load.acknowledged)} ({taken / up_s:.0f}/s before kills) "
        f"lost={len(lost)} doubled={len(doubled)}"
    )
    assert starts == Counter(tasks), "each long task started exactly once"
    assert lost == []
    assert doubled == []
    assert len(set(load.acknowledged)) == len(load.acknowledged)
