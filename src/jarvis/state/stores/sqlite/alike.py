"""Many rows in one statement, and what tasks and attempts that become alike have in common once.

Of ``executemany`` each row is a call from the interpreter into SQLite: that takes twice as long, and each lets go of the
interpreter and waits for it again beside a loop that is busy. One statement with many rows lets go once.
"""

import re
import sqlite3
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import groupby
from operator import attrgetter, itemgetter

import msgspec

from jarvis.core.attempt import Attempt
from jarvis.core.task import Element, Task
from jarvis.state.persistence import attempt_detail, element_to_row, encode, solo_column
from jarvis.state.stores.sqlite.database import run
from jarvis.state.stores.sqlite.file import Q

AT_ONCE = (1000, 500, 250, 100, 50, 10, 5, 1)
"""Rows of a statement. Each size is one that the driver keeps prepared, so there are few of them, and they are such as people's
batches have: beside a loop that never rests each statement waits for the interpreter as long as the commit takes."""
_ROW = re.compile(r"\(VALUES (\([?, ]*\))\)")
"""Its parameters have no numbers: the library looks each number up among all that a statement names, so that a thousand rows would
take the square of that."""


def write_alike(
    c: sqlite3.Connection, name: str, shared: tuple[object, ...], own: Sequence[object], width: int
) -> None:
    """Rows in order. ``shared`` are the numbered parameters of the query, the same for all rows; ``own`` the others, ``width`` of
    them for each row after another."""
    at, end = 0, len(own)
    most = c.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) - len(shared)
    for rows in AT_ONCE:
        step = rows * width
        if step > most:  # 999 in libraries before 2020
            continue
        while end - at >= step:
            c.execute(statement(name, rows), (*shared, *own[at : at + step]))
            at += step


@cache
def statement(name: str, rows: int) -> str:
    """The query with so many rows."""
    sql = Q[name]
    found = _ROW.search(sql)
    assert found is not None, f"{name} names the values of a row"
    return f"{sql[: found.end(1)]}{f', {found[1]}' * (rows - 1)}{sql[found.end(1) :]}"


# ---------------------------------------------------------------- rows of the leader

_same_attempt = attrgetter(*(name for name in Attempt.__struct_fields__ if name not in ("task", "index", "number")))
_same_end = attrgetter("state", "cause", "exit_code", "signal", "ended_at", "attempt", "token")
_same_row = attrgetter(*(name for name in Element.__struct_fields__ if name != "index"))
_same_task = attrgetter("state", "base", "counts", "next_position", "reason", "started_at", "ended_at")
_same_element = attrgetter(
    "attempt", "token", "node", "exit_code", "cause", "signal", "failures", "infra_losses", "preemptions", "lost_on",
    "eligible_at", "wish",
)  # fmt: skip


def insert_attempts(c: sqlite3.Connection, attempts: Iterable[Attempt]) -> None:
    """Raises IntegrityError where one is there already."""
    for _, group in groupby(attempts, _same_attempt):
        same = list(group)
        a = same[0]
        shared = (
            a.attempt, a.token, a.node, str(a.state), None if a.cause is None else str(a.cause), a.exit_code, a.signal,
            a.assigned_at, a.started_at, a.ended_at, attempt_detail(a), a.result,
        )  # fmt: skip
        write_alike(c, "attempt_insert", shared, [value for a in same for value in (a.task, a.index, a.number)], 3)


def update_attempts(c: sqlite3.Connection, attempts: Iterable[Attempt]) -> int:
    """How many were found under their token. The driver takes a bytearray as it is; bytes it looks up among its adapters."""
    before = c.total_changes
    for (state, cause, *rest), group in groupby(attempts, _same_end):
        shared = (str(state), None if cause is None else str(cause), *rest)
        own: list[object] = []
        for a in group:
            result = None if a.result is None else bytearray(a.result)
            own += (a.task, a.index, a.started_at, bytearray(attempt_detail(a)), result)
        write_alike(c, "attempt_update", shared, own, 5)
    return c.total_changes - before


def put_elements(c: sqlite3.Connection, elements: Iterable[Element]) -> None:
    """Of arrays."""
    for _, group in groupby(elements, _same_row):
        same = list(group)
        task, _, *rest = element_to_row(same[0])
        write_alike(c, "element_put", (task, *rest), [element.index for element in same], 1)


def update_tasks(c: sqlite3.Connection, tasks: Sequence[Task], elements: dict[int, Element]) -> None:
    """Tasks that become alike, as thousands of short ones do, change in one statement; ``elements``: the only ones of theirs that
    changed, by task."""
    own = [elements.get(task.id) for task in tasks]
    said = [None if element is None else _same_element(element) for element in own]
    alike: dict[tuple[object, ...], list[int]] = {}
    for _, group in groupby(zip(map(_same_task, tasks), said, tasks, own, strict=True), itemgetter(0, 1)):
        same = list(group)
        _, _, first, element = same[0]
        alike.setdefault(_task_row(first, element), []).extend(task.id for _, _, task, _ in same)
    run(c, "task_update", [(*row, ids[0]) for row, ids in alike.items() if len(ids) == 1])
    many = [(*row, msgspec.json.encode(ids).decode()) for row, ids in alike.items() if len(ids) > 1]
    run(c, "task_update_alike", many)


def _task_row(t: Task, solo: Element | None) -> tuple[object, ...]:
    counts = encode(t.counts) if t.counts else None
    element = None if solo is None else solo_column(solo)
    return (str(t.state), str(t.base), counts, t.next_position, t.reason, t.started_at, t.ended_at, element)
