"""How the leader's memory grows with queued tasks and with nodes: bytes of each, and the exponent of the curve.

``python -m benchmarks.growth [--most COUNT]``. Each point is a process of its own that holds a leader's memory of so many tasks or
nodes and nothing else; bytes are what its resident set grew by. The exponent is that of bytes ~ count^e, fitted by least squares
to the logarithms of the points from 10^4 on: 1 is a straight line. Up to 20,000 tasks are kept whole, those
beyond packed (``jarvis.core.parked``).
"""

import argparse
import gc
import math
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from jarvis.core.inputs import TasksTaken
from jarvis.core.node import Node
from jarvis.core.task import ArraySpec, Task, TaskSpec
from jarvis.scheduler.cluster import Cluster, NodeView
from jarvis.scheduler.reactor import handle
from jarvis.scheduler.turn import Turn
from jarvis.utils.collector import look_seldom

AT_ONCE = 2000
GIB = 1 << 30


def resident() -> int:
    return int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0]) * 1024


def spec_of(number: int, alike: bool) -> TaskSpec:
    if alike:
        return TaskSpec(name="many", command=("true",), resources={"cpu": 1000})
    return TaskSpec(
        name=f"trial-{number}", command=("python3", "train.py", "--seed", str(number), "--out", f"/data/{number}"),
        resources={"cpu": 1000 * (1 + number % 10), "memory": (1 + number // 10 % 10) * GIB}, cwd="/data",
        time_limit=60.0 + number % 3600,
    )  # fmt: skip


def queued(cluster: Cluster, count: int, alike: bool) -> None:
    """As a leader takes them in: decoded from what was sent or stored."""
    decode, encode = msgspec.msgpack.Decoder(TaskSpec).decode, msgspec.msgpack.encode
    for first in range(1, count + 1, AT_ONCE):
        rows = []
        for ident in range(first, min(first + AT_ONCE, count + 1)):
            spec = decode(encode(spec_of(ident, alike)))
            uuid = f"01a21c1f-4939-7d6a-9d2e-{ident:012x}"
            owner = f"p{ident // AT_ONCE % 50}"
            rows.append(Task(id=ident, uuid=uuid, project=owner, user=owner, spec=spec, submitted_at=float(first)))
        handle(Turn(cluster, float(first), "bench"), TasksTaken("bench", rows))


def own(cluster: Cluster, count: int) -> None:
    queued(cluster, count, alike=False)


def alike(cluster: Cluster, count: int) -> None:
    queued(cluster, count, alike=True)


def array(cluster: Cluster, count: int) -> None:
    spec = TaskSpec(name="many", command=("true",), array=ArraySpec(((0, count - 1, 1),)))
    task = Task(id=1, uuid="", project="p", user="u", spec=spec, submitted_at=1.0)
    handle(Turn(cluster, 1.0, "bench"), TasksTaken("bench", [task]))


def nodes(cluster: Cluster, count: int) -> None:
    for ident in range(1, count + 1):
        node = Node(
            id=ident, name=f"n{ident}", resources={"cpu": 64_000, "memory": 256 * GIB}, labels={"zone": f"z{ident % 3}"}
        )
        cluster.nodes[ident], cluster.node_names[node.name] = NodeView(node, session=f"s{ident}"), ident
    cluster.look_at_nodes()


def held(fill: Callable[[Cluster, int], None], count: int) -> int:
    """Bytes, of a process that has done nothing else."""
    cluster = Cluster(1, 1)
    fill(cluster, 10)  # what the first ones load, whatever comes after them
    cluster = Cluster(1, 1)
    gc.collect()
    before = resident()
    fill(cluster, count)
    gc.collect()
    return max(resident() - before, 1)


def exponent(points: Sequence[tuple[int, float]]) -> float:
    """Of the line through the logarithms."""
    xs, ys = [math.log(count) for count, _ in points], [math.log(size) for _, size in points]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=1_000_000)
    options = parser.parse_args()
    look_seldom()
    for fill, first in ((own, 1000), (alike, 1000), (array, 1000), (nodes, 1000)):
        most = options.most if fill is not nodes else min(options.most, 100_000)
        counts = [first * 10**step for step in range(8) if first * 10**step <= most]
        points = []
        for count in counts:
            with multiprocessing.get_context("spawn").Pool(1) as process:
                points.append((count, process.apply(held, (fill, count))))
        told = ", ".join(f"{count:,}: {size / (1 << 20):.1f} MiB ({size / count:.0f} each)" for count, size in points)
        fitted = [point for point in points if point[0] >= 10 * first]
        sys.stdout.write(f"{fill.__name__}: {told}; exponent {exponent(fitted):.2f}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
