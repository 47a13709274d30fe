"""Recorded workflows through a real cluster, their times scaled down to sleeps, beside the order that is computed for them.

The bound is the longer of the longest path and all work shared by all processors. The b-level order (HEFT's rank, Topcuoglu et
al., TPDS'02) and the order in which the tasks are listed are computed in the same run, for the same times on as many
processors, without any cost.
"""

import gzip
import heapq
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import jarvis

PROCESSORS = 8
AT_ONCE = 3
BOUND_S = 10.0
"""What the bound is scaled to; more where there are so many tasks that beginning them would be measured."""
TASK_S = 0.04
EXPECTED = 1000.0
"""A time limit is so many times what a task takes: it tells how long steps take compared with each other, and ends none."""
REACH = 1.03


@dataclass(frozen=True, slots=True)
class Instance:
    """``seconds`` of each task, and the tasks that it waits for."""

    name: str
    seconds: tuple[float, ...]
    before: tuple[tuple[int, ...], ...]

    @property
    def levels(self) -> list[float]:
        """Of each task the longest path to the end, itself included."""
        behind: list[list[int]] = [[] for _ in self.seconds]
        for task, parents in enumerate(self.before):
            for parent in parents:
                behind[parent].append(task)
        found = [0.0] * len(self.seconds)
        for task in reversed(_in_order(self.before, behind)):
            found[task] = self.seconds[task] + max((found[other] for other in behind[task]), default=0.0)
        return found

    @property
    def bound(self) -> float:
        return max(*self.levels, sum(self.seconds) / PROCESSORS)

    def scaled(self) -> "Instance":
        factor = max(BOUND_S, TASK_S * len(self.seconds)) / self.bound
        return Instance(self.name, tuple(seconds * factor for seconds in self.seconds), self.before)


@dataclass(frozen=True, slots=True)
class Ratio:
    """Makespans by the bound: computed in two orders, and measured."""

    name: str
    tasks: int
    bound: float
    listed: float
    levels: float
    measured: float


def _in_order(before: Sequence[Sequence[int]], behind: Sequence[Sequence[int]]) -> list[int]:
    left = [len(parents) for parents in before]
    order = [task for task, count in enumerate(left) if not count]
    for task in order:
        for other in behind[task]:
            left[other] -= 1
            if not left[other]:
                order.append(other)
    return order


def read(folder: Path) -> list[Instance]:
    with gzip.open(folder / "workflows" / "instances.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    return [
        Instance(row["name"], tuple(float(t[1]) for t in row["tasks"]), tuple(tuple(t[3]) for t in row["tasks"]))
        for row in rows
    ]


def makespan(instance: Instance, rank: Sequence[float]) -> float:
    """Of list scheduling: a processor that is free takes the ready task with the highest rank."""
    left = [len(parents) for parents in instance.before]
    behind: list[list[int]] = [[] for _ in left]
    for task, parents in enumerate(instance.before):
        for parent in parents:
            behind[parent].append(task)
    ready = [(-rank[task], task) for task, count in enumerate(left) if not count]
    heapq.heapify(ready)
    running: list[tuple[float, int]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < PROCESSORS:
            task = heapq.heappop(ready)[1]
            heapq.heappush(running, (now + instance.seconds[task], task))
        now, ended = heapq.heappop(running)
        for other in behind[ended]:
            left[other] -= 1
            if not left[other]:
                heapq.heappush(ready, (-rank[other], other))
    return now


def document(instance: Instance) -> dict[str, Any]:
    steps = []
    for task, (seconds, before) in enumerate(zip(instance.seconds, instance.before, strict=True)):
        limit = max(EXPECTED * seconds, 60.0)
        step = {"id": f"t{task}", "command": ["sleep", f"{seconds:.4f}"], "time_limit": limit}
        steps.append(step | {"depends_on": [f"t{parent}" for parent in before], "resources": {"cpu": 1}})
    return {"name": "recorded", "steps": steps}


def measure(instance: Instance) -> Ratio:
    """In a cluster of its own."""
    small, bound = instance.scaled(), instance.scaled().bound
    with jarvis.local(cpus=PROCESSORS) as client:
        for answer in client.submit_many([{"command": ["true"]}] * (4 * PROCESSORS)):  # what it costs is known now
            client.wait(answer["id"], 60)
        handle = client.submit_workflow(document(small))
        begun = time.monotonic()
        ended = handle.wait(20 * bound)
        took = time.monotonic() - begun
    if ended["state"] != "succeeded":
        raise RuntimeError(f"{instance.name}: {ended['state']} after {took:.1f} s: {ended['reason']}")
    listed = [-float(task) for task in range(len(small.seconds))]
    return Ratio(
        instance.name, len(small.seconds), bound, makespan(small, listed) / bound,
        makespan(small, small.levels) / bound, took / bound,
    )  # fmt: skip


def show(folder: Path, most: int) -> bool:
    """Those of at most so many tasks; whether the mean is within reach."""
    chosen = sorted((i for i in read(folder) if len(i.seconds) <= most), key=lambda i: -len(i.seconds))
    _say(
        f"\nQ6: makespan by lower bound of {len(chosen)} recorded workflows of at most {most} tasks, {PROCESSORS} processors, "
        f"bound {BOUND_S:g} s\n\n  {'workflow':<52} {'tasks':>5} {'bound':>7} {'listed':>8} {'b-level':>8} {'Jarvis':>8}"
    )
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = []
        for ratio in pool.map(measure, chosen):
            found.append(ratio)
            _say(
                f"  {ratio.name[:52]:<52} {ratio.tasks:>5} {ratio.bound:>6.1f}s {ratio.listed:>8.3f} {ratio.levels:>8.3f} "
                f"{ratio.measured:>8.3f}"
            )
    listed, levels = mean(r.listed for r in found), mean(r.levels for r in found)
    measured = mean(r.measured for r in found)
    worst = max(found, key=lambda r: r.measured / r.levels)
    _say(
        f"\n  mean: listed {listed:.3f}, b-level {levels:.3f}, Jarvis {measured:.3f}, {100 * (measured / levels - 1):+.2f} % "
        f"(to reach {100 * (REACH - 1):+.0f} %); furthest {worst.name}: {100 * (worst.measured / worst.levels - 1):+.2f} %"
    )
    return measured <= REACH * levels


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
