"""Placement decisions a second of the real engine on one core: 100,000 queued tasks of 100 classes and 50 projects.

``python -m benchmarks.placements [NODES...]``. ``decided``: the cycles alone (``plan_cycle``); ``placed``: with the rows and
messages that each decision leads to (``Turn``). Seconds are those of the processor, as other work may share it. There is no
store below it. Nodes are freed between rounds, untimed.

``--curve``: instead, how that grows with the number of placement classes, 100 to 100,000 of them, on 1,000 nodes, and the exponent
e of seconds ~ classes^e, fitted by least squares to the logarithms (0: classes cost nothing; 1: as much as they are many).

``--held``: instead, what it costs that tasks name files: none, some that nobody holds, some that every second node holds, and
beside these some of their own that three nodes hold.

``--openb FOLDER``: instead, how fast the 1,213 nodes of openb are filled with GPU requests, 130 % of what there is, all of them
queued at once and placed until nothing fits; from openb_node_list_gpu_node.csv.gz and openb_pod_list_default.csv.gz in that folder.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.growth import exponent
from benchmarks.quality import traces
from msgspec import structs

from jarvis.core.inputs import TasksTaken
from jarvis.core.node import Node
from jarvis.core.states import Cause, State
from jarvis.core.task import Task, TaskSpec
from jarvis.scheduler.cluster import Cluster, NodeView
from jarvis.scheduler.cycle import Policy, plan_cycle
from jarvis.scheduler.policy.backfill import Backfill
from jarvis.scheduler.policy.order import Order
from jarvis.scheduler.reactor import apply, handle
from jarvis.scheduler.turn import Turn
from jarvis.sim.traces.filling import Filling, arrivals, read_machines, read_requests

GIB = 1 << 30
CPUS = 64
NODES = [100, 1000, 10_000]
CLASSES = (100, 300, 1000, 3000, 10_000, 30_000, 100_000)


def cluster_of(nodes: int) -> Cluster:
    cluster = Cluster(1, 1)
    for ident in range(1, nodes + 1):
        resources = {"cpu": CPUS * 1000, "memory": 4 * CPUS * GIB}
        cluster.nodes[ident] = NodeView(Node(id=ident, name=f"n{ident}", resources=resources), session=f"s{ident}")
        cluster.node_names[f"n{ident}"] = ident
    return cluster


def hold(cluster: Cluster, files: str) -> None:
    """Nodes hold what :func:`pushed` names."""
    nodes = len(cluster.nodes)
    for node in cluster.nodes if files in ("half", "own") else ():
        own = {f"own{1 + (node + more) % nodes}": GIB for more in range(3)} if files == "own" else {}
        cluster.holders.tell(node, {**own, **({"all": GIB} if node % 2 else {})})


def pushed(tasks: list[Task], files: str, nodes: int) -> list[Task]:
    """The same, naming files; ``files``: "nobody", "half" or "own", and none if it is empty."""
    for task in tasks if files else ():
        push = {"nobody": ("none",), "half": ("all",), "own": ("all", f"own{1 + task.id % nodes}")}[files]
        task.spec = structs.replace(task.spec, push=push)
    return tasks


def tasks_of(count: int, classes: int, projects: int, first: int = 1) -> list[Task]:
    out = []
    for ident in range(first, first + count):
        shape = ident * 7919 % classes
        resources = {"cpu": 1000 * (1 + shape % 4), "memory": GIB * (1 + shape // 4 % 8) + (shape // 32) * (1 << 20)}
        spec = TaskSpec(name="t", command=("true",), resources=resources)
        project = f"p{ident * 31 % projects}"
        out.append(Task(id=ident, uuid="", project=project, user=f"u-{project}", spec=spec, submitted_at=0.0))
    return out


def free(cluster: Cluster, now: float, every: int) -> None:
    """End every n-th attempt."""
    turn = Turn(cluster, now, "bench")
    for key in list(cluster.attempts)[::every]:
        turn.end_attempt(key, State.SUCCEEDED, Cause.EXIT)
        turn.move(cluster.tasks[key.task], cluster.elements[key], State.SUCCEEDED)


class Figures(NamedTuple):
    """Decisions and placements a second, the longest cycle in seconds, and the share that went where their files are."""

    decided: float
    placed: float
    longest: float
    near: float


def measure(nodes: int, queued: int, classes: int, projects: int, wanted: int, *, files: str = "") -> Figures:
    cluster = cluster_of(nodes)
    hold(cluster, files)
    submitted = Turn(cluster, 1.0, "bench")
    handle(submitted, TasksTaken("bench", pushed(tasks_of(queued, classes, projects), files, nodes)))

    policy = Policy()
    planning = placing = longest = 0.0
    done, rounds, ident = 0, 0, queued + 1
    while done < wanted:
        rounds += 1
        turn = Turn(cluster, 1.0 + rounds, "bench")
        begin = time.process_time()
        if rounds == 1:
            cluster.look_at_nodes()
        plan = plan_cycle(cluster, policy, 1.0 + rounds, seed=cluster.last_seq)
        planned = time.process_time() - begin
        apply(turn, plan)
        placing += time.process_time() - begin
        planning += planned
        longest = max(longest, planned)
        done += len(plan.decisions)
        turn.finish()
        if not plan.exhausted:
            free(cluster, 1.5 + rounds, 2)
        more = pushed(tasks_of(len(plan.decisions), classes, projects, ident), files, nodes)
        handle(Turn(cluster, 1.0, "bench"), TasksTaken("bench", more))
        ident += len(plan.decisions)
    return Figures(done / planning, done / placing, longest, cluster.holders.placed / done)


def curve(options: argparse.Namespace) -> None:
    """A line for each number of classes, and how the seconds that a placement takes grow with it."""
    decided, placed = [], []
    for classes in (classes for classes in CLASSES if classes <= options.queued):
        a, b, longest, _ = measure(options.nodes[0], options.queued, classes, options.projects, options.placements)
        sys.stdout.write(
            f"{classes:>7} classes: {a:,.0f} decided/s, {b:,.0f} placed/s, longest cycle {longest * 1000:.1f} ms\n"
        )
        sys.stdout.flush()
        decided.append((classes, 1 / a))
        placed.append((classes, 1 / b))
    sys.stdout.write(f"seconds ~ classes^{exponent(decided):.2f} decided, classes^{exponent(placed):.2f} placed\n")


def held(asked: tuple[int, int, int, int, int]) -> None:
    """A line for each way in which files are named."""
    for files in ("", "nobody", "half", "own"):
        found = measure(*asked, files=files)
        sys.stdout.write(
            f"{asked[0]:>6} nodes, files {files or 'none':>6}: {1e6 / found.decided:.1f} µs to decide, {1e6 / found.placed:.1f} µs "
            f"to place, longest cycle {found.longest * 1000:.0f} ms, {100 * found.near:.0f} % near\n"
        )
        sys.stdout.flush()


def measure_gpus(folder: Path) -> tuple[int, float, float, float]:
    """(placements, decisions a second, placements a second, share of all GPUs given away in percent)."""
    machines = read_machines(folder / "openb_node_list_gpu_node.csv.gz")
    requests = read_requests(folder / "openb_pod_list_default.csv.gz")
    filling = Filling(machines, requests, Policy(order=Order("fifo"), backfill=Backfill("skip")))
    cluster, chosen = filling.cluster, arrivals(requests, filling.total, 1.3, 42)
    filling.queue(Turn(cluster, 0.5, "bench"), 1, chosen)
    placed, gpus, now = 0, 0, 1.0
    begin = time.process_time()
    cluster.look_at_nodes()  # who has GPUs decides by what they are scored
    planning = placing = time.process_time() - begin
    while True:
        turn = Turn(cluster, now, "bench")
        begin = time.process_time()
        plan = plan_cycle(cluster, filling.policy, now, seed=cluster.last_seq)
        planning += time.process_time() - begin
        apply(turn, plan)
        placing += time.process_time() - begin
        turn.finish()
        if not plan.decisions:
            return placed, placed / planning, placed / placing, 100 * gpus / filling.total
        placed, now = placed + len(plan.decisions), now + 1.0
        gpus += sum(decision.placement_class.need.get("gpu", 0) for decision in plan.decisions)


def decisions(options: argparse.Namespace) -> dict[str, float]:
    """Nodes, or ``openb`` → decisions a second."""
    asked = (options.queued, options.classes, options.projects, options.placements)
    found = {str(nodes): measure(nodes, *asked).decided for nodes in options.nodes or NODES}
    folder = traces() / "openb"
    if folder.is_dir():
        found["openb"] = measure_gpus(folder)[1]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nodes", nargs="*", type=int)
    parser.add_argument("--queued", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--projects", type=int, default=50)
    parser.add_argument("--placements", type=int, default=40_000)
    parser.add_argument("--curve", action="store_true", help="100 to 100,000 classes instead of --classes")
    parser.add_argument("--held", action="store_true", help="tasks name files, which nodes hold")
    parser.add_argument("--openb", type=Path, help="the folder of Alibaba's cluster-trace-gpu-v2023")
    parser.add_argument(
        "--json", action="store_true", help="S6 in one line: decisions a second by nodes, and on openb if it is there"
    )
    options = parser.parse_args()
    if options.json:
        sys.stdout.write(json.dumps(decisions(options)) + "\n")
        return
    if options.openb is not None:
        count, decided, placed, given = measure_gpus(options.openb)
        sys.stdout.write(
            f"openb, 1,213 nodes: {count:,} placements, {decided:,.0f} decided/s, {placed:,.0f} placed/s, {given:.2f} % of all "
            "GPUs given away\n"
        )
        return
    options.nodes = options.nodes or ([1000] if options.curve else NODES)
    if options.curve:
        curve(options)
        return
    for nodes in options.nodes:
        asked = (nodes, options.queued, options.classes, options.projects, options.placements)
        if options.held:
            held(asked)
            continue
        decided, placed, longest, _ = measure(*asked)
        sys.stdout.write(
            f"{nodes:>6} nodes, {options.queued:,} queued, {options.classes} classes, {options.projects} projects: "
            f"{decided:,.0f} decided/s, {placed:,.0f} placed/s, longest cycle {longest * 1000:.1f} ms\n"
        )


if __name__ == "__main__":
    main()
