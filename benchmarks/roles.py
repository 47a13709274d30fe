"""What a process of its own for the scheduler brings and costs: one server on PostgreSQL and Redis of this machine.

``python -m benchmarks.roles`` alternates ``server.scheduler_process`` own and shared, a few rounds each; run it from the root.
"""

import argparse
import asyncio
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.api_load import posts
from tests.e2e.cluster.harness import Home
from tests.e2e.servers.harness import Servers, servers

import jarvis
from jarvis.sdk.client import Client

BATCH = 2000
FLOODERS = 2


def nothing(number: int) -> None:
    """No work."""


def rate(run: Callable[[], object], count: int) -> float:
    """So many a second."""
    begin = time.perf_counter()
    run()
    return round(count / (time.perf_counter() - begin))


def functions(client: Client, count: int) -> float:
    with jarvis.Executor(client=client) as pool:
        pool.submit(nothing, 0).result(60)
        return rate(lambda: list(pool.map(nothing, range(count))), count)


def processes(client: Client, count: int) -> float:
    return rate(lambda: client.submit(command=["true"], array=f"0-{count - 1}", cwd="/").check(600), count)


def round_trips(client: Client, seconds: float) -> list[float]:
    """Submit to end of one task after the other, in milliseconds."""
    times, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        begin = time.perf_counter()
        client.wait(client.submit(command=["true"], cwd="/").id, 60)
        times.append((time.perf_counter() - begin) * 1000)
    return sorted(times)


def under_parsing(home: Home, seconds: float) -> list[float]:
    """The same, while others send bodies of many tasks each that must be read, checked and stored."""
    over = threading.Event()

    def flood() -> None:
        with home.client() as client:
            while not over.is_set():
                client.submit_many([{"command": ["true"], "hold": True, "env": {"PAD": "x" * 100}}] * BATCH)

    threads = [threading.Thread(target=flood) for _ in range(FLOODERS)]
    for thread in threads:
        thread.start()
    try:
        with home.client() as client:
            return round_trips(client, seconds)
    finally:
        over.set()
        for thread in threads:
            thread.join()


class Gaps:
    """Looks how long ago the leader has renewed its lease, and keeps the longest."""

    def __init__(self, made: Servers) -> None:
        self._made, self._over, self._longest = made, threading.Event(), 0.0
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        ago = "SELECT extract(epoch FROM clock_timestamp()) - renewed_at FROM lease"
        while not self._over.wait(0.1):
            self._longest = max(self._longest, float(self._made.postgres.psql(ago, "jarvis1")))

    def end(self) -> float:
        self._over.set()
        self._thread.join()
        return round(self._longest, 2)


def memory_mb(home: Home) -> float:
    """Private memory of the server's processes."""
    total = 0
    for pid in home.processes():
        if b"jarvis.cli" in Path(f"/proc/{pid}/cmdline").read_bytes():
            status = Path(f"/proc/{pid}/status").read_text()
            total += int(status.partition("RssAnon:")[2].split()[0])
    return total / 1024


def measure(how: str, scale: int) -> dict[str, float | str]:
    with servers("n", with_redis=True, sync=True, cpus=8, more={"JARVIS_SERVER__SCHEDULER_PROCESS": how}) as made:
        home = made.homes["n"]
        found: dict[str, float | str] = {"memory MB": memory_mb(home)}
        with home.client() as client:
            found["functions/s"] = functions(client, 5000 // scale)
            found["processes/s"] = processes(client, 2000 // scale)
            found["POST/s"] = round(asyncio.run(posts(client, 500 // scale).closed(500 // scale)))
            quiet = round_trips(client, 5.0 / scale)
        gaps = Gaps(made)
        busy = under_parsing(home, 10.0 / scale)
        found["longest without renewal s"] = gaps.end()
        for name, times in (("quiet", quiet), ("parsing", busy)):
            found[f"{name} p50 ms"] = round(statistics.median(times), 1)
            found[f"{name} p99 ms"] = round(times[len(times) * 99 // 100], 1)
            found[f"{name} max ms"] = round(times[-1], 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    for _ in range(options.rounds):
        for how in ("own", "shared"):
            figures = measure(how, 10 if options.quick else 1)
            print(how, "; ".join(f"{name} {figure}" for name, figure in figures.items()), flush=True)


if __name__ == "__main__":
    main()
