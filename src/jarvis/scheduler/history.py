"""PURE: how the reasons changed for which tasks wait, kept compactly: by owner and class, of which one waits as the other does.

Once a second the leader looks at some of them, so many that it costs a few milliseconds, and notes the words where they are not
what they were. It lives in the leader's memory alone and goes back as far as that: what commands and dependencies changed stands
in the events of each task.
"""

from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from jarvis.core.states import State
from jarvis.scheduler.task_queue import Lane, PlacementClass, class_of

if TYPE_CHECKING:
    from jarvis.core.task import Task
    from jarvis.scheduler.cluster import Cluster
    from jarvis.scheduler.filters import Reason

EVERY_S = 1.0
"""Seconds between two looks."""
PATIENCE_S = 5.0
"""So long something has waited before anybody wonders why."""
NODES_MOST = 4_000
"""Nodes a look that are asked, all that are looked at together; of one owner's class all are."""
LANES_MOST = 64
"""Owners with their classes a look."""
KEPT_MOST = 4_096
"""Owners with their classes of which it is known."""
CHANGES_MOST = 32
"""Changes that are kept of each, the last ones."""
TEXT_MOST = 240

Waits = tuple[PlacementClass, str, str]
"""Class, project and user."""


class Change(NamedTuple):
    """From ``since`` on (seconds since 1970) what is first of a lane waited for these reasons; none: it could start."""

    since: float
    words: tuple[str, ...]
    text: str


@dataclass(slots=True)
class History:
    """What is remembered; ``looked_at``: when it was last looked."""

    changes: dict[Waits, deque[Change]] = field(default_factory=dict)
    looked_at: float = 0.0
    _round: list[Lane] = field(default_factory=list)
    """Lanes that are still to be looked at before it begins anew, the last one next."""

    def look(self, cluster: "Cluster", now: float) -> None:
        """Note what changed for some of those that wait."""
        if now - self.looked_at < EVERY_S:
            return
        self.looked_at = now
        if not self._round:
            self._begin(cluster)
        for _ in range(min(LANES_MOST, max(NODES_MOST // max(len(cluster.nodes), 1), 1), len(self._round))):
            self._note(cluster, self._round.pop(), now)

    def _begin(self, cluster: "Cluster") -> None:
        lanes = (lane for placement_class in cluster.queue.classes() for lane in cluster.queue.lanes(placement_class))
        self._round = list(islice(lanes, KEPT_MOST))
        live = {_of(lane) for lane in self._round}
        self.changes = {waits: kept for waits, kept in self.changes.items() if waits in live}

    def _note(self, cluster: "Cluster", lane: Lane, now: float) -> None:
        from jarvis.scheduler.explain import queued_reasons  # which tells what is kept here

        task = _first(cluster, lane)
        if task is None or now - task.submitted_at < PATIENCE_S:
            return
        found = queued_reasons(cluster, task, now)
        words = tuple(reason.word for reason in found)
        kept = self.changes.get(_of(lane))
        if kept is None:
            kept = self.changes[_of(lane)] = deque(maxlen=CHANGES_MOST)
        if not kept or kept[-1].words != words:
            kept.append(Change(now, words, _text(found)))

    def word_of(self, task: "Task") -> str:
        """Why its like waited at the last look, in a word; empty where that is not known, or it could start."""
        kept = self.changes.get((class_of(task.spec), task.project, task.user))
        return next(iter(kept[-1].words), "") if kept else ""

    def of(self, task: "Task") -> list[dict[str, Any]]:
        """Since it was submitted, oldest first."""
        kept = list(self.changes.get((class_of(task.spec), task.project, task.user), ()))
        begun = [at for at, change in enumerate(kept) if change.since <= task.submitted_at]
        first = begun[-1] if begun else 0
        return [
            {"since": max(change.since, task.submitted_at), "reasons": list(change.words), "text": change.text}
            for change in kept[first:]
        ]


def _of(lane: Lane) -> Waits:
    return lane.placement_class, lane.project, lane.user


def _first(cluster: "Cluster", lane: Lane) -> "Task | None":
    for entry in islice(lane.waiting(), LANES_MOST):
        task = cluster.tasks.get(entry.task)
        if task is not None and State.QUEUED in (task.state, task.base):
            return task
    return None


def _text(found: "list[Reason]") -> str:
    text = "; ".join(reason.text for reason in found)
    return text if len(text) <= TEXT_MOST else text[: TEXT_MOST - 1] + "…"
