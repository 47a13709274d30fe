"""The disk of a running cluster fills and is freed again: refusals, nothing acknowledged lost, no restart."""

import json
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from tests.disks import SmallDisk, small_disk
from tests.e2e.cluster.harness import Home, wait_for

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]


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
    with small_disk(fresh.directory, 24 << 20) as made:
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

    def lost(self) -> list[str]:
        """What of the acknowledged has neither succeeded nor failed for the one good reason."""
        with self.made.client() as client:
            ended = {ident: client.wait(ident, 60)["state"] for ident in self.acknowledged}
        failed = {i: ask(self.made, f"/tasks/{i}/attempts")[1] for i, state in ended.items() if state != "succeeded"}
        return [json.dumps(task) for task in failed.values() if "No space left" not in json.dumps(task)]


def test_a_full_disk_refuses_and_the_server_recovers_by_itself(fresh: Home, disk: SmallDisk) -> None:
    fresh.jarvis("up", "--cpus", "4")
    server, agent = fresh.server.pid, fresh.agent()
    ledger = Ledger(fresh)
    assert ledger.submit()
    assert ledger.lost() == []
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
        assert ledger.lost() == []
    for status, problem in ledger.refusals:
        assert (status, problem["code"]) == (503, "store_unavailable"), problem
        assert "full" in problem["detail"]
    assert (fresh.server.pid, fresh.agent()) == (server, agent), "nobody had to start again"
    assert {t["id"] for t in ask(fresh, "/tasks?limit=1000")[1]["items"]} == set(ledger.acknowledged)
