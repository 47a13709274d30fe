"""S7: a million queued tasks in a real server: its memory, how soon it has read them again, and the pauses meanwhile.

``python -m benchmarks.queued [COUNT] [--kind own|alike|array]``. ``own``: each task has a command, a name and a time limit of its
own, of 50 projects and 100 sizes; ``alike``: one spec; ``array``: one array. The only node is cordoned, so that nothing starts.
Memory is the server's own (RssAnon; at most: VmHWM). A pause is how long a GET, or a ping on the connection of an agent, waits for
its answer, both asked every 20 ms while a server that was killed and started again reads what is stored; from the first answer on.
Beside it stands how long the same took for ten seconds before the kill, when the server had nothing to do: what other programs on
the machine do to it.
"""

import argparse
import asyncio
import json
import os
import re
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.cluster.harness import Home, home, wait_for
from websockets.asyncio.client import connect

from jarvis.utils import server_file

BATCH = 10_000
PROBE_S = 0.02
CALM_S = 10.0
MEGA = 1 << 20


def specs(count: int, kind: str) -> Iterator[list[dict[str, Any]]]:
    if kind == "array":
        yield [{"name": "many", "command": ["true"], "array": f"0-{count - 1}"}]
        return
    for first in range(0, count, BATCH):
        numbers = range(first, min(first + BATCH, count))
        yield [{"name": "many", "command": ["true"]} if kind == "alike" else _own(number) for number in numbers]


def _own(number: int) -> dict[str, Any]:
    return {
        "name": f"trial-{number}", "command": ["python3", "train.py", "--seed", str(number), "--out", f"/data/{number}"],
        "resources": {"cpu": 1 + number % 10, "memory": f"{1 + number // 10 % 10}G"}, "cwd": "/data",
        "time_limit": 60 + number % 3600,
    }  # fmt: skip


def submit(made: Home, count: int, kind: str) -> float:
    """Seconds."""
    projects = [f"p{number}" for number in range(50)]
    begun = time.monotonic()
    with made.client() as client:
        for number, batch in enumerate(specs(count, kind)):
            rows = [spec | {"project": projects[number % 50]} for spec in batch]
            answers = client.submit_many(rows)
            assert all("id" in answer for answer in answers), answers[0]
        wait_for(lambda: _queued(client) >= (1 if kind == "array" else count), "all are queued", 600)
    return time.monotonic() - begun


