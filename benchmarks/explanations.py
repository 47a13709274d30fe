"""How long ``jarvis why`` takes the leader: 100,000 queued tasks of 100 classes and 50 projects, on a cluster that is full but for
what a fortieth of its tasks gave back.

``python -m benchmarks.explanations [NODES...]``. Each task that is asked about is answered once, in the process that decides, as it
is for the API; the rest of a request is beside it. Half of them are anywhere in the queue, half among the first 300 (one with
thousands before it is not told how long those take). Seconds are those of the processor, as other work may share it.

``--rest``: instead, over HTTP from a server with so many nodes (without processes) and tasks, which starts and ends some all the
while; one connection.
"""

import argparse
import contextlib
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.placements import cluster_of, free, tasks_of
from tests.e2e.cluster.harness import home

from jarvis.core.ids import ElementKey
from jarvis.core.inputs import TasksTaken
from jarvis.core.states import State
from jarvis.scheduler.cluster import Cluster
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.explain import why
from jarvis.scheduler.policy.backfill import BACKFILLS, Backfill
from jarvis.scheduler.reactor import adopt, handle, place
from jarvis.scheduler.turn import Turn
from jarvis.sdk.client import Client
from jarvis.utils.collector import look_seldom

FIRST = 300
BATCH = 2000


def full_cluster(nodes: int, queued: int, classes: int, projects: int, policy: Policy) -> Cluster:
    """Nothing fits any more, and so many still wait."""
    cluster = cluster_of(nodes)
    adopt(cluster, policy)
    handle(Turn(cluster, 1.0, "bench"), TasksTaken("bench", tasks_of(queued, classes, projects)))
    ident, now = queued + 1, 2.0
    while True:
        turn = Turn(cluster, now, "bench")
        plan = place(turn, policy)
        turn.finish()
        if not plan.decisions:
            return cluster
        now += 1.0
        more = TasksTaken("bench", tasks_of(len(plan.decisions), classes, projects, ident))
        ident += len(plan.decisions)
        handle(Turn(cluster, now, "bench"), more)


def gave_back(cluster: Cluster, every: int = 40) -> None:
    """One of so many that ran has ended, and nothing was placed since: there is room for what asks for little."""
    free(cluster, 1_000_000.0, every)
    cluster.look_at_nodes()


def measure(cluster: Cluster, policy: Policy, asked: int) -> list[float]:
    """Seconds of each answer, ascending."""
    waiting = sorted(task.id for task in cluster.tasks.values() if task.state is State.QUEUED)
    chance, times = random.Random(1), []
    for ident in chance.sample(waiting, asked // 2) + chance.sample(waiting[:FIRST], asked - asked // 2):
        begin = time.thread_time()
        why(cluster, ElementKey(ident), 1_000_000.0, policy)
        times.append(time.thread_time() - begin)
    return sorted(times)


def said(times: list[float]) -> str:
    """``times`` ascending, in seconds."""
    n = len(times)
    middle, late = times[n // 2], times[min(n * 99 // 100, n - 1)]
    return f"n {n}, p50 {middle * 1000:.1f} ms, p99 {late * 1000:.1f} ms, max {times[-1] * 1000:.1f} ms"


@contextlib.contextmanager
def swarm(directory: Path, nodes: int) -> Iterator[None]:
    """So many nodes without processes, all connected."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.swarm", str(directory), str(nodes)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        while json.loads(process.stdout.readline())["connected"] < nodes:
            pass
        reader = threading.Thread(target=process.stdout.read)
        reader.start()
        try:
            yield
        finally:
            process.stdin.close()
            reader.join()


def over_rest(nodes: int, queued: int, asked: int) -> tuple[list[float], float]:
    """Seconds of each answer of a server, ascending, and how many tasks a second it started meanwhile."""
    chance = random.Random(1)
    with home() as made:
        made.jarvis("up", "--cpus", "1")
        with swarm(made.directory, nodes), made.client() as client:
            ids: list[int] = []
            for _ in range(queued // BATCH):
                needs = [{"cpu": chance.choice([1, 2]), "memory": f"{chance.randint(1, 32)}Mi"} for _ in range(BATCH)]
                specs = [{"command": ["sleep", "5"], "cwd": "/", "resources": need} for need in needs]
                ids += [answer["id"] for answer in client.submit_many(specs)]
            waiting = ids[len(ids) // 2 :]
            times, begun, first = [], time.perf_counter(), _begun(client)
            for ident in chance.sample(waiting, asked):
                begin = time.perf_counter()
                client.connection.get(f"/tasks/{ident}/why")
                times.append(time.perf_counter() - begin)
            return sorted(times), (_begun(client) - first) / (time.perf_counter() - begun)


def _begun(client: Client) -> int:
    """How many tasks are no longer queued."""
    tasks = client.connection.get("/stats")["tasks"]
    return int(sum(count for state, count in tasks.items() if state not in ("submitted", "queued")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nodes", nargs="*", type=int, default=[10, 100, 1000])
    parser.add_argument("--queued", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--projects", type=int, default=50)
    parser.add_argument("--asked", type=int, default=200)
    parser.add_argument("--backfill", choices=BACKFILLS, default="skip")
    parser.add_argument("--rest", action="store_true")
    options = parser.parse_args()
    if options.rest:
        for nodes in options.nodes:
            times, rate = over_rest(nodes, options.queued, options.asked)
            sys.stdout.write(
                f"{nodes:>6} nodes, {options.queued:,} queued, over HTTP, {rate:.0f} tasks a second begun meanwhile: "
                f"{said(times)}\n"
            )
        return
    policy = Policy(backfill=Backfill(options.backfill))
    for nodes in options.nodes:
        cluster = full_cluster(nodes, options.queued, options.classes, options.projects, policy)
        gave_back(cluster)
        look_seldom()
        sys.stdout.write(
            f"{nodes:>6} nodes, {options.queued:,} queued, {options.classes} classes, backfill {options.backfill}: "
            f"why {said(measure(cluster, policy, options.asked))}\n"
        )


if __name__ == "__main__":
    main()
