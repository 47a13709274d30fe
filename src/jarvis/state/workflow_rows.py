"""Rows ↔ workflows: what stores share about their shape."""

import msgspec

from jarvis.core.errors import Conflict, InvalidValue
from jarvis.core.schedule import Schedule
from jarvis.core.states import State
from jarvis.core.workflow import Kept, NewWorkflow, Step, StepDetail, Workflow, WorkflowSpec
from jarvis.state.workflow_store import WorkflowFilter

_encode = msgspec.msgpack.Encoder().encode
_spec = msgspec.msgpack.Decoder(WorkflowSpec)
_schedule = msgspec.msgpack.Decoder(Schedule)
_detail = msgspec.msgpack.Decoder(StepDetail)


def workflow_spec(new: NewWorkflow) -> bytes:
    """The spec as it is kept; raises :class:`InvalidValue` when it cannot be."""
    try:
        _encode((new.uuid, new.project, new.user))
        return _encode(new.spec)
    except UnicodeEncodeError as error:
        raise InvalidValue("workflow", error.object, "text that UTF-8 can hold") from None
    except OverflowError:
        raise InvalidValue("workflow", "a number", "within 64 bits") from None


def workflow_from_row(row: tuple) -> Workflow:  # type: ignore[type-arg]
    return Workflow(
        id=row[0], uuid=row[1], project=row[2], user=row[3], state=State(row[4]), wish=row[5], reason=row[6],
        rerun_of=row[7], submitted_at=row[8], started_at=row[9], ended_at=row[10], output=row[11],
        spec=_spec.decode(row[12]),
    )  # fmt: skip


def step_to_row(s: Step) -> tuple[object, ...]:
    return (
        s.workflow, s.path, str(s.state), s.task, s.reason, s.started_at, s.ended_at, s.output, _encode(s.detail),
    )  # fmt: skip


def step_from_row(row: tuple) -> Step:  # type: ignore[type-arg]
    return Step(
        workflow=row[0], path=row[1], state=State(row[2]), task=row[3], reason=row[4], started_at=row[5],
        ended_at=row[6], output=row[7], detail=_detail.decode(row[8]),
    )  # fmt: skip


def kept_to_row(k: Kept) -> tuple[object, ...]:
    return (k.project, k.key, k.workflow, k.task, k.output, k.result, k.at, k.expires_at)


def kept_from_row(row: tuple) -> Kept:  # type: ignore[type-arg]
    return Kept(
        project=row[0], key=row[1], workflow=row[2], task=row[3], output=row[4], result=row[5], at=row[6],
        expires_at=row[7],
    )  # fmt: skip


def name_taken(schedule: Schedule) -> Conflict:
    return Conflict(
        f"project {schedule.project} has a schedule {schedule.name!r}", "remove it first, or take another name"
    )


def schedule_from_row(row: tuple) -> Schedule:  # type: ignore[type-arg]
    schedule = _schedule.decode(row[1])
    schedule.id = row[0]
    return schedule


def schedule_body(schedule: Schedule) -> bytes:
    """As it is kept; raises :class:`InvalidValue` when it cannot be."""
    try:
        return _encode(schedule)
    except UnicodeEncodeError as error:
        raise InvalidValue("schedule", error.object, "text that UTF-8 can hold") from None


def matches(where: WorkflowFilter, workflow: Workflow) -> bool:
    """The filter as a predicate; the SQL of the other stores says the same."""
    name, has = where.name, workflow.spec.name
    return (
        (not where.states or workflow.state in where.states)
        and where.project in (None, workflow.project)
        and (where.projects is None or workflow.project in where.projects)
        and where.user in (None, workflow.user)
        and (name is None or (has.startswith(name[:-1]) if name.endswith("*") else has == name))
    )
