"""Three servers behind HAProxy, asked and given a task every 100 ms, while leaders are killed and servers are started anew."""

import os
import threading
import time
import urllib.error
import urllib.request
import uuid
from http.client import HTTPException
from pathlib import Path

import pytest
from tests.chaos.ledger import Effects
from tests.chaos.load import ends
from tests.e2e.cluster.harness import wait_for
from tests.e2e.servers.harness import Servers, servers
from tests.servers.haproxy import HaProxy, binary

SOAK = bool(os.environ.get("JARVIS_SOAK"))
SECONDS = float(os.environ.get("JARVIS_SECONDS") or (3600 if SOAK else 12))
EVERY_S = SECONDS / 6 if SOAK else SECONDS / 2
GOOD = 0.999
ANSWER_S = 10.0
AT_ONCE = 1000
POST = b'{"command": ["true"], "resources": {"cpu": 0.1}}'
pytestmark = pytest.mark.timeout(SECONDS + 400)


class Probe:
    """One question every 100 ms, each on a connection of its own; how many were answered well, and how long the slowest took."""

    def __init__(self, url: str, token: str, body: bytes | None) -> None:
        self._url, self._headers, self._body = url, {"Authorization": f"Bearer {token}"}, body
        self.good = 0
        self.bad: list[str] = []
        self.seconds: list[float] = []
        self.ids: list[int] = []
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._asking: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            due += 0.1
            self._asking = [thread for thread in self._asking if thread.is_alive()]
            thread = threading.Thread(target=self._ask)
            thread.start()
            self._asking.append(thread)

    def _ask(self) -> None:
        headers = dict(self._headers)
        if self._body is not None:
            headers |= {"Content-Type": "application/json", "Idempotency-Key": uuid.uuid4().hex}
        begun, told = time.monotonic(), b""
        try:
            with urllib.request.urlopen(
                urllib.request.Request(self._url, self._body, headers), timeout=ANSWER_S
            ) as answer:
                told = answer.read()
            problem = ""
        except urllib.error.HTTPError as error:
            with error:
                problem = f"{error.code} {error.read()[:200]!r}"
        except (OSError, HTTPException) as error:
            problem = f"{type(error).__name__}: {error}"
        with self._lock:
            self.seconds.append(time.monotonic() - begun)
            if problem:
                self.bad.append(problem)
                return
            self.good += 1
            if self._body is not None:
                self.ids.append(int(told.split(b'"id":')[1].split(b",")[0]))

    def stop(self) -> None:
        self._over.set()
        self._thread.join(30)
        for thread in self._asking:
            thread.join(30)


def strike(made: Servers, nth: int) -> None:
    """In turn: the leader is killed, another server is started anew."""
    leader = made.leader()
    if nth % 2 == 0:
        made.homes[leader].kill_server()
        wait_for(lambda: made.leads(but=leader), "another one leads", 60)
        made.homes[leader].jarvis("up", *made.homes[leader].up_with)
        return
    other = next(name for name in made.homes if name != leader)
    made.homes[other].jarvis("down", "--keep")
    made.homes[other].jarvis("up", *made.homes[other].up_with)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_thousand_tasks_outlive_a_rolling_restart(tmp_path: Path) -> None:
    """All servers are started anew one after the other, and the leader is killed in the middle: nothing that runs notices."""
    binary()
    file, gate = tmp_path / "ran", tmp_path / "gate"
    os.mkfifo(gate)
    line = f'echo "$JARVIS_TASK_ID $JARVIS_ATTEMPT $JARVIS_FENCING_TOKEN %s $(date +%s.%N)" >> {file}'
    begin, end = (line.replace("%s", word, 1) for word in ("begin", "end"))
    spec = {"command": ["sh", "-c", f"{begin}; read x < {gate}; {end}"], "resources": {"cpu": 0.05}, "cwd": "/"}
    with servers("na", "nb", "nc", with_redis=True, sync=True, cpus=32, own_ports=True) as made:
        proxy = HaProxy([home.server.url.removeprefix("http://") for home in made.homes.values()])
        try:
            proxy.start()
            with made.homes[made.leader()].client() as client:
                tasks = [int(told["id"]) for told in client.submit_many([spec] * AT_ONCE)]
            wait_for(lambda: len(Effects.read(file).runs) == AT_ONCE, "all of them run at once", 300)
            probes = [
                Probe(f"{proxy.url}/tasks?limit=1", made.homes["na"].server.token, None),
                Probe(f"{proxy.url}/tasks", made.homes["na"].server.token, POST),
            ]
            for number, name in enumerate(made.homes):
                if number == 1:
                    strike(made, 0)
                made.homes[name].jarvis("down", "--keep")
                made.homes[name].jarvis("up", *made.homes[name].up_with)
            for probe in probes:
                probe.stop()
        finally:
            proxy.remove()
        with gate.open("w"), made.homes[made.leader()].client() as client:
            told = ends(client, tasks + probes[1].ids)
    effects = Effects.read(file)
    seconds = sorted(second for probe in probes for second in probe.seconds)
    doubled = effects.again() + [task for task, _ in effects.repeated]
    bad = [problem for probe in probes for problem in probe.bad]
    print(  # noqa: T201 - the figure is the point
        f"\nrolling restart: at_once={AT_ONCE} lost={len(effects.lost(tasks))} doubled={len(doubled)} "
        f"requests={len(seconds)} bad={len(bad)} p99={seconds[len(seconds) * 99 // 100] * 1000:.0f}ms max={seconds[-1]:.2f}s"
    )
    assert set(told.values()) == {"succeeded"}
    assert (effects.lost(tasks), doubled, bad) == ([], [], [])
    assert seconds[-1] <= 1.0


def test_requests_are_answered_whatever_server_is_away() -> None:
    binary()
    with servers("na", "nb", "nc", with_redis=True, sync=True, cpus=8, own_ports=True) as made:
        made.leader()
        addresses = [home.server.url.removeprefix("http://") for home in made.homes.values()]
        proxy = HaProxy(addresses)
        try:
            proxy.start()
            token = made.homes["na"].server.token
            probes = [
                Probe(f"{proxy.url}/tasks?limit=1", token, None),
                Probe(f"{proxy.url}/tasks", token, POST),
            ]
            begun, strikes = time.monotonic(), 0
            while time.monotonic() - begun < SECONDS or strikes < 2:
                if time.monotonic() - begun > (strikes + 0.3) * EVERY_S:
                    strike(made, strikes)
                    strikes += 1
                time.sleep(0.1)
            for probe in probes:
                probe.stop()
        finally:
            proxy.remove()
        with made.homes[made.leader()].client() as client:
            told = ends(client, probes[1].ids)
    asked = sum(len(probe.seconds) for probe in probes)
    bad = [problem for probe in probes for problem in probe.bad]
    seconds = sorted(second for probe in probes for second in probe.seconds)
    print(  # noqa: T201 - the figure is the point
        f"\nR8: cycles={strikes} n={asked} good={(asked - len(bad)) / asked:.5f} lost={len(probes[1].ids) - len(told)} "
        f"p50={seconds[asked // 2] * 1000:.0f}ms p99={seconds[asked * 99 // 100] * 1000:.0f}ms max={seconds[-1]:.2f}s {bad[:5]}"
    )
    assert strikes >= 2
    assert set(told.values()) == {"succeeded"}
    assert 1 - len(bad) / asked >= GOOD, bad[:10]
