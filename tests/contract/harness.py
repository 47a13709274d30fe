"""What the contract of stores is told with: stores to parametrise over, rows, and short verbs."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

from tests.servers.postgres import shared

from jarvis.core.attempt import Attempt, Placement
from jarvis.core.changes import Changes
from jarvis.core.event import Event
from jarvis.core.ids import SOLO
from jarvis.core.states import State
from jarvis.core.task import Element, NewTask, Task, TaskSpec
from jarvis.state.coordination import Leadership
from jarvis.state.store import Accepted, IdempotencyKey, Store, Submission
from jarvis.state.stores.memory import MemoryStore
from jarvis.state.stores.postgres import PostgresStore
from jarvis.state.stores.sqlite import SqliteStore

DAY = 86400.0


class Ticking:
    """A clock that tests turn by hand."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


STORES: dict[str, Callable[[Path, Ticking], Store]] = {
    "memory": lambda _, clock: MemoryStore(clock),
    "sqlite": lambda directory, clock: SqliteStore(directory / "state", clock=clock),
    "postgres": lambda _, clock: PostgresStore(shared().database(), clock=clock),
}
"""Every adapter of the port, by name."""


def new(name: str = "t", project: str = "p", user: str = "ann", retry_of: int | None = None, **spec: object) -> NewTask:
    wanted = TaskSpec(name=name, command=("true",), **spec)  # type: ignore[arg-type]
    return NewTask(uuid="u", project=project, user=user, retry_of=retry_of, spec=wanted)


def key(value: str = "k", body: str = "b") -> IdempotencyKey:
    return IdempotencyKey("ann", "p", "/tasks", value, body)


async def insert(store: Store, *tasks: NewTask) -> list[int]:
    (answer,) = await store.task_insert_many([Submission(tasks)])
    assert isinstance(answer, Accepted), answer
    return list(answer.ids)


async def commit(store: Store, lead: Leadership, **changes: object) -> None:
    await store.leader_commit(lead, Changes(**changes))  # type: ignore[arg-type]


async def move(store: Store, lead: Leadership, ident: int, state: State, **other: object) -> Task:
    """Commit a task in another state, the way a leader does: as it was, changed."""
    (task,) = await store.task_get_many([ident])
    task.state = state
    for name, value in other.items():
        setattr(task, name, value)
    await commit(store, lead, tasks={ident: task})
    return task


async def end(store: Store, lead: Leadership, ident: int, at: float, state: State = State.SUCCEEDED) -> None:
    await move(store, lead, ident, state, ended_at=at)


def attempt(task: int, number: int = 1, token: int = 77, index: int = SOLO, nth: int = 1, **other: object) -> Attempt:
    values = {"placements": (Placement(0, 1, {"cpu": 1000}),)} | other
    return Attempt(task=task, index=index, attempt=nth, token=token, node=1, number=number, assigned_at=1.0, **values)  # type: ignore[arg-type]


def element(task: int, state: State = State.ASSIGNED, index: int = SOLO, nth: int = 1, **other: object) -> Element:
    values = {"token": 77, "node": 1} | other
    return Element(task=task, index=index, state=state, attempt=nth, **values)  # type: ignore[arg-type]


def event(seq: int, task: int = 0, at: float = 1.0, kind: str = "queued") -> Event:
    return Event(seq, at, kind, task)


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
