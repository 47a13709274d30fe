"""What ``/schedules`` takes and gives."""

from typing import Annotated, Any, Literal

from pydantic import Field

from jarvis.api.schemas.answers import Answer, Count, Instant
from jarvis.api.schemas.task_in import Duration, Short, Strict, Word
from jarvis.api.schemas.task_in import Instant as InstantIn
from jarvis.api.schemas.values import rfc3339
from jarvis.core.schedule import EndState, OnFile, OnWebhook, OnWorkflow, Schedule
from jarvis.dag.schedules import upcoming


class OnWorkflowIn(Strict):
    """The end of workflows of this name. ``failed``: also out of time or lost; ``any``: also cancelled."""

    name: Word
    state: EndState = "succeeded"


class OnWebhookIn(Strict):
    """A signed request to ``/schedules/{ident}/hook``. Without a ``secret`` one is made, and told this once."""

    secret: Annotated[str, Field(min_length=16, max_length=200)] | None = None


class OnFileIn(Strict):
    """Files that arrive in a directory: ``/in/*.csv``. Only the name may be a pattern. ``node``: on which node, by its name;
    without one on the leader's machine."""

    path: Annotated[str, Field(min_length=1, max_length=1000)]
    node: Word | None = None


class ScheduleIn(Strict):
    """A name, a rule (``cron`` with ``zone``, ``every``, ``on_workflow``, ``on_webhook`` or ``on_file``), and a ``task`` or a
    ``workflow`` (with ``params``)."""

    name: Word
    cron: Short | None = None
    zone: Short = "UTC"
    every: Duration | None = None
    on_workflow: OnWorkflowIn | None = None
    on_webhook: OnWebhookIn | None = None
    on_file: OnFileIn | None = None
    catch_up: Literal["skip", "last", "all"] = "last"
    overlap: Literal["allow", "skip"] = "allow"
    project: Word | None = None
    task: dict[str, Any] | None = None
    workflow: dict[str, Any] | str | None = None
    params: dict[str, Any] = {}


class BackfillIn(Strict):
    """A run for each nominal time from ``begin`` until before ``end``, at most 1,000."""

    begin: InstantIn
    end: InstantIn


class OnWorkflowOut(Answer):
    name: str
    state: EndState


class NewWebhookOut(Answer):
    """``secret``: that was made, told this once."""

    path: str
    secret: str | None


class OnWebhookOut(Answer):
    """The path that signed requests are sent to. The secret is not shown."""

    path: str


class OnFileOut(Answer):
    path: str
    node: str | None


class ScheduleOut(Answer):
    id: int
    name: str
    project: str
    user: str
    cron: str | None
    zone: str
    every: float | None
    on_workflow: OnWorkflowOut | None
    on_webhook: OnWebhookOut | None
    on_file: OnFileOut | None
    catch_up: str
    overlap: str
    kind: Annotated[str, Field(pattern="^(task|workflow)$")]
    paused: bool
    created_at: Instant
    next_at: Instant
    problem: str
    upcoming: list[str]
    last_at: Instant
    last_run: int | None
    runs: Count
    skipped: Count


class ScheduleList(Answer):
    items: list[ScheduleOut]


class NewSchedule(Answer):
    id: int
    next_at: Instant
    on_webhook: NewWebhookOut | None


class Told(Answer):
    id: str
    command: int


def hook_path(ident: int) -> str:
    return f"/api/v1/schedules/{ident}/hook"


def _file_out(on: OnFile) -> dict[str, Any]:
    return {"path": f"{on.directory}/{on.pattern}", "node": on.node or None}


def schedule_out(schedule: Schedule, now: float) -> dict[str, Any]:
    rule = schedule.rule
    return {
        "id": schedule.id,
        "name": schedule.name,
        "project": schedule.project,
        "user": schedule.user,
        "cron": rule.cron,
        "zone": rule.zone,
        "every": rule.every,
        "on_workflow": {"name": rule.on.name, "state": rule.on.state} if isinstance(rule.on, OnWorkflow) else None,
        "on_webhook": {"path": hook_path(schedule.id)} if isinstance(rule.on, OnWebhook) else None,
        "on_file": _file_out(rule.on) if isinstance(rule.on, OnFile) else None,
        "catch_up": schedule.catch_up,
        "overlap": schedule.overlap,
        "kind": "task" if schedule.task is not None else "workflow",
        "paused": schedule.paused,
        "created_at": rfc3339(schedule.created_at),
        "next_at": None if schedule.paused else rfc3339(schedule.next_at),
        "problem": schedule.problem,
        "upcoming": [rfc3339(at) for at in upcoming(rule, now, 3)],
        "last_at": rfc3339(schedule.last_at),
        "last_run": schedule.last_run,
        "runs": schedule.runs,
        "skipped": schedule.skipped,
    }
