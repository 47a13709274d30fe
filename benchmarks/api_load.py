"""S4: the API alone and under load: ``python -m benchmarks.api_load STORED COUNT WORKERS DIRECTORY``.

STORED tasks are there before; 32 connections. Prints one line of JSON: POST a second; p99 of POST at 500 a second, quiet and
while 1,000 tasks run; p99 of the GETs that people and dashboards make, in milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.http_load import Load, request
from benchmarks.measure import percentile

import jarvis

if TYPE_CHECKING:
    from collections.abc import Callable

    from jarvis.sdk.client import Client

CONNECTIONS = 32
RATE = 500
SLEEPERS = 1000
BATCH = 10_000


def fill(client: Client, stored: int) -> int:
    """Tasks that are held; the id of the last."""
    last = 0
    for _ in range(0, stored, BATCH):
        last = int(client.submit_many([{"command": ["true"], "hold": True}] * min(BATCH, stored))[-1]["id"])
    return last


def posts(client: Client, count: int) -> Load:
    body = json.dumps({"command": ["true"], "hold": True}).encode()
    server = client.connection.server
    made = request("POST", server.url, server.token, "/tasks", body)
    return Load(server.url, CONNECTIONS, always(made))


def always(made: bytes) -> Callable[[int], bytes]:
    return lambda _: made


def reads(client: Client, last: int) -> dict[str, bytes]:
    paths = {"task": f"/tasks/{last // 2}", "list": "/tasks?limit=100", "nodes": "/nodes", "health": "/health"}
    server = client.connection.server
    return {name: request("GET", server.url, server.token, path) for name, path in paths.items()}


def measure(client: Client, stored: int, count: int) -> dict[str, Any]:
    last = fill(client, stored)
    found: dict[str, Any] = {"stored": stored}
    fast = posts(client, count)
    found["post_rate"] = asyncio.run(fast.closed(count))
    quiet = posts(client, count)
    asyncio.run(quiet.paced(min(count, 5 * RATE), RATE))
    found["post_p99_ms"] = percentile(quiet.times_ms, 0.99)
    sleepers = client.submit(command=["sleep", "600"], array=f"0-{SLEEPERS - 1}", resources={"cpu": 0}, cwd="/")
    while client.show(sleepers.id)["counts"].get("running", 0) < SLEEPERS:
        time.sleep(0.2)
    busy = posts(client, count)
    asyncio.run(busy.paced(min(count, 5 * RATE), RATE))
    found["post_busy_p99_ms"] = percentile(busy.times_ms, 0.99)
    for name, made in reads(client, last or 1).items():
        load = Load(client.connection.server.url, CONNECTIONS, always(made))
        asyncio.run(load.paced(min(count, 2 * RATE), RATE / 5))
        found[f"get_{name}_p99_ms"] = percentile(load.times_ms, 0.99)
        found["bad"] = {**found.get("bad", {}), **load.bad}
    client.act(sleepers.id, "cancel", grace=0)
    return found


def main() -> None:
    stored, count, workers, directory = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    os.environ["JARVIS_WORKER__CPUS"] = workers
    with jarvis.local(directory) as client:
        print(json.dumps(measure(client, stored, count)))


if __name__ == "__main__":
    main()
