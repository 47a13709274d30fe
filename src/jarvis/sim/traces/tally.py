"""What was in use, who waited and how fairly room was shared, over the time of a replay.

Fairness at an instant is Jain's index (Jain, Chiu and Hawe, DEC-TR-301, 1984) of the dominant shares that those projects hold of
which something waits: 1 where all hold the same, 1/n where one of n has everything. It counts while at least two wait.
"""

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

from jarvis.core.resources import Resources
from jarvis.scheduler.policy.fairness import dominant


@dataclass(slots=True)
class _Project:
    held: float = 0.0
    waiting: int = 0


@dataclass(slots=True)
class Tally:
    """Told of each thing that happens, at ``now`` or later than what it was told before."""

    capacity: Resources
    now: float = 0.0
    fair: float = 0.0
    """Integral of the index over ``contested`` seconds, in which at least two projects waited."""
    contested: float = 0.0
    times: "array[float]" = field(default_factory=lambda: array("d"))
    in_use: "array[float]" = field(default_factory=lambda: array("d"))
    """Dominant share of all nodes that is taken from that instant on; ``queued``: tasks that wait."""
    queued: "array[float]" = field(default_factory=lambda: array("d"))
    _projects: dict[str, _Project] = field(default_factory=dict)
    _used: Resources = field(default_factory=dict)
    _waiting: int = 0
    _many: int = 0
    """Projects that wait, with the sum of what they hold, and of its squares."""
    _sum: float = 0.0
    _squares: float = 0.0

    def arrives(self, project: str) -> None:
        self._waits(project, 1)

    def begins(self, project: str, need: Resources) -> None:
        self._holds(project, need, 1)
        self._waits(project, -1)

    def ends(self, project: str, need: Resources) -> None:
        self._holds(project, need, -1)

    def stops(self, project: str, need: Resources) -> None:
        """It was preempted, and waits again."""
        self._waits(project, 1)
        self._holds(project, need, -1)

    def comes_to(self, now: float) -> None:
        """The time until now was as it stands."""
        passed, self.now = now - self.now, now
        if self._many > 1:
            self.contested += passed
            squares = self._many * self._squares
            self.fair += passed * (min(self._sum**2 / squares, 1.0) if squares > 1e-12 else 1.0)

    def note(self) -> None:
        """The instant is over."""
        self.times.append(self.now)
        self.in_use.append(dominant(self._used, self.capacity))
        self.queued.append(self._waiting)

    @property
    def fairness(self) -> float:
        """Mean of the index while it counted; 1 if it never did."""
        return self.fair / self.contested if self.contested else 1.0

    def _waits(self, name: str, by: int) -> None:
        def change(project: _Project) -> None:
            project.waiting += by

        self._waiting += by
        self._change(name, change)

    def _holds(self, name: str, need: Resources, sign: int) -> None:
        by = sign * dominant(need, self.capacity)

        def change(project: _Project) -> None:
            project.held = max(project.held + by, 0.0)

        for resource, amount in need.items():
            self._used[resource] = self._used.get(resource, 0) + sign * amount
        self._change(name, change)

    def _change(self, name: str, change: Callable[[_Project], None]) -> None:
        project = self._projects.setdefault(name, _Project())
        self._count(project, -1)
        change(project)
        self._count(project, 1)

    def _count(self, project: _Project, sign: int) -> None:
        if project.waiting:
            self._many += sign
            self._sum += sign * project.held
            self._squares += sign * project.held**2
