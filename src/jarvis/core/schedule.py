"""Schedule: a spec and a rule; at each nominal time of the rule it makes a task or a workflow, once."""

from typing import Literal

import msgspec

from jarvis.core.task import TaskSpec
from jarvis.core.workflow import WorkflowSpec

CatchUp = Literal["skip", "last", "all"]
Overlap = Literal["allow", "skip"]


class Rule(msgspec.Struct, frozen=True, omit_defaults=True):
    """Either five fields of cron in a time zone, or every so many seconds since ``start``: by default at
    whole minutes, hours and days of UTC."""

    cron: str | None = None
    zone: str = "UTC"
    every: float | None = None
    start: float = 0.0


class Schedule(msgspec.Struct, kw_only=True):
    """``catch_up``: what becomes of nominal times that passed while nobody led or it was paused. ``overlap``: whether a run may
    begin while the one before goes on."""

    id: int
    name: str
    project: str
    user: str
    rule: Rule
    task: TaskSpec | None = None
    workflow: WorkflowSpec | None = None
    catch_up: CatchUp = "last"
    overlap: Overlap = "allow"
    paused: bool = False
    created_at: float
    next_at: float | None = None
    last_at: float | None = None
    """Nominal time of the last run."""
    last_run: int | None = None
    """The task or workflow that it made."""
    runs: int = 0
    skipped: int = 0
    """Nominal times without a run."""
