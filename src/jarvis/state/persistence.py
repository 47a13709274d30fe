"""Rows ↔ core: what stores share about the shape of what they keep."""

from collections.abc import Iterable
from functools import lru_cache
from operator import attrgetter

import msgspec

from jarvis.core.attempt import Attempt, Output, Placement, Rank, Usage
from jarvis.core.changes import Changes
from jarvis.core.errors import InvalidValue
from jarvis.core.ids import SOLO
from jarvis.core.states import Cause, State
from jarvis.core.task import Element, NewTask, Task, TaskSpec
from jarvis.state.store import Bodies, Live, Outcome, Store, Submission, TaskFilter

INCARNATION_EPOCH = 1_735_689_600
"""2025-01-01T00:00:00Z: an incarnation is at least the seconds since then, so that a forgotten one is not met again."""
ID_JUMP = 1_000_000
"""Ids skipped by a restore or a promotion, so that no id is ever given twice."""

KEY_S = 7 * 86400.0
"""How long an idempotency key is remembered."""
REPLICA_S = 3600.0
"""How long a server that is not seen any more is remembered."""
AWAITING = frozenset({State.SUBMITTED, State.WAITING, State.HELD})
"""Tasks that may still ask how what they depend on has ended; from every later state nobody asks again."""

encode = msgspec.msgpack.Encoder().encode
_spec = msgspec.msgpack.Decoder(TaskSpec)
_beside_spec, _spec_of = attrgetter("uuid", "project", "user", "retry_of"), attrgetter("spec")
SHARED_BYTES = 2048
"""Specs up to this size that are the same are kept once: those of one submission differ seldom."""


class AttemptDetail(msgspec.Struct, gc=False, array_like=True, omit_defaults=True):
    """What is never filtered on: packed into one column."""

    placements: tuple[Placement, ...] = ()
    message: str = ""
    usage: Usage | None = None
    stdout: Output | None = None
    stderr: Output | None = None
    result_digest: str | None = None
    output: bytes | None = None
    artifacts: str | None = None
    ranks: tuple[Rank, ...] = ()


attempt_detail_of = msgspec.msgpack.Decoder(AttemptDetail).decode


def new_task(ident: int, new: NewTask, now: float) -> Task:
    return Task(
        id=ident, uuid=new.uuid, project=new.project, user=new.user, spec=new.spec, submitted_at=now,
        retry_of=new.retry_of,
    )  # fmt: skip


def specs_of(submission: Submission) -> list[bytes] | InvalidValue:
    """Each task's spec as it is kept; an error for the whole submission when one of them cannot be kept."""
    try:
        encode(list(map(_beside_spec, submission.tasks)))
        return list(map(encode, map(_spec_of, submission.tasks)))
    except UnicodeEncodeError as error:
        return InvalidValue("task", error.object, "text that UTF-8 can hold")
    except OverflowError:
        return InvalidValue("task", "a number", "within 64 bits")


def spec_tail(spec: TaskSpec) -> bytes:
    """What its encoding ends with, behind what is a task's own: its name and what it runs. Tasks of a submission often share it."""
    bare = msgspec.structs.replace(spec, name="", command=None, script=None, function=None, container=None)
    return encode(bare).partition(b"\xa4name\xa0")[2]


async def live_page(store: Store, after_id: int, limit: int) -> Live:
    """A page of a rebuild where nobody else writes, so that there is nothing to read ahead."""
    tasks = await store.task_list_live(after_id, limit)
    ids = [task.id for task in tasks]
    return Live(tasks, await store.element_list_live(ids), await store.attempt_list_current(ids))


def matches(where: TaskFilter, task: Task) -> bool:
    """The filter as a predicate; the SQL of the other stores says the same."""
    name = where.name
    ended = task.ended_at
    return (
        (not where.states or task.state in where.states)
        and where.project in (None, task.project)
        and (where.projects is None or task.project in where.projects)
        and where.user in (None, task.user)
        and where.queue in (None, task.spec.queue)
        and (name is None or (task.spec.name.startswith(name[:-1]) if name.endswith("*") else task.spec.name == name))
        and (where.submitted_after is None or task.submitted_at > where.submitted_after)
        and (where.submitted_before is None or task.submitted_at < where.submitted_before)
        and (where.ended_after is None or (ended is not None and ended > where.ended_after))
    )


def blobs_of(spec: TaskSpec, attempts: Iterable[Attempt]) -> Bodies:
    """All bodies that a task and its attempts refer to."""
    found, manifests = set(spec.bodies.values()), set(spec.push)
    for attempt in attempts:
        if attempt.artifacts is not None:
            manifests.add(attempt.artifacts)
        outputs = [
            attempt.stdout,
            attempt.stderr,
            *(out for rank in attempt.ranks for out in (rank.stdout, rank.stderr)),
        ]
        found |= {digest for out in outputs if out for _, digest in out.chunks}
        if attempt.result_digest is not None:
            found.add(attempt.result_digest)
    return Bodies(frozenset(found | manifests), frozenset(manifests))


