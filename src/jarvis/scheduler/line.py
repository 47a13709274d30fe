"""PURE: who goes before a task that waits, in the line that the next cycle makes: by tiers, then shares, then ranks."""

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from jarvis.core.task import Task
from jarvis.scheduler.cluster import Cluster
from jarvis.scheduler.heads import Head, RankLine, by_tier, fair_line
from jarvis.scheduler.policy.quotas import Headroom
from jarvis.scheduler.pools import Group, Pool

if TYPE_CHECKING:
    from jarvis.scheduler.cycle import Policy

LOOK_MOST = 2000
"""Tasks that are looked at in search of those that go first."""


def before(cluster: Cluster, policy: "Policy", task: Task, now: float, most: int) -> list[Task]:
    """At most so many that go first and are not kept back by a limit of their own; an array stands there once. What projects are
    guaranteed, which comes before any line, is not foreseen."""
    headroom = Headroom(cluster.quotas, cluster.ledger) if cluster.quotas else None
    found = list[Task]()
    for other in islice(_line(cluster, policy, policy.queue_tiers.get(task.spec.queue, 0), now), LOOK_MOST):
        if other.id == task.id or len(found) >= most:
            break
        if not is_throttled(cluster, other) and (
            headroom is None or headroom.over(other.project, other.user, other.spec.whole) is None
        ):
            found.append(other)
    return found


def _line(cluster: Cluster, policy: "Policy", lowest: int, now: float) -> Iterator[Task]:
    """What waits in tiers from the lowest one on, as if each had been given what it asks for."""
    nowhere, queue, tiers = Group(set()), cluster.queue, policy.queue_tiers
    heads = [
        Head(cluster, lane, Pool(c, "", nowhere, [])) for c in queue.classes() if tiers.get(c.queue, 0) >= lowest
        for lane in queue.lanes(c)
    ]  # fmt: skip
    for tier in by_tier(heads, tiers):
        line = RankLine(tier) if policy.fairness.by == "nobody" else fair_line(cluster, tier, now, {})
        while (head := line.first()) is not None:
            assert head.task is not None
            yield head.task
            head.skip_task()
            line.again(placed=True)


def is_throttled(cluster: Cluster, task: Task) -> bool:
    array = task.spec.array
    return array is not None and array.throttle is not None and cluster.on_nodes.get(task.id, 0) >= array.throttle
