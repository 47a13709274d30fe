"""What only waits among very many is kept small, and nobody notices. (All simulated worlds hold with every queued task parked.)"""

import gc

from tests.unit.scheduler.harness import Case

from jarvis.core import parked
from jarvis.core.ids import ElementKey
from jarvis.core.parked import ParkedTask, plain
from jarvis.scheduler.cluster import PARKED_FROM, Cluster
from jarvis.scheduler.explain import why
from jarvis.scheduler.reactor import rebuild_attempts, rebuild_tasks


def crowded() -> Case:
    """Even one task is very many."""
    case = Case()
    assert case.cluster.parked_from == PARKED_FROM
    case.cluster.parked_from = 0
    return case


def test_it_is_placed_runs_and_ends_as_any_other() -> None:
    case = crowded()
    case.node(cpus=1)
    first, second = case.submit(cpus=1), case.submit(cpus=1)
    assert isinstance(case.cluster.tasks[second], ParkedTask)
    case.started(first)
    case.ends(first)
    case.started(second)
    assert case.cluster.tasks[second].spec.resources["cpu"] == 1000
    case.ends(second)
    case.expect(first, "succeeded")
    case.expect(second, "succeeded")


def test_it_is_explained_held_and_cancelled() -> None:
    case = crowded()
    case.node(cpus=1)
    task = case.submit(cpus=2)
    told = why(case.cluster, ElementKey(task), case.now, case.policy)
    assert told is not None
    assert "cpu" in str(told["reasons"])
    case.command("hold", task)
    case.expect(task, "held")
    case.command("release", task)
    case.command("cancel", task)
    case.expect(task, "cancelled")


def test_a_new_leader_reads_each_spec_once_a_few_at_a_time_and_leaves_nothing_to_the_collector() -> None:
    """Nobody is answered meanwhile."""
    case = crowded()
    tasks = [plain(case.cluster.tasks[case.submit(time_limit=60.0 + number)]) for number in range(600)]
    cluster = Cluster(1, 2)
    cluster.parked_from = 0
    parked._unpacked.cache_clear()
    assert sum(1 for _ in rebuild_tasks(cluster, tasks)) >= 3
    assert parked._unpacked.cache_info().misses == 0
    entries = [e for c in cluster.queue.classes() for e in cluster.queue.entries(c)]
    assert len(entries) == 600 and all(isinstance(task, ParkedTask) for task in cluster.tasks.values())
    assert not any(map(gc.is_tracked, [*entries, *cluster.tasks.values()]))


def test_what_has_counts_or_a_row_of_its_own_stays_as_it_is() -> None:
    case = crowded()
    many = case.submit(array="0-3")
    one = case.submit()
    assert not isinstance(case.cluster.tasks[many], ParkedTask)
    tasks = [case.cluster.park(task) for task in case.cluster.tasks.values()]
    before = case.cluster.queue
    case.cluster.queue = type(before)()
    for _ in rebuild_tasks(case.cluster, tasks):
        continue
    rebuild_attempts(case.cluster)
    assert len(case.cluster.queue) == len(before)
    case.node(cpus=8)
    case.started(one)
    assert case.cluster.park(case.cluster.tasks[one]) is case.cluster.tasks[one]
