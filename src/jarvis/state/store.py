"""PORT: the durable truth. Every verb takes and gives batches; what it acknowledges is synced to disk.

Who writes what: anyone inserts wishes (``task_insert_many``, ``command_insert_many``) and facts (``node_seen_many``,
``report_insert_many``); only the leader calls ``leader_commit``, under its epoch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec

from jarvis.core.attempt import Attempt
from jarvis.core.booking import Booking
from jarvis.core.changes import Changes
from jarvis.core.command import Command, NewCommand
from jarvis.core.errors import JarvisError
from jarvis.core.event import Event
from jarvis.core.ids import ElementKey
from jarvis.core.node import Node
from jarvis.core.quota import Quota, Used
from jarvis.core.states import State
from jarvis.core.task import Element, NewTask, Task
from jarvis.state.coordination import Coordination, Leadership
from jarvis.state.workflow_store import WorkflowStore


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """Unique per (principal, project, route); ``body_hash`` tells a repeat from another request."""

    principal: str
    project: str
    route: str
    key: str
    body_hash: str


@dataclass(frozen=True, slots=True)
class Submission:
    """Tasks that are acknowledged together or not at all."""

    tasks: Sequence[NewTask]
    idempotency: IdempotencyKey | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """Answer to a submission. ``replayed``: the key had been used with the same body and these are the first ids."""

    ids: Sequence[int]
    submitted_at: float
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """All given conditions must hold; empty means any."""

    states: frozenset[State] = frozenset()
    project: str | None = None
    projects: frozenset[str] | None = None
    """Projects the asker may see; None for all."""
    user: str | None = None
    queue: str | None = None
    name: str | None = None
    """Exact, or with ``*`` as a wildcard at the end."""
    submitted_after: float | None = None
    submitted_before: float | None = None
    ended_after: float | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """A fact from a node that the leader could not take directly, kept until it has."""

    id: int
    node: int
    body: bytes


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """How a task ended: the last words of its last attempt, empty when it never had one or is an array."""

    task: int
    project: str
    state: State
    cause: str = ""
    message: str = ""
    result: bytes | None = None
    result_digest: str | None = None
    output: bytes | None = None
    artifacts: str | None = None


@dataclass(frozen=True, slots=True)
class Live:
    """A page of what a rebuild reads: tasks, their elements that are not terminal, the current attempts of those on nodes."""

    tasks: list[Task]
    elements: list[Element] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Bodies:
    """Digests of bodies that something refers to; those of them that are manifests refer to their pieces in turn."""

    digests: frozenset[str] = frozenset()
    manifests: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Counts:
    """Figures for ``/stats`` and metrics."""

    tasks_by_state: dict[State, int] = field(default_factory=dict)
    events: int = 0
    database_bytes: int = 0
    blob_bytes: int = 0


Early = Callable[[Sequence[Accepted | JarvisError]], None]
"""Told what was inserted before that is durable."""


class Store(Coordination, WorkflowStore, Protocol):
    """Errors: :class:`StoreUnavailable` (nothing was written), :class:`StoreCorrupt`, :class:`StaleEpoch`."""

    durable: bool
    """False for the memory store: nothing survives the process."""

    async def open(self) -> None: ...
    async def close(self) -> None: ...
    async def now(self) -> float:
        """Database time, seconds since 1970: what every stored instant is."""
        ...

    async def check(self) -> float:
        """A small durable write and read; seconds it took. Raises when the store cannot serve."""
        ...

    # wishes and facts
    async def task_insert_many(
        self, submissions: Sequence[Submission], early: Early | None = None
    ) -> list[Accepted | JarvisError]:
        """Insert in state ``submitted``; one answer per submission, one bad one never fails its neighbours.

        A repeat of an idempotency key gets the first answer for a week; what cannot be kept gets :class:`InvalidValue`.

        ``early`` lets what a leader in this process decides about them be written with them, in one sync
        (docs/decisions/0030). A store that others write to does not call it, nor one that has other things to write. Where they
        were not stored after all, no other task gets their ids, and a commit about them is refused (:class:`StoreUnavailable`).
        """
        ...

    async def command_insert_many(self, commands: Sequence[NewCommand]) -> list[Command]: ...
    async def report_insert_many(self, reports: Sequence[tuple[int, bytes]]) -> list[int]: ...

    # the leader
    async def leader_commit(self, leadership: Leadership, changes: Changes) -> None:
        """All rows of one turn, atomically and synced; raises :class:`StaleEpoch` and writes nothing when superseded.

        An update of an attempt whose stored token differs is refused, and so is a new attempt that there is already
        (:class:`StaleEpoch` too): tokens are the fence. Tasks that are not there any more are passed over. A task has
        ended when its ``ended_at`` is set, in the same commit as its terminal state. A task without an array and its only
        element have one state and one reason, whichever of the two a commit names.
        """
        ...

    async def task_list_submitted(self, limit: int) -> list[Task]:
        """Rows in state ``submitted``, by state and never by an id above a mark, oldest first."""
        ...

    async def task_list_live(self, after_id: int, limit: int) -> list[Task]:
        """Non-terminal tasks with id above ``after_id`` in id order."""
        ...

    async def live_take(self, after_id: int, limit: int) -> Live:
        """The same with all that belongs to them: the pages of a rebuild, from the first on. Belongs to whoever asks, who leads:
        a store may have read it ahead.
        """
        ...

    async def element_list_live(self, tasks: Sequence[int]) -> list[Element]:
        """Stored elements of these tasks that are not terminal (the solo element of a task included)."""
        ...

    async def attempt_list_current(self, tasks: Sequence[int]) -> list[Attempt]:
        """The current attempt of each of these tasks' elements that are on a node."""
        ...

    async def attempt_list_ended(self, tasks: Sequence[int]) -> list[Attempt]:
        """The last attempt of each element of these tasks that has ended, of arrays only those with an index below 8: enough to
        know how such tasks run. By task and index."""
        ...

    async def command_list_open(self, limit: int) -> list[Command]: ...
    async def report_list_open(self, limit: int) -> list[Report]: ...
    async def event_last_seq(self) -> int: ...
    async def node_list(self) -> list[Node]: ...
    async def quota_list(self) -> list[Quota]: ...
    async def booking_list(self) -> list[Booking]:
        """Maintenance and reservations, by id."""
        ...

    async def used_list(self) -> list[Used]:
        """What owners used, as the leader last wrote it down."""
        ...

    async def node_next_id(self) -> int:
        """Above every id that a node ever had."""
        ...

    # reads
    async def task_get_many(self, ids: Sequence[int]) -> list[Task]:
        """Those that exist, in the order asked."""
        ...

    async def outcome_list(self, tasks: Sequence[int]) -> list[Outcome]:
        """Of those of these tasks that have ended, in id order."""
        ...

    async def task_list(self, where: TaskFilter, before_id: int | None, limit: int) -> list[Task]:
        """Newest first, ids below ``before_id``."""
        ...

    async def element_get_many(self, keys: Sequence[ElementKey]) -> list[Element]:
        """Those with a row; elements without one are synthesised by the caller from ``Task.base``."""
        ...

    async def element_list(
        self, task: int, states: frozenset[State], after_index: int, limit: int
    ) -> list[Element]: ...
    async def attempt_list(self, key: ElementKey) -> list[Attempt]: ...
    async def event_list(self, after_seq: int, limit: int, task: int | None = None) -> list[Event]:
        """Events with ``seq`` above ``after_seq``, ascending; raises :class:`CursorTooOld` below the oldest kept."""
        ...

    async def event_oldest_seq(self) -> int: ...
    async def counts(self) -> Counts: ...
    async def idempotency_get(self, key: IdempotencyKey) -> Accepted | None:
        """What a key was answered with, to re-read after a lost answer; raises IdempotencyConflict on another body."""
        ...

    # maintenance
    async def task_delete_ended(self, before: float, limit: int) -> list[int]:
        """Remove tasks ended before an instant with elements, attempts and results, the longest ended first.

        Kept is what a task depends on that may still ask how it ended. Idempotency keys and commands of a week ago go
        too. Returns the ids removed.
        """
        ...

    async def event_delete_before(self, before: float, limit: int) -> int:
        """Remove the events of at most ``limit`` commits whose last event is older than an instant; how many events."""
        ...

    async def blob_list_referenced(
        self, submitted_before: float, after_id: int, limit: int
    ) -> list[tuple[int, str, Bodies]]:
        """(task, project, the bodies that it or its attempts refer to), in id order: a page of a mark."""
        ...

    async def space_return(self) -> None:
        """Give freed space back to the file system in a small step; also where the WAL is checkpointed."""
        ...

    async def backup(self, path: Path) -> None:
        """A consistent, checked copy made through the writer; refuses to overwrite."""
        ...
