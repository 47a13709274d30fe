"""What ``POST /tasks`` takes: two readers of one shape.

``TaskIn`` (Pydantic) explains mistakes and feeds the OpenAPI document; ``TaskFast`` (msgspec) reads batches an order of
magnitude faster. Both have the same fields, and both go through the same rules in ``task_rules``.
"""

from typing import Annotated, Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field

Short = Annotated[str, Field(max_length=4096)]
Number = int | float | str


class Strict(BaseModel):
    """No unknown fields and no guessing of types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class FunctionIn(Strict):
    """A Python function; ``args`` is base64 of what the client pickled."""

    code: str
    python: Short
    args: str | None = None
    args_digest: str | None = None
    environment: Short = ""
    fresh: bool = False
    max_calls: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None


class RetryIn(Strict):
    max_attempts: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    backoff_strategy: Literal["exponential", "linear", "constant"] = "exponential"
    backoff_base: Number = 1.0
    max_backoff: Number = 300.0
    retryable_errors: list[Short] = ["any"]
    non_retryable_errors: list[Short] = []


class TaskIn(Strict):
    """A task as users describe it. Durations: seconds or ``1h30m``; instants: RFC 3339, epoch seconds or ``+10m``."""

    name: str | None = None
    command: list[str] | str | None = None
    image: Short | None = None
    pull: Literal["missing", "always", "never"] = "missing"
    mounts: list[Short] = []
    network: Short = "bridge"
    script: str | None = None
    function: FunctionIn | None = None
    resources: dict[str, Number] = {}
    project: str | None = None
    queue: str = "default"
    priority: int | str = 0
    array: str | None = None
    entries: str | None = None
    after: list[Short] = []
    begin: Number | None = None
    deadline: Number | None = None
    time_limit: Number | None = None
    soft_limit: Number | None = None
    grace: Number = 10.0
    retry: RetryIn = RetryIn()
    on_lost: Literal["rerun", "fence", "never"] = "rerun"
    hold: bool = False
    constraints: list[Short] = []
    tolerations: list[Short] = []
    balancer: Short | None = None
    env: dict[str, str] = {}
    cwd: Short | None = None
    stdout: Short | None = None
    stderr: Short | None = None
    stdin: Short | None = None
    pty: bool = False
    output_limit: Number | None = None
    login_shell: bool = False


class FunctionFast(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    code: str
    python: str
    args: str | None = None
    args_digest: str | None = None
    environment: str = ""
    fresh: bool = False
    max_calls: Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)] | None = None


class RetryFast(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    max_attempts: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1
    backoff_strategy: Literal["exponential", "linear", "constant"] = "exponential"
    backoff_base: int | float | str = 1.0
    max_backoff: int | float | str = 300.0
    retryable_errors: list[str] = msgspec.field(default_factory=lambda: ["any"])
    non_retryable_errors: list[str] = []


_ONCE = RetryFast()


class TaskFast(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    name: str | None = None
    command: list[str] | str | None = None
    image: str | None = None
    pull: Literal["missing", "always", "never"] = "missing"
    mounts: list[str] = []
    network: str = "bridge"
    script: str | None = None
    function: FunctionFast | None = None
    resources: dict[str, int | float | str] = {}
    project: str | None = None
    queue: str = "default"
    priority: int | str = 0
    array: str | None = None
    entries: str | None = None
    after: list[str] = []
    begin: int | float | str | None = None
    deadline: int | float | str | None = None
    time_limit: int | float | str | None = None
    soft_limit: int | float | str | None = None
    grace: int | float | str = 10.0
    retry: RetryFast = _ONCE
    on_lost: Literal["rerun", "fence", "never"] = "rerun"
    hold: bool = False
    constraints: list[str] = []
    tolerations: list[str] = []
    balancer: str | None = None
    env: dict[str, str] = {}
    cwd: str | None = None
    stdout: str | None = None
    stderr: str | None = None
    stdin: str | None = None
    pty: bool = False
    output_limit: int | float | str | None = None
    login_shell: bool = False


class BatchFast(msgspec.Struct, forbid_unknown_fields=True):
    """Members stay raw, so that one bad member has a problem of its own."""

    tasks: list[msgspec.Raw]
    atomic: bool = False


class BatchIn(Strict):
    """The same for the OpenAPI document."""

    tasks: Annotated[list[TaskIn], Field(min_length=1, max_length=10_000)]
    atomic: bool = False


class CancelIn(Strict):
    """``unstarted`` cancels only what has not begun to run."""

    grace: Number | None = None
    unstarted: bool = False


class SignalIn(Strict):
    signal: int | str = "TERM"


class DrainIn(Strict):
    reason: Annotated[str, Field(max_length=1000)] = ""
    deadline: Number | None = None


class BackupIn(Strict):
    path: str


class RetryTaskIn(Strict):
    """``failed`` is what a retry of an array always means; the word is accepted so that it can be said."""

    failed: bool = True


def components() -> dict[str, Any]:
    """Schemas of all bodies for the OpenAPI document, which cannot see them: routes read their bodies themselves."""
    out: dict[str, Any] = {}
    for model in (BackupIn, BatchIn, CancelIn, SignalIn, DrainIn, RetryTaskIn):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        out |= schema.pop("$defs", {})
        out[model.__name__] = schema
    return out


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """``openapi_extra`` for a route that reads its body itself."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"content": {"application/json": {"schema": schema}}}}
