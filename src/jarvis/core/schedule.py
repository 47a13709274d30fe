"""Schedule: a spec and a rule; at each nominal time of the rule, or each time that something happens, it makes a task or a
workflow, once."""

from typing import Literal

import msgspec

from jarvis.core.bounds import Whole
from jarvis.core.task import TaskSpec
from jarvis.core.workflow import WorkflowSpec

CatchUp = Literal["skip", "last", "all"]
Overlap = Literal["allow", "skip"]


EndState = Literal["succeeded", "failed", "any"]


class OnWorkflow(msgspec.Struct, frozen=True, omit_defaults=True, tag="workflow", tag_field="kind"):
    """The end of each workflow of its project that has this name. ``failed``: also one that ran out of time or was lost;
    ``any``: also one that was cancelled."""

    name: str
    state: EndState = "succeeded"


class OnWebhook(msgspec.Struct, frozen=True, tag="webhook", tag_field="kind"):
    """A signed request. The ``secret`` is kept as it is, because signatures are worked out from it, and never shown again."""

    secret: str


class OnFile(msgspec.Struct, frozen=True, omit_defaults=True, tag="file", tag_field="kind"):
    """The arrival of files in a directory whose names match ``pattern``, as shells do it: on the node of that name, or on the
    machine of the leader when none is named."""

    directory: str
    pattern: str
    node: str = ""


Stamp = tuple[Whole, Whole]
"""Of a file: when it was last changed, in nanoseconds since 1970, and its size in bytes."""


class Rule(msgspec.Struct, frozen=True, omit_defaults=True):
    """Five fields of cron in a time zone, or every so many seconds since ``start`` (by default at whole minutes, hours and days
    of UTC), or ``on`` what happens."""

    cron: str | None = None
    zone: str = "UTC"
    every: float | None = None
    start: float = 0.0
    on: OnWorkflow | OnWebhook | OnFile | None = None


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
    """Nominal times, or events, without a run."""
    files: dict[str, Stamp] = {}
    """By name: the files that made runs, or were left out."""
    problem: str = ""
    """Why nobody can look for files at present."""
