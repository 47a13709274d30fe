"""Jarvis's part of the table, speaking as its peers do: ``python -m benchmarks.jarvis_side MODE COUNT WORKERS DIRECTORY``.

Each run is a cluster of its own in a fresh directory, durable: what is acknowledged is synced to disk before. Beyond the
modes of ``peers/protocol.py``: ``isolated`` (processes under another user and in a control group), ``batches``, ``array``.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from benchmarks.peers.protocol import WARM_UP, arguments, each, tell, timed

import jarvis

if TYPE_CHECKING:
    from collections.abc import Callable

    from jarvis.sdk.client import Client


def nothing(number: int) -> None:
    """No work."""


def functions(client: Client, count: int) -> dict[str, Any]:
    with jarvis.Executor(client=client) as pool:
        list(pool.map(nothing, range(WARM_UP)))

        def run() -> None:
            for future in [pool.submit(nothing, number) for number in range(count)]:
                future.result(600)

        found = timed(run, count)
    tasks = client.connection.request("GET", "/stats").json()
    return found | {"stored": sum(tasks["tasks"].values()) if "tasks" in tasks else None}


def one(client: Client, count: int) -> dict[str, Any]:
    with jarvis.Executor(client=client) as pool:
        list(pool.map(nothing, range(WARM_UP)))
        return each(lambda number: pool.submit(nothing, number).result(60), count)


def processes(client: Client, count: int, **more: Any) -> dict[str, Any]:
    """An array: each element a process of its own with a file for its output."""
    client.submit(command=["true"], array="0-49", cwd="/", **more).check(60)
    return timed(lambda: client.submit(command=["true"], array=f"0-{count - 1}", cwd="/", **more).check(600), count)


def batches(client: Client, count: int, size: int) -> dict[str, Any]:
    """Different tasks, held: what is measured is that they are acknowledged, in requests of so many, several under way."""
    specs = [{"command": ["echo", str(n)], "hold": True} for n in range(count)]
    client.submit_many(specs[:size])

    def run() -> None:
        refused = [answer for answer in client.submit_many(specs, batch=size) if "id" not in answer]
        assert not refused, refused[0]

    return timed(run, count)


def array(client: Client, count: int) -> dict[str, Any]:
    """One submission, milliseconds."""
    begin = time.perf_counter()
    client.submit(command=["true"], array=f"0-{count - 1}", hold=True)
    return {"ms": (time.perf_counter() - begin) * 1000}


MODES: dict[str, Callable[[Client, int], dict[str, Any]]] = {
    "functions": functions,
    "one": one,
    "processes": processes,
    "isolated": lambda client, count: processes(client, count, resources={"memory": "64Mi"}),
    "batches": lambda client, count: batches(client, count, 1000),
    "small_batches": lambda client, count: batches(client, count, 100),
    "array": array,
}


def main() -> None:
    mode, count, workers, directory = arguments()
    os.environ["JARVIS_WORKER__CPUS"] = str(workers)
    with jarvis.local(directory) as client:
        tell(MODES[mode](client, count))


if __name__ == "__main__":
    main()