def outcome_of(task: Task, last: Attempt) -> Outcome:
    """Of a task that has ended with this attempt."""
    return Outcome(
        task.id, task.project, task.state, str(last.cause or ""), last.message, last.result, last.result_digest, last.output,
        last.artifacts,
    )  # fmt: skip


_STATES = {state.value: state for state in State}
"""Faster than asking the class, which counts when a new leader reads everything."""


def task_from_row(row: tuple) -> Task:  # type: ignore[type-arg]
    counts = msgspec.msgpack.decode(row[6], type=dict[State, int]) if row[6] else {}
    return Task(
        id=row[0], uuid=row[1], project=row[2], user=row[3], state=_STATES[row[4]], base=_STATES[row[5]], counts=counts,
        next_position=row[7], reason=row[8], retry_of=row[9], submitted_at=row[10], started_at=row[11], ended_at=row[12],
        spec=_shared_spec(row[13]) if len(row[13]) <= SHARED_BYTES else _spec.decode(row[13]),
    )  # fmt: skip


@lru_cache(1024)
def _shared_spec(packed: bytes) -> TaskSpec:
    return _spec.decode(packed)


def element_to_row(e: Element) -> tuple[object, ...]:
    return (
        e.task, e.index, str(e.state), e.attempt, e.token, e.node, e.failures, e.infra_losses,
        encode(e.lost_on) if e.lost_on else None, e.eligible_at, e.reason, e.exit_code, e.signal, e.cause, e.wish,
        e.preemptions,
    )  # fmt: skip


def element_from_row(row: tuple) -> Element:  # type: ignore[type-arg]
    return Element(
        task=row[0], index=row[1], state=_STATES[row[2]], attempt=row[3], token=row[4], node=row[5], failures=row[6],
        infra_losses=row[7], lost_on=tuple(msgspec.msgpack.decode(row[8])) if row[8] else (), eligible_at=row[9],
        reason=row[10], exit_code=row[11], signal=row[12], cause=row[13], wish=row[14],
        preemptions=row[15],
    )  # fmt: skip


class SoloElement(msgspec.Struct, gc=False, array_like=True, omit_defaults=True):
    """What the row of a task without an array says of its only element; state and reason are the task's own."""

    attempt: int = 0
    token: int = 0
    node: int | None = None
    exit_code: int | None = None
    cause: str | None = None
    signal: int | None = None
    failures: int = 0
    infra_losses: int = 0
    preemptions: int = 0
    lost_on: tuple[int, ...] = ()
    eligible_at: float | None = None
    wish: str = ""


_solo = msgspec.msgpack.Decoder(SoloElement)


def solo_column(e: Element) -> bytes:
    return encode(
        SoloElement(
            e.attempt, e.token, e.node, e.exit_code, e.cause, e.signal, e.failures, e.infra_losses, e.preemptions, e.lost_on,
            e.eligible_at, e.wish,
        )
    )  # fmt: skip


def solo_from_row(row: tuple) -> Element:  # type: ignore[type-arg]
    """Of (task, its state, its reason, what it says of its element)."""
    s = _solo.decode(row[3])
    return Element(
        task=row[0], index=SOLO, state=_STATES[row[1]], reason=row[2], attempt=s.attempt, token=s.token, node=s.node,
        exit_code=s.exit_code, cause=s.cause, signal=s.signal, failures=s.failures, infra_losses=s.infra_losses,
        preemptions=s.preemptions, lost_on=s.lost_on, eligible_at=s.eligible_at, wish=s.wish,
    )  # fmt: skip


def in_order(elements: Iterable[Element]) -> list[Element]:
    """By task and index, each once: the last one counts."""
    by_key = {element.key: element for element in elements}
    return [by_key[key] for key in sorted(by_key)]


def split_elements(changes: Changes) -> tuple[dict[int, Element], list[Element]]:
    """The only elements of their tasks, by task, and those of arrays."""
    solo, of_arrays = {}, []
    for (task, index), element in changes.elements.items():
        if index == SOLO:
            solo[task] = element
        else:
            of_arrays.append(element)
    return solo, of_arrays


def attempt_detail(a: Attempt) -> bytes:
    detail = AttemptDetail(
        a.placements, a.message, a.usage, a.stdout, a.stderr, a.result_digest, a.output, a.artifacts, a.ranks
    )
    return encode(detail)


def attempt_from_row(row: tuple) -> Attempt:  # type: ignore[type-arg]
    detail = attempt_detail_of(row[13])
    return Attempt(
        task=row[0], index=row[1], attempt=row[2], token=row[3], node=row[4], number=row[5], state=State(row[6]),
        cause=None if row[7] is None else Cause(row[7]), exit_code=row[8], signal=row[9], assigned_at=row[10],
        started_at=row[11], ended_at=row[12], result=row[14], placements=detail.placements, message=detail.message,
        usage=detail.usage, stdout=detail.stdout, stderr=detail.stderr, result_digest=detail.result_digest,
        output=detail.output, artifacts=detail.artifacts, ranks=detail.ranks,
    )  # fmt: skip
