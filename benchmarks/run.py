"""First figures on this machine: an embedded cluster, durable (fsync before every acknowledgement), one run each.

``make bench ARGS="--quick"`` for a tenth of the volume. Peers are not measured here yet; the bare fsync stands beside.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import jarvis
from jarvis.sdk.client import Client


def nothing(_: int) -> None:
    """A function task of no work."""


def fsync_p50(directory: Path) -> float:
    """Milliseconds of a 4 KiB write with fsync."""
    times = []
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(100):
            file.write(b"x" * 4096)
            file.flush()
            begin = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1000


def functions(client: Client, count: int) -> str:
    with jarvis.Executor(client=client) as pool:
        pool.submit(nothing, 0).result(60)
        begin = time.perf_counter()
        list(pool.map(nothing, range(count)))
        return f"{count / (time.perf_counter() - begin):,.0f}/s"


def processes(client: Client, count: int) -> str:
    begin = time.perf_counter()
    array = client.submit(command=["true"], array=f"0-{count - 1}", cwd="/")
    array.check(600)
    return f"{count / (time.perf_counter() - begin):,.0f}/s"


def one_function(client: Client, count: int) -> str:
    with jarvis.Executor(client=client) as pool:
        pool.submit(nothing, 0).result(60)
        times = []
        for i in range(count):
            begin = time.perf_counter()
            pool.submit(nothing, i).result(60)
            times.append((time.perf_counter() - begin) * 1000)
    times.sort()
    return f"p50 {times[len(times) // 2]:.1f} ms, p99 {times[int(len(times) * 0.99)]:.1f} ms"


def posts(client: Client, count: int) -> str:
    begin = time.perf_counter()
    for _ in range(count):
        client.submit(command=["true"], hold=True)
    return f"{count / (time.perf_counter() - begin):,.0f}/s, one client, one at a time"


def batches(client: Client, count: int, size: int) -> str:
    specs = [{"command": ["true"], "hold": True}] * size
    begin = time.perf_counter()
    for _ in range(count // size):
        client.submit_many(specs)
    return f"{count / (time.perf_counter() - begin):,.0f}/s in batches of {size}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    scale = 10 if parser.parse_args().quick else 1
    rows: list[tuple[str, str, str]] = []
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="jb-") as directory, jarvis.local(Path(directory)) as client:
        rows += [("S9", "embedded cluster ready", f"{time.perf_counter() - begin:.1f} s")]
        rows += [("", "fsync p50", f"{fsync_p50(Path(directory)):.2f} ms")]
        for label, what, figure in (
            ("S1", "function tasks, submit to last result", lambda: functions(client, 10_000 // scale)),
            ("S2", "processes (true), array", lambda: processes(client, 5_000 // scale)),
            ("S3", "one function, submit to result", lambda: one_function(client, 200 // scale)),
            ("S4", "POST /tasks", lambda: posts(client, 1_000 // scale)),
            ("S5", "batch submission", lambda: batches(client, 20_000 // scale, 1_000)),
        ):
            rows.append((label, what, figure()))
            print(f"{label:<4}{what:<40}{rows[-1][2]}", file=sys.stderr, flush=True)
    print("\n".join(f"{label:<4}{what:<40}{figure}" for label, what, figure in rows))


if __name__ == "__main__":
    main()
