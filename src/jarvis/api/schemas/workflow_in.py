"""What the routes of workflows take. A document is read by ``dag.document``, which knows every mistake's place."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from jarvis.api.schemas.task_in import Strict


class WorkflowIn(BaseModel):
    """A document (its steps are described in docs/workflows.md), or ``{"document": TEXT or object, "params": {…}}``.
    ``reuse: false`` beside ``document``: steps with a cache run in any case."""

    model_config = ConfigDict(extra="allow")

    name: str = "workflow"
    steps: list[dict[str, Any]] = []
    params: dict[str, Any] = {}


class RetryWorkflowIn(Strict):
    """``again``: outermost steps that run again, with all that follow from them, though they went well."""

    again: Annotated[list[str], Field(max_length=1000)] = []


class DecideIn(Strict):
    """Of a step that waits for an approval."""

    step: Annotated[str, Field(min_length=1, max_length=2000)]
    approve: bool = True
