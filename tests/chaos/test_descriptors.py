"""A server that has no descriptors left: it goes on with what it has, refuses politely what needs one, and recovers by itself."""

import contextlib
import http.client
import json
import resource
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.cluster.harness import Home, home, wait_for

LIMIT = 96
IDLE = 200
pytestmark = pytest.mark.timeout(180)


@contextlib.contextmanager
def exhausted(made: Home) -> Iterator[None]:
    """Idle connections take whatever the server may still open."""
    pid = made.server.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (LIMIT, before[1]))
    host, port = made.server.url.removeprefix("http://").split(":")
    idle = []
    try:
        for _ in range(IDLE):
            idle.append(socket.create_connection((host, int(port)), timeout=5))  # noqa: PERF401 - all that came are closed
        wait_for(lambda: len(answered(idle)) > IDLE - LIMIT, "those for whom none is left are told so")
        assert all(connection.recv(4096).startswith(b"HTTP/1.1 503 ") for connection in answered(idle))
        yield
    finally:
        for connection in idle:
            connection.close()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def answered(connections: list[socket.socket]) -> list[socket.socket]:
    """Those that were told something, without having asked."""
    return select.select(connections, [], [], 0)[0]


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


class Kept:
    """One connection that was there before."""

    def __init__(self, made: Home) -> None:
        self._connection = http.client.HTTPConnection(made.server.url.removeprefix("http://"), timeout=30)
        self._headers = {"Authorization": f"Bearer {made.server.token}", "Content-Type": "application/json"}
        assert self.ask("GET", "/alive")[0] == 200

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, str], bytes]:
        self._connection.request(method, path, body, self._headers)
        answer = self._connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()

    def close(self) -> None:
        self._connection.close()


def test_no_descriptors_are_left(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with home() as made:
        made.jarvis("up", "--cpus", "2")
        pid, agent = made.server.pid, made.agent()
        kept = Kept(made)
        with made.client() as client:
            running = client.submit(command=["sh", "-c", f"while [ ! -e {gate} ]; do sleep 0.1; done"]).id
            wait_for(lambda: client.show(running)["state"] == "running", "it runs")
        with exhausted(made):
            before, begun = cpu_ticks(pid), time.monotonic()
            answers = [kept.ask("POST", "/tasks", b'{"command": ["true"]}') for _ in range(20)]
            refused = [kept.ask("PUT", "/blobs?project=default", b"x" * n) for n in range(1, 4)]
            gate.touch()
            wait_for(lambda: json.loads(kept.ask("GET", f"/tasks/{running}")[2])["state"] == "succeeded", "it ends")
            share = (cpu_ticks(pid) - before) / 100 / (time.monotonic() - begun)
        taken = [status for status, _, _ in answers].count(201)
        print(f"\nF28: taken={taken} of {len(answers)}, cpu={share:.0%} of a core")  # noqa: T201 - the figure is the point
        for status, headers, body in answers + refused:
            assert status in (200, 201, 503), body
            assert status != 503 or "retry-after" in {name.lower() for name in headers}
        kept.close()
        with made.client() as client:
            assert client.wait(client.submit(command=["true"]).id, 60)["state"] == "succeeded", "it goes on by itself"
            for status, _, body in answers:
                if status == 201:
                    assert client.wait(json.loads(body)["id"], 60)["state"] == "succeeded"
        assert (made.server.pid, made.agent()) == (pid, agent), "nobody had to start again"
