"""Rows of new tasks: many that are alike in one statement, and what their specs end with kept once (ADR-0031)."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from jarvis.core.errors import IdempotencyConflict, InvalidValue, JarvisError
from jarvis.core.task import NewTask
from jarvis.state.persistence import encode, spec_tail, specs_of
from jarvis.state.store import Accepted, Submission
from jarvis.state.stores.sqlite.alike import write_alike
from jarvis.state.stores.sqlite.file import Q
from jarvis.state.stores.sqlite.workflows import answered

TAIL_TASKS, TAIL_BYTES = 8, 64
"""A tail is kept by itself where so many tasks of a submission have it and it is so long, as looking it up costs a few rows."""
_head, _uuid = attrgetter("project", "user", "spec.name", "spec.queue", "retry_of"), attrgetter("uuid")


@dataclass(slots=True)
class Run:
    """Tasks that differ in uuid and spec alone: in turn they are ``own``. Each spec goes on with ``tail``."""

    head: tuple[str, str, str, str, int | None]
    own: list[object]
    tail: bytes


def runs_of(submission: Submission) -> list[Run] | InvalidValue:
    """Most submissions are one run."""
    specs = specs_of(submission)
    if isinstance(specs, InvalidValue):
        return specs
    tasks, tails = submission.tasks, _tails(submission.tasks, specs)
    runs: list[Run] = []
    at = 0
    for (head, tail), alike in groupby(zip(map(_head, tasks), tails, strict=True)):
        end = at + len(list(alike))
        own: list[object] = [None] * (2 * (end - at))
        own[::2], own[1::2] = map(_uuid, tasks[at:end]), [spec[: len(spec) - len(tail)] for spec in specs[at:end]]
        runs.append(Run(head, own, tail))
        at = end
    return runs


def _tails(tasks: Sequence[NewTask], specs: list[bytes]) -> list[bytes]:
    """Of each spec, what its neighbours end with as well; nothing where that are too few, or it is too short."""
    tails: list[bytes] = []
    tail = b""
    for task, spec in zip(tasks, specs, strict=True):
        if not tail or not spec.endswith(tail):
            tail = spec_tail(task.spec)
        tails.append(tail)
    shared: list[bytes] = []
    for tail, same in groupby(tails):
        count = len(list(same))
        shared += [tail if count >= TAIL_TASKS and len(tail) >= TAIL_BYTES else b""] * count
    return shared


def insert(c: sqlite3.Connection, submission: Submission, runs: list[Run], now: float) -> Accepted | JarvisError:
    """Unless its key was answered before."""
    key = submission.idempotency
    if key is not None:
        try:
            before = answered(c, key)
        except IdempotencyConflict as error:
            return error
        if before is not None:
            return before
    for run in runs:
        write_alike(c, "task_insert", (*run.head, now, _number_of(c, run.tail)), run.own, 2)
    count = len(submission.tasks)
    last = c.execute(Q["task_last_id"]).fetchone()
    ids = range(last[0] - count + 1, last[0] + 1) if count else range(0)
    if key is not None:
        row = (key.principal, key.project, key.route, key.key, key.body_hash, now, encode((ids.start, ids.stop)))
        c.execute(Q["idempotency_insert"], row)
    return Accepted(ids, now)


def _number_of(c: sqlite3.Connection, tail: bytes) -> int | None:
    if not tail:
        return None
    c.execute(Q["spec_tail_insert"], (tail,))
    return int(c.execute(Q["spec_tail_get"], (tail,)).fetchone()[0])
