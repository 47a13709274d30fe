"""PURE: who preempts passes nobody that has a start reserved, comes before it and could not be preempted by it.

Else a stream of small tasks, each in the place of one of those that began before it, would put off for ever what is first and has
to wait until several of them may be stopped at once. What would leave the reserved start its room may preempt all the same.
"""

from typing import TYPE_CHECKING, NamedTuple

from jarvis.core.ids import ElementKey
from jarvis.scheduler.policy.backfill import Freed
from jarvis.scheduler.policy.preemption import Preemption, Standing, beats
from jarvis.scheduler.task_queue import class_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from jarvis.core.task import Task
    from jarvis.scheduler.cycle import Cycle, Reservation


class Ahead(NamedTuple):
    """Reservations that one who preempts must leave alone, and how long it may take from now on."""

    reservations: "tuple[Reservation, ...]" = ()
    seconds: float = 0.0

    def on(self, node: int) -> bool:
        """Whether any of them is there."""
        return any(node == reserved.node or node in reserved.others for reserved in self.reservations)


class Reserved:
    """The reservations of a cycle."""

    def __init__(self, cycle: "Cycle", rules: Preemption, standing: "Callable[[Task, ElementKey], Standing]") -> None:
        self._cycle, self._rules = cycle, rules
        tasks = cycle.cluster.tasks
        self._all = [(one, tasks[one.key.task]) for one in cycle.plan.reservations]
        self._standings = [standing(task, one.key) for one, task in self._all]

    def ahead_of(self, key: ElementKey, standing: Standing, task: "Task") -> Ahead:
        """Of what waits with that standing. It comes with the time until its victims have ended."""
        found = []
        for (one, _), its in zip(self._all, self._standings, strict=True):
            if one.key == key:
                break
            if not beats(self._rules, standing, its):
                found.append(one)
        return Ahead(tuple(found), self._rules.grace + self._cycle.seconds(task)) if found else Ahead()

    def others(self, ahead: Ahead, node: int) -> list[Freed]:
        """What is reserved on a node for who comes later, or may be preempted: room as good as any."""
        return [
            (one.start, one.start + self._cycle.seconds(task), class_of(task.spec).need)
            for one, task in self._all
            if (one.node == node or node in one.others) and one not in ahead.reservations
        ]
