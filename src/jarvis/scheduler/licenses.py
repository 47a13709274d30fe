"""PURE: licences as people ask about them: who has them, why a task waits for one, and what is refused at once."""

from collections.abc import Iterator
from typing import Any

from jarvis.core.errors import NoLicense
from jarvis.core.states import State
from jarvis.core.task import Task, TaskSpec
from jarvis.scheduler.cluster import Cluster
from jarvis.scheduler.filters import Reason
from jarvis.scheduler.policy import licenses as policy
from jarvis.scheduler.policy.order import seconds_of

NAMED_MOST = 10
"""Holders that a reason names."""


def refused(cluster: Cluster, spec: TaskSpec) -> NoLicense | None:
    """A name that the settings do not know, or more than there are."""
    found = policy.unknown_or_too_many(cluster.licenses, spec.licenses) if spec.licenses else None
    return None if found is None else NoLicense(found.word, found.text, sorted(cluster.licenses.total))


def holders(cluster: Cluster, name: str) -> dict[int, int]:
    """Task → how many of them its attempts have."""
    found: dict[int, int] = {}
    for key in cluster.attempts:
        count = cluster.tasks[key.task].spec.licenses.get(name, 0)
        if count:
            found[key.task] = found.get(key.task, 0) + count
    return found


def reasons(cluster: Cluster, task: Task) -> Iterator[Reason]:
    """What a queued task is short of, in numbers, and who has it; else for whom it is kept."""
    pool, wanted = cluster.licenses, task.spec.licenses
    lacking = policy.short(pool, wanted)
    for name in lacking:
        have = holders(cluster, name)
        by = f" by task {_named(have)}" if have else ""
        used, total = pool.used.get(name, 0), pool.total.get(name, 0)
        yield Reason(policy.WORD, f"{used} of {total} {name} are in use{by}, wanted {wanted[name]}")
    first = None if lacking or not pool.keeps else _first_short(cluster, task)
    if first is not None:
        names = ", ".join(sorted(set(first.spec.licenses) & set(wanted)))
        yield Reason(policy.WORD, f"{names} is kept for task {first.id}, which goes first and waits for licences")


def _named(tasks: dict[int, int]) -> str:
    named = [f"{task} ({count})" for task, count in sorted(tasks.items())[:NAMED_MOST]]
    return ", ".join(named) + (f" and {len(tasks) - NAMED_MOST} more" if len(tasks) > NAMED_MOST else "")


def _first_short(cluster: Cluster, task: Task) -> Task | None:
    """What goes first, asks for some of the same and is short of one."""
    mine = cluster.entry_of(task, task.next_position)
    for placement_class in cluster.queue.classes():
        asked = dict(placement_class.licenses)
        if not asked.keys() & task.spec.licenses.keys() or not policy.short(cluster.licenses, asked):
            continue
        for entry in cluster.queue.entries(placement_class):
            other = cluster.tasks.get(entry.task)
            if entry < mine and other is not None and State.QUEUED in (other.state, other.base):
                return other
    return None


def free_at(cluster: Cluster, spec: TaskSpec, now: float) -> float | None:
    """When all are free that it asks for, if those who have them end by their limits; None where they do not tell."""
    at = now
    for name in policy.short(cluster.licenses, spec.licenses):
        free, ends = cluster.licenses.free(name), sorted(_ends(cluster, name, now))
        while free < spec.licenses[name]:
            if not ends:
                return None
            end, count = ends.pop(0)
            free, at = free + count, max(at, end)
    return at


def _ends(cluster: Cluster, name: str, now: float) -> Iterator[tuple[float, int]]:
    for key, attempt in cluster.attempts.items():
        held = cluster.tasks[key.task].spec
        if count := held.licenses.get(name, 0):
            begun = attempt.started_at or attempt.assigned_at
            yield max(begun + seconds_of(cluster.order, held), now), count


def listed(cluster: Cluster) -> list[dict[str, Any]]:
    """Each name with how many there are, are in use and are free, and the tasks that have them."""
    pool = cluster.licenses
    return [
        {
            "license": name, "total": pool.total.get(name, 0), "used": pool.used.get(name, 0),
            "free": max(pool.free(name), 0), "tasks": sorted(holders(cluster, name)),
        }
        for name in sorted(pool.total.keys() | {name for name, count in pool.used.items() if count})
    ]  # fmt: skip
