"""How long ``jarvis why`` takes the leader: 100,000 queued tasks of 100 classes and 50 projects, on a cluster that is full.

``python -m benchmarks.explanations [NODES...]``. Each task that is asked about is answered once, in the process that decides, as it
is for the API; the rest of a request is beside it. Seconds are those of the clock, as others wait for it meanwhile.
"""

import argparse
import random
import sys
import time

from benchmarks.placements import cluster_of, tasks_of

from jarvis.core.ids import ElementKey
from jarvis.core.inputs import TasksTaken
from jarvis.core.states import State
from jarvis.scheduler.cluster import Cluster
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.explain import why
from jarvis.scheduler.reactor import adopt, handle, place
from jarvis.scheduler.turn import Turn


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


def measure(cluster: Cluster, policy: Policy, asked: int) -> list[float]:
    """Seconds of each answer, ascending."""
    waiting = [task.id for task in cluster.tasks.values() if task.state is State.QUEUED]
    times = []
    for ident in random.Random(1).sample(waiting, asked):
        begin = time.perf_counter()
        why(cluster, ElementKey(ident), 1_000_000.0, policy)
        times.append(time.perf_counter() - begin)
    return sorted(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nodes", nargs="*", type=int, default=[100, 1000])
    parser.add_argument("--queued", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--projects", type=int, default=50)
    parser.add_argument("--asked", type=int, default=100)
    options = parser.parse_args()
    policy = Policy()
    for nodes in options.nodes:
        cluster = full_cluster(nodes, options.queued, options.classes, options.projects, policy)
        times = measure(cluster, policy, options.asked)
        middle, late = times[len(times) // 2], times[len(times) * 99 // 100]
        sys.stdout.write(
            f"{nodes:>6} nodes, {options.queued:,} queued, {options.classes} classes: why p50 {middle * 1000:.1f} ms, "
            f"p99 {late * 1000:.1f} ms, n {len(times)}\n"
        )


if __name__ == "__main__":
    main()
