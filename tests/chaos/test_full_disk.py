"""A disk that fills up under a running server: it refuses politely, loses nothing, and goes on by itself when there is room."""

import json
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.disks import SmallDisk, small_disk
from tests.e2e.cluster.harness import Home, home, wait_for

from jarvis.sdk.errors import ClientError

pytestmark = [pytest.mark.timeout(180), pytest.mark.root]


@pytest.fixture
def fresh() -> Iterator[Home]:
    with home() as made:
        yield made


def ask(made: Home, path: str, body: object = None) -> tuple[int, Any]:
    """Status and JSON of one request, with a key of its own."""
    headers = {"Authorization": f"Bearer {made.server.token}", "Content-Type": "application/json"}
    data = None
    if body is not None:
        headers["Idempotency-Key"] = uuid.uuid4().hex
        data = json.dumps(body).encode()
    request = urllib.request.Request(f"{made.server.url}{path}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def status_of(made: Home, check: str) -> str:
    return str(ask(made, "/health")[1]["checks"][check]["status"])


@pytest.fixture
def disk(fresh: Home) -> Iterator[SmallDisk]:
    """Under a cluster that is down again before it goes."""
    with small_disk(fresh.directory, 48 << 20) as made:
        yield made
        made.drain()
        fresh.jarvis("down")
        wait_for(lambda: not fresh.processes(), "all is down")


class Ledger:
    """What a client was told."""

    def __init__(self, made: Home) -> None:
        self.made = made
        self.acknowledged: list[int] = []
        self.refusals: list[tuple[int, Any]] = []

    def submit(self) -> bool:
        status, answer = ask(self.made, "/tasks", {"command": ["true"], "env": {"PAD": "x" * 20_000}})
        if status >= 400:
            self.refusals.append((status, answer))
            return False
        self.acknowledged.append(int(answer["id"]))
        return True

    def ends(self) -> set[str]:
        """How what was acknowledged has ended."""
        with self.made.client() as client:
            return {client.wait(ident, 60)["state"] for ident in self.acknowledged}


def test_it_fills_twice_and_nobody_has_to_start_again(fresh: Home, disk: SmallDisk) -> None:
    fresh.jarvis("up", "--cpus", "4")
    server, agent = fresh.server.pid, fresh.agent()
    ledger = Ledger(fresh)
    assert ledger.submit()
    assert ledger.ends() == {"succeeded"}
    for _ in range(2):
        disk.fill(leave=2 << 20)
        wait_for(lambda: not ledger.submit(), "a submission is refused")
        disk.fill()
        wait_for(lambda: status_of(fresh, "database") == "down", "health says so")
        ledger.submit()
        assert ask(fresh, "/tasks")[0] == 200, "what is known can still be read"
        disk.drain()
        wait_for(ledger.submit, "it goes on when there is room")
        wait_for(lambda: status_of(fresh, "database") == "ok", "health says so")
        assert ledger.ends() == {"succeeded"}
    for status, problem in ledger.refusals:
        assert (status, problem["code"]) == (503, "store_unavailable"), problem
        assert "full" in problem["detail"]
    assert (fresh.server.pid, fresh.agent()) == (server, agent), "nobody had to start again"
    assert {t["id"] for t in ask(fresh, "/tasks?limit=1000")[1]["items"]} == set(ledger.acknowledged)


def test_nothing_is_lost_and_it_recovers_by_itself(fresh: Home, disk: SmallDisk, tmp_path: Path) -> None:
    made, gate = fresh, tmp_path / "gate"
    made.jarvis("up")
    with made.client() as client:
        before = [client.submit(command=["echo", str(i)]).id for i in range(20)]
        running = client.submit(command=["sh", "-c", f"while [ ! -e {gate} ]; do sleep 0.1; done"]).id
        wait_for(lambda: client.show(running)["state"] == "running", "it runs")
        for ident in before:
            client.wait(ident, 30)
        disk.fill()
        acknowledged, error = [], None
        for _ in range(20_000):
            try:
                acknowledged.append(client.submit(command=["true"], env={"PAD": "x" * 2000}).id)
            except ClientError as problem:
                error = problem
                break
        assert error is not None, "the disk never became full"
        assert error.status == 503
        assert "full" in str(error), str(error)
        done = made.jarvis("submit", "--env", "PAD=" + "x" * 100_000, "--", "true", code=None)
        assert done.returncode not in (0, None)
        assert "Traceback" not in done.stderr
        gate.touch()
        wait_for(lambda: ask(made, "/health")[1]["status"] == "down", "it still answers, and says so")
        disk.drain()
        wait_for(lambda: submits(made), "it takes work again by itself")
        assert client.wait(running, 60)["state"] == "succeeded"
        for ident in acknowledged:
            assert client.wait(ident, 120)["state"] == "succeeded", ident
        for i, ident in enumerate(before):
            assert client.logs(ident) == f"{i}\n".encode()
        wait_for(lambda: ask(made, "/health")[1]["status"] == "ok", "all is well again")


def submits(made: Home) -> bool:
    try:
        with made.client() as client:
            return bool(client.submit(command=["true"]).id)
    except ClientError:
        return False
