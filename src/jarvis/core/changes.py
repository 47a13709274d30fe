"""Changes: the rows that one turn of the leader writes, in one commit."""

from dataclasses import dataclass, field

from jarvis.core.attempt import Attempt
from jarvis.core.booking import Booking
from jarvis.core.event import Event
from jarvis.core.ids import ElementKey
from jarvis.core.node import Node
from jarvis.core.quota import Quota, Used
from jarvis.core.schedule import Schedule
from jarvis.core.task import Element, Task
from jarvis.core.workflow import Kept, Step, Workflow


@dataclass(slots=True)
class Changes:
    """Rows by key, so that the last word of a turn about a row is the one written.

    ``queued`` are inclusive ranges of task ids that go from ``submitted`` to ``queued`` with nothing else to say: one
    statement covers thousands of them; ``held`` likewise, of those whose users hold them from the beginning. Every other
    task that changed is in ``tasks``.
    """

    tasks: dict[int, Task] = field(default_factory=dict)
    tasks_new: dict[int, Task] = field(default_factory=dict)
    """Made by the leader for steps of workflows, under ids that were reserved; inserted as they stand."""
    queued: list[tuple[int, int]] = field(default_factory=list)
    held: list[tuple[int, int]] = field(default_factory=list)
    elements: dict[ElementKey, Element] = field(default_factory=dict)
    attempts_new: dict[tuple[int, int, int], Attempt] = field(default_factory=dict)
    attempts: dict[tuple[int, int, int], Attempt] = field(default_factory=dict)
    nodes: dict[int, Node] = field(default_factory=dict)
    nodes_removed: list[int] = field(default_factory=list)
    commands_done: dict[int, str] = field(default_factory=dict)
    """Command id → outcome ("" when done, else why it was refused)."""
    reports_done: list[int] = field(default_factory=list)
    quotas: dict[tuple[str, str], Quota | None] = field(default_factory=dict)
    """By (project, user); None where there is none any more."""
    bookings: dict[int, Booking | None] = field(default_factory=dict)
    """None where it has ended."""
    used: dict[tuple[str, str], Used] = field(default_factory=dict)
    workflows: dict[int, Workflow] = field(default_factory=dict)
    steps: dict[tuple[int, str], Step] = field(default_factory=dict)
    workflows_new: dict[int, Workflow] = field(default_factory=dict)
    """Made by schedules, under ids that were reserved."""
    kept: dict[tuple[str, str], Kept] = field(default_factory=dict)
    """By (project, key)."""
    schedules: dict[int, Schedule] = field(default_factory=dict)
    schedules_removed: list[int] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in self.__slots__)
