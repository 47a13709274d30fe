"""What answers about workflows look like, for the OpenAPI document."""

from typing import Any

from jarvis.api.schemas.answers import Answer, Count, FieldProblem, Instant
from jarvis.core.states import State


class SubmittedWorkflow(Answer):
    id: int
    state: str


class WorkflowOut(Answer):
    id: int
    uuid: str
    name: str
    description: str
    state: State
    reason: str
    ended: bool
    user: str
    project: str
    params: dict[str, Any]
    output: Any
    rerun_of: int | None
    submitted_at: Instant
    started_at: Instant
    ended_at: Instant
    steps: dict[str, Count] | None


class WorkflowPage(Answer):
    items: list[WorkflowOut]
    next: str | None


class StepOut(Answer):
    """A step that has left ``waiting``, an element of a fan-out or an iteration of a loop."""

    path: str
    state: State
    task: int | None
    reason: str
    started_at: Instant
    ended_at: Instant
    output: Any
    case: str | None
    by: str | None
    wake_at: Instant
    reused: int | None
    failures: Count
    artifacts: str | None


class StepPage(Answer):
    items: list[StepOut]
    next: str | None


class EdgeOut(Answer):
    step: str
    on: str


class GraphStep(Answer):
    """A declared step."""

    id: str
    path: str
    kind: str
    phase: str
    depends_on: list[EdgeOut]
    for_each: bool
    loop: bool
    state: State
    task: int | None
    reason: str
    started_at: Instant
    ended_at: Instant
    reused: int | None
    steps: list["GraphStep"]


class LinkOut(Answer):
    """One step of the chain that the workflow took its time from."""

    path: str
    waited_s: float
    took_s: float


class Graph(Answer):
    id: int
    state: State
    steps: list[GraphStep]
    critical_path: list[LinkOut]


class Validation(Answer):
    valid: bool
    problems: list[FieldProblem]
    levels: list[list[str]]
    order: list[str]
    steps: Count