class Probe:
    """Asks a server every 20 ms as soon as it answers at all; ``longest`` is the longest wait for an answer, in seconds."""

    def __init__(self, made: Home, pid_before: int) -> None:
        self._made, self._before = made, pid_before
        self.longest = {"GET": 0.0, "ping": 0.0}
        self.answers = {"GET": 0, "ping": 0}
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._get), threading.Thread(target=self._ping)]
        for thread in self._threads:
            thread.start()

    def _server(self) -> server_file.ServerFile | None:
        content = server_file.read(self._made.directory)
        return content if content is not None and content.pid != self._before else None

    def _note(self, what: str, begun: float) -> None:
        if self.answers[what]:
            self.longest[what] = max(self.longest[what], time.monotonic() - begun)
        self.answers[what] += 1

    def _get(self) -> None:
        while not self._over.wait(PROBE_S):
            if (content := self._server()) is None:
                continue
            begun = time.monotonic()
            with suppress(OSError), urllib.request.urlopen(f"{content.url}/alive", timeout=30) as answer:
                answer.read()
                self._note("GET", begun)

    def _ping(self) -> None:
        while not self._over.wait(PROBE_S):
            if (content := self._server()) is not None:
                with suppress(OSError):
                    asyncio.run(self._pings(content.url.replace("http", "ws", 1)))

    async def _pings(self, url: str) -> None:
        token = (self._made.directory / "node.token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}
        async with connect(f"{url}/agent/v1/session", additional_headers=headers, ping_interval=None) as link:
            while not self._over.is_set():
                begun = time.monotonic()
                await (await link.ping())
                self._note("ping", begun)
                await asyncio.sleep(PROBE_S)

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def read_again(made: Home, rows: int) -> tuple[float, float, Probe]:
    """Seconds until all are queued again in a server that was killed; those that reading took by itself; the pauses."""
    before = made.server.pid
    made.kill_server()
    begun = time.monotonic()
    probe = Probe(made, before)
    try:
        made.jarvis("up", *made.up_with, code=None)  # it may not be ready as soon as the command expects
        with made.client() as client:
            wait_for(lambda: len(readings(made)) == 2, "it has read what is stored", 600)
            assert _queued(client) >= rows
        took = time.monotonic() - begun
    finally:
        probe.end()
    return took, readings(made)[-1], probe


def calm(made: Home) -> Probe:
    """The pauses of a server that has nothing to do."""
    probe = Probe(made, 0)
    try:
        time.sleep(CALM_S)
    finally:
        probe.end()
    return probe


def processor_s(pid: int) -> float:
    """Seconds of processor that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def readings(made: Home) -> list[float]:
    """Seconds that each reading of the store took, as the server says."""
    log = (made.directory / "server.log").read_text()
    return [float(found) for found in re.findall(r"read \d+ tasks and \d+ nodes in ([\d.]+) s", log)]


def anonymous_bytes(pid: int) -> int:
    """Without the pages of files that it has mapped."""
    return _status(pid, "RssAnon")


def _status(pid: int, name: str) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().partition(f"{name}:")[2].split()[0]) * 1024


def _queued(client: Any) -> int:
    return int(client.connection.get("/stats")["tasks"].get("queued", 0))


@dataclass(slots=True)
class Found:
    """Bytes, seconds and pauses of one kind of tasks; ``peak`` is VmHWM, ``until`` begins at the kill."""

    kind: str
    count: int
    took: float
    empty: int
    submitted: int
    again: int
    peak: int
    disk: int
    reading: float
    until: float
    used: float
    before: Probe
    probe: Probe

    @property
    def longest_ms(self) -> float:
        """Of all pauses while it read."""
        return 1000 * max(self.probe.longest.values())

    def __str__(self) -> str:
        return (
            f"S7: {self.kind}, queued={self.count} submitted in {self.took:.0f} s; server {self.submitted / MEGA:.0f} MiB after "
            f"submission, {self.again / MEGA:.0f} MiB after it was read again ({self.peak / MEGA:.0f} at most, "
            f"{self.empty / MEGA:.0f} empty; {(self.again - self.empty) / self.count:.0f} bytes a task; "
            f"{self.disk / MEGA:.0f} MiB on disk); read in {self.reading:.1f} s, {self.until:.1f} s after the kill, with "
            f"{self.used:.1f} s of processor; longest pause GET {_told(self.probe, 'GET')} ({_told(self.before, 'GET')} before), "
            f"agent {_told(self.probe, 'ping')} ({_told(self.before, 'ping')} before)"
        )


def measure(count: int, kind: str) -> Found:
    with home() as made:
        made.up_with = ["--cpus", "16"]
        made.jarvis("up", *made.up_with)
        with made.client() as client:
            (node,) = client.connection.get("/nodes")["items"]
            client.connection.post(f"/nodes/{node['id']}/cordon")
        empty = anonymous_bytes(made.server.pid)
        took = submit(made, count, kind)
        submitted = anonymous_bytes(made.server.pid)
        before = calm(made)
        until, reading, probe = read_again(made, 1 if kind == "array" else count)
        used = processor_s(made.server.pid)
        again, peak = anonymous_bytes(made.server.pid), _status(made.server.pid, "VmHWM")
        disk = sum(path.stat().st_size for path in Path(made.directory).glob("*.db*"))
    return Found(kind, count, took, empty, submitted, again, peak, disk, reading, until, used, before, probe)


def _told(probe: Probe, what: str) -> str:
    return f"{probe.longest[what] * 1000:.0f} ms of {probe.answers[what]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--kind", choices=("own", "alike", "array"), action="append")
    parser.add_argument("--json", action="store_true", help="one line for all kinds: megabytes, seconds, longest pause")
    options = parser.parse_args()
    kinds = options.kind or ("own", "alike", "array")
    if options.json:
        found = {kind: measure(options.count, kind) for kind in kinds}
        told = {kind: (one.again / MEGA, one.until, one.longest_ms) for kind, one in found.items()}
        sys.stdout.write(json.dumps({"count": options.count} | told) + "\n")
        return
    for kind in kinds:
        sys.stdout.write(f"{measure(options.count, kind)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
