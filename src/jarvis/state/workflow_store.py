"""PORT: the part of the store that keeps workflows and their steps. Who writes what is as with tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from jarvis.core.command import NewCommand
from jarvis.core.schedule import Schedule
from jarvis.core.states import State
from jarvis.core.workflow import Kept, NewWorkflow, Step, Workflow

if TYPE_CHECKING:
    from jarvis.state.store import Accepted, IdempotencyKey


@dataclass(frozen=True, slots=True)
class WorkflowFilter:
    """All given conditions must hold; empty means any."""

    states: frozenset[State] = frozenset()
    project: str | None = None
    projects: frozenset[str] | None = None
    """Projects the asker may see; None for all."""
    user: str | None = None
    name: str | None = None
    """Exact, or with ``*`` as a wildcard at the end."""


class WorkflowStore(Protocol):
    """Errors as of the whole store."""

    async def workflow_insert(self, new: NewWorkflow, key: "IdempotencyKey | None" = None) -> "Accepted":
        """Insert in state ``submitted`` together with the rows that it takes over; ids come from the counter of tasks.

        A repeat of the key gets the first answer; raises IdempotencyConflict for another body, InvalidValue for what cannot
        be kept.
        """
        ...

    async def task_ids_reserve(self, count: int) -> Sequence[int]:
        """Ids that nobody else is given, for tasks that the leader makes; those it does not use are never used."""
        ...

    async def workflow_list_submitted(self, limit: int) -> list[Workflow]:
        """Rows in state ``submitted``, oldest first."""
        ...

    async def workflow_list_live(self, after_id: int, limit: int) -> list[Workflow]:
        """Those that have not ended, with id above ``after_id``, in id order: the pages of a rebuild."""
        ...

    async def workflow_get_many(self, ids: Sequence[int]) -> list[Workflow]:
        """Those that exist, in the order asked."""
        ...

    async def workflow_list(self, where: WorkflowFilter, before_id: int | None, limit: int) -> list[Workflow]:
        """Newest first, ids below ``before_id``."""
        ...

    async def step_list(self, workflow: int, after_path: str, limit: int) -> list[Step]:
        """Steps with a row, in the order of their paths' bytes."""
        ...

    async def step_counts(self, workflow: int) -> dict[State, int]:
        """How many of its rows are in which state."""
        ...

    async def step_get(self, workflow: int, path: str) -> Step | None: ...
    async def kept_get(self, project: str, key: str) -> Kept | None:
        """What a step with a cache gave; the last one of that key."""
        ...

    async def kept_delete(self, expired_before: float, limit: int) -> int:
        """Remove what expired before an instant, the longest expired first; how many."""
        ...

    async def schedule_insert(self, schedule: Schedule, key: "IdempotencyKey | None" = None) -> "Accepted":
        """Its id, from a counter of its own; raises Conflict when its project has one of that name. Keys as for workflows."""
        ...

    async def command_insert_once(self, command: NewCommand, key: "IdempotencyKey") -> "Accepted":
        """The id of a command, which a repeat of the key does not insert again."""
        ...

    async def schedule_list(self, after_id: int = 0) -> list[Schedule]:
        """Those with id above ``after_id``, by id."""
        ...

    async def workflow_delete_ended(self, before: float, limit: int) -> list[int]:
        """Remove workflows that ended before an instant, with their steps, the longest ended first; the ids removed."""
        ...
