"""PURE: when what waits is predicted to start, and how long it then runs: predictions with their intervals, never promises.

The very engine that places is asked, with the ends of what runs where they are predicted: once all at their lower bounds and with
nobody going first, once all at the medians and once all at the upper bounds, with everybody going first who would. What comes later
and passes by is not foreseen.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

from jarvis.core import resources as vector
from jarvis.core.task import Task
from jarvis.scheduler.cluster import Cluster, NodeView, Placed
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.outlook import SOON, Outlook
from jarvis.scheduler.policy.prediction import Prediction
from jarvis.scheduler.whatif import AHEAD_MOST, RESERVE_ALL, question, start_in

RUNNING_MOST = 2000
"""Attempts whose ends are predicted for one answer: with more on the nodes that it could have, nothing is said."""
WORK_MOST = 30_000
"""Attempts times tasks that go first: with more, an answer would keep the leader for longer than 0.1 s, and nothing is said."""
Bound = Literal["low", "seconds", "high"]
Ends = dict[int, list[tuple[int, Placed, Prediction | None]]]


def run_of(cluster: Cluster, task: Task, position: int, now: float) -> dict[str, Any] | None:
    """How long it runs, or goes on running; None while hardly anything is known of those like it."""
    attempt = cluster.attempts.get(task.key_at(position))
    begun = attempt is not None and attempt.started_at is not None
    elapsed = max(now - (attempt.started_at or now), 0.0) if attempt is not None else 0.0
    said = cluster.predictor.remaining(task, elapsed) if begun else cluster.predict(task)
    if said is None:
        return None
    return {
        "seconds": round(said.seconds, 3), "low_s": round(said.low, 3), "high_s": round(said.high, 3), "runs": said.runs,
        "like": said.like,
    }  # fmt: skip


def start_of(cluster: Cluster, policy: Policy, task: Task, ahead: list[Task], now: float) -> dict[str, Any] | None:
    """Seconds until a queued task starts, and the bounds; None where ends are too many, or known of too few."""
    running = _running(cluster, task, len(ahead), now)
    if running is None or len(ahead) > AHEAD_MOST:
        return None
    low = _start(cluster, policy, [task], (running, "low"), now)
    median = _start(cluster, policy, [*ahead, task], (running, "seconds"), now)
    high = _start(cluster, policy, [*ahead, task], (running, "high"), now)
    if low is None or median is None:
        return None
    known = [said is not None for placed in running.values() for _, _, said in placed]
    median = max(median, low)
    return {
        "start_s": round(median - now, 3), "earliest_s": round(low - now, 3),
        "latest_s": None if high is None else round(max(high, median) - now, 3),
        "running": len(known), "predicted": sum(known),
    }  # fmt: skip


def _running(cluster: Cluster, task: Task, ahead: int, now: float) -> Ends | None:
    """Node → what is on it, with what is predicted of the rest of it; only of nodes that are large enough. None: too many."""
    views = [v for v in cluster.nodes.values() if vector.fits(task.spec.resources, v.node.resources)]
    count = sum(len(view.placed) for view in views)
    if count > RUNNING_MOST or count * (ahead + 1) > WORK_MOST:
        return None
    return {
        view.node.id: [(n, p, cluster.predictor.remaining(*_of(cluster, p, now))) for n, p in view.placed.items()]
        for view in views
    }


def _of(cluster: Cluster, placed: Placed, now: float) -> tuple[Task, float]:
    """The task of an attempt and for how long it has run."""
    begun = cluster.attempts[placed.key].started_at
    return cluster.tasks[placed.key.task], 0.0 if begun is None else max(now - begun, 0.0)


def _start(
    cluster: Cluster, policy: Policy, queued: list[Task], running: tuple[Ends, Bound], now: float
) -> float | None:  # fmt: skip
    """When the last of what is queued starts, if all that runs ends at one bound of what is predicted."""
    ends, bound = running
    asked = question(cluster, queued)
    asked.nodes = cluster.nodes | {node: _view(cluster, cluster.nodes[node], ends[node], bound, now) for node in ends}
    asked.outlook = Outlook(asked.nodes, now)  # what is in use there, and so the order of nodes, is as it was
    return start_in(asked, policy, queued[-1], now, replace(RESERVE_ALL, times="predicted", bound=bound))


def _view(
    cluster: Cluster, view: NodeView, ends: list[tuple[int, Placed, Prediction | None]], bound: Bound, now: float
) -> NodeView:  # fmt: skip
    """The node with the ends of what is on it where they are predicted; where they are not, by its limit if it has one."""

    def known() -> Iterator[tuple[float, int]]:
        for number, placed, said in ends:
            task, elapsed = _of(cluster, placed, now)
            limit = task.spec.time_limit
            if said is not None:
                yield now + max(getattr(said, bound), SOON), number
            elif limit is not None:
                yield now + max(limit - elapsed, SOON), number

    return replace(view, ends=sorted(known()))
