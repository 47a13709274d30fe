"""Columns ↔ core: batches travel as one array for each column, because that is one statement however many rows there are."""

from collections.abc import Iterable, Sequence
from typing import Any

from jarvis.core.attempt import Attempt
from jarvis.core.changes import Changes
from jarvis.core.task import Element, NewTask, Task
from jarvis.state.persistence import attempt_detail, element_to_row, encode, solo_column

Columns = list[list[Any]]


def columns(rows: Iterable[Sequence[object]], width: int) -> Columns:
    """The transpose; as many empty columns for no rows."""
    found = [list(column) for column in zip(*rows, strict=True)]
    return found or [[] for _ in range(width)]


def task_columns(tasks: Iterable[Task], solo: dict[int, Element]) -> Columns:
    """Of tasks, and of those of their only elements that are named here."""
    return columns(
        [
            (t.id, str(t.state), str(t.base), encode(t.counts) if t.counts else None, t.next_position, t.reason,
             t.started_at, t.ended_at, solo_column(solo[t.id]) if t.id in solo else None)
            for t in tasks
        ],
        9,
    )  # fmt: skip


def solo_columns(elements: Iterable[Element]) -> Columns:
    return columns([(e.task, str(e.state), e.reason, solo_column(e)) for e in elements], 4)


def element_columns(elements: Iterable[Element]) -> Columns:
    return columns([element_to_row(e) for e in elements], 16)


def new_attempt_columns(attempts: Iterable[Attempt]) -> Columns:
    return columns(
        [
            (a.task, a.index, a.attempt, a.token, a.node, a.number, str(a.state), _text(a.cause), a.exit_code, a.signal,
             a.assigned_at, a.started_at, a.ended_at, attempt_detail(a), a.result)
            for a in attempts
        ],
        15,
    )  # fmt: skip


def attempt_columns(attempts: Iterable[Attempt]) -> Columns:
    return columns(
        [
            (a.task, a.index, a.attempt, a.token, str(a.state), _text(a.cause), a.exit_code, a.signal, a.started_at,
             a.ended_at, attempt_detail(a), a.result)
            for a in attempts
        ],
        12,
    )  # fmt: skip


def node_columns(changes: Changes) -> Columns:
    return columns([(n.id, n.seen_at, encode(n.health), encode(n)) for n in changes.nodes.values()], 4)


def new_task_columns(ids: Sequence[int], tasks: Sequence[tuple[NewTask, bytes]]) -> Columns:
    """Of (task, its encoded spec)."""
    return columns(
        [
            (ident, new.uuid, new.project, new.user, new.spec.name, new.spec.queue, new.retry_of, spec)
            for ident, (new, spec) in zip(ids, tasks, strict=True)
        ],
        8,
    )  # fmt: skip


def _text(value: object) -> str | None:
    return None if value is None else str(value)
