"""What ``POST /tasks`` takes: two readers of one shape.

``TaskIn`` (Pydantic) explains mistakes and feeds the OpenAPI document; ``TaskFast`` (msgspec) reads batches an order of
magnitude faster. Both have the same fields, and both go through the same rules in ``task_rules``.
"""

from typing import Annotated, Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from jarvis.api.schemas.values import MAX_INSTANT, MAX_SECONDS
from jarvis.core.globs import LONGEST, MAX_GLOBS
from jarvis.core.task import BALANCERS, LICENSE, MAX_NODES, MAX_PRIORITY, PRIORITIES

MAX_PUSHES = 100
MAX_ASKED = 5000
Number = int | float | str


def _shown(**schema: Any) -> WithJsonSchema:
    """How the document shows it. The rules in ``task_rules`` check it, with messages that say what would do."""
    return WithJsonSchema(schema)


def _numbers(least: dict[str, float], most: float, *patterns: str) -> WithJsonSchema:
    texts = [{"type": "string", "pattern": pattern} for pattern in patterns]
    return _shown(anyOf=[{"type": "number", **least, "maximum": most}, *texts])


_PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+$"
_SPAN = r"^(\d{1,4}d)?(\d{1,4}h)?(\d{1,4}m)?\d{1,9}s?$"
_DATE = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)$"
_BASE64 = r"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
_CLASSES = r"^(any|exit|oom|timeout|node_lost|signal:[1-9]\d?|exit:\d{1,3}|exception:\w{1,100})$"
_RANGES = r"^\d{1,9}(-\d{1,9}(:\d{1,9})?)?(,\d{1,9}(-\d{1,9}(:\d{1,9})?)?)*(%\d{1,9})?$"
_LABEL = r"^[A-Za-z0-9._/-]{1,100}(!?=[^\x00-\x1f\x7f-\x9f]{0,200})?$"
_NEAR = r"^[A-Za-z0-9._/-]{1,100}(@[A-Za-z0-9._/-]{1,100})?(:([1-9]\d?|100))?$"
_PRIORITY = [{"type": "integer", "minimum": -MAX_PRIORITY, "maximum": MAX_PRIORITY}, {"enum": sorted(PRIORITIES)}]

Short = Annotated[str, Field(max_length=4096)]
Word = Annotated[str, _shown(type="string", minLength=1, maxLength=100, pattern=_PRINTABLE)]
Text = Annotated[str, _shown(type="string", pattern=r"^[^\x00]*$")]
PathText = Annotated[Short, _shown(type="string", minLength=1, maxLength=4096, pattern=r"^[^\x00]+$")]
Digest = Annotated[str, _shown(type="string", pattern="^[0-9a-f]{64}$")]
Base64 = Annotated[str, _shown(type="string", pattern=_BASE64)]
Duration = Annotated[Number, _numbers({"minimum": 0}, MAX_SECONDS, _SPAN)]
Limit = Annotated[Number, _numbers({"exclusiveMinimum": 0}, MAX_SECONDS, _SPAN)]
Instant = Annotated[Number, _numbers({"minimum": 0}, MAX_INSTANT, r"^\+\d{1,7}[smhd]$", _DATE)]
Amount = Annotated[Number, _numbers({"minimum": 0}, 1 << 53, r"^\d{1,12}([KMGT]i?|m)?$")]
Priority = Annotated[int | str, _shown(anyOf=_PRIORITY)]
Array = Annotated[str, _shown(type="string", pattern=_RANGES)]
After = Annotated[Short, _shown(type="string", pattern=r"^(after(ok|any|notok):)?[1-9]\d{0,17}$")]
Label = Annotated[Short, _shown(type="string", maxLength=310, pattern=_LABEL)]
Key = Annotated[Short, _shown(type="string", maxLength=100, pattern=r"^[A-Za-z0-9._/-]{1,100}$")]
Near = Annotated[Short, _shown(type="string", maxLength=210, pattern=_NEAR)]
Preferred = Annotated[Short, _shown(type="string", maxLength=314, pattern=_LABEL)]
Mount = Annotated[Short, _shown(type="string", pattern=r"^[^:\x00]+:/[^:\x00]*(:r[ow])?$")]
Push = Annotated[str, _shown(type="string", pattern=r"^([0-9a-f]{64}|\$\{\{.+\}\})$")]
Glob = Annotated[
    str, _shown(type="string", minLength=1, maxLength=LONGEST, pattern=r"^[A-Za-z0-9_*?-]([^\x00.]|\.[^\x00.])*$")
]
FailureClass = Annotated[Short, _shown(type="string", pattern=_CLASSES)]
Resources = Annotated[
    dict[str, Amount], Field(json_schema_extra={"propertyNames": {"pattern": r"^[a-z][a-z0-9_.-]{0,62}$"}})
]
Licenses = Annotated[
    dict[str, Annotated[int, Field(ge=1, le=1_000_000)]],
    Field(json_schema_extra={"propertyNames": {"pattern": LICENSE}}),
]
Env = Annotated[dict[str, Text], Field(json_schema_extra={"propertyNames": {"pattern": r"^[A-Za-z_][A-Za-z0-9_]*$"}})]


class Strict(BaseModel):
    """No unknown fields and no guessing of types."""

    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)


class FunctionIn(Strict):
    """A Python function; ``args`` is base64 of what the client pickled."""

    code: Digest
    python: Word
    args: Base64 | None = None
    args_digest: Digest | None = None
    environment: Short = ""
    fresh: bool = False
    max_calls: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    inputs: dict[str, Any] = {}


class RetryIn(Strict):
    max_attempts: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    backoff_strategy: Literal["exponential", "linear", "constant"] = "exponential"
    backoff_base: Duration = 1.0
    max_backoff: Duration = 300.0
    retryable_errors: list[FailureClass] = ["any"]
    non_retryable_errors: list[FailureClass] = []


class TaskIn(Strict):
    """A task as users describe it. Durations: seconds or ``1h30m``; instants: RFC 3339, epoch seconds or ``+10m``."""

    name: Word | None = None
    command: list[Text] | Text | None = None
    image: Word | None = None
    pull: Literal["missing", "always", "never"] = "missing"
    mounts: list[Mount] = []
    network: Word = "bridge"
    entrypoint: list[Text] | None = None
    container_user: Word | None = None
    script: Digest | None = None
    function: FunctionIn | None = None
    resources: Resources = {}
    nodes: Annotated[int, Field(ge=1, le=MAX_NODES)] = 1
    project: Word | None = None
    queue: Word = "default"
    priority: Priority = 0
    array: Array | None = None
    entries: Digest | None = None
    after: list[After] = []
    begin: Instant | None = None
    deadline: Instant | None = None
    time_limit: Limit | None = None
    soft_limit: Limit | None = None
    grace: Duration = 10.0
    retry: RetryIn = Field(default_factory=RetryIn)
    on_lost: Literal["rerun", "fence", "never"] = "rerun"
    preemptible: bool = True
    hold: bool = False
    constraints: list[Label] = []
    tolerations: list[Word] = []
    keys: list[Key] = []
    near: list[Near] = []
    apart: list[Near] = []
    prefer: list[Preferred] = []
    licenses: Licenses = {}
    balancer: Annotated[str, _shown(enum=sorted(BALANCERS))] | None = None
    env: Env = {}
    cwd: PathText | None = None
    stdout: PathText | None = None
    stderr: PathText | None = None
    stdin: PathText | None = None
    pty: bool = False
    output_limit: Amount | None = None
    login_shell: bool = False
    push: Annotated[list[Push], Field(max_length=MAX_PUSHES)] = []
    artifacts: Annotated[list[Glob], Field(max_length=MAX_GLOBS)] = []


class FunctionFast(msgspec.Struct, gc=False, forbid_unknown_fields=True, frozen=True):
    code: str
    python: str
    args: str | None = None
    args_digest: str | None = None
    environment: str = ""
    fresh: bool = False
    max_calls: Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)] | None = None
    inputs: dict[str, Any] = {}


class RetryFast(msgspec.Struct, gc=False, forbid_unknown_fields=True, frozen=True):
    max_attempts: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1
    backoff_strategy: Literal["exponential", "linear", "constant"] = "exponential"
    backoff_base: int | float | str = 1.0
    max_backoff: int | float | str = 300.0
    retryable_errors: list[str] = msgspec.field(default_factory=lambda: ["any"])
    non_retryable_errors: list[str] = []


_ONCE = RetryFast()


class TaskFast(msgspec.Struct, gc=False, forbid_unknown_fields=True, frozen=True):
    name: str | None = None
    command: list[str] | str | None = None
    image: str | None = None
    pull: Literal["missing", "always", "never"] = "missing"
    mounts: list[str] = []
    network: str = "bridge"
    entrypoint: list[str] | None = None
    container_user: str | None = None
    script: str | None = None
    function: FunctionFast | None = None
    resources: dict[str, int | float | str] = {}
    nodes: Annotated[int, msgspec.Meta(ge=1, le=MAX_NODES)] = 1
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
    preemptible: bool = True
    hold: bool = False
    constraints: list[str] = []
    tolerations: list[str] = []
    keys: list[str] = []
    near: list[str] = []
    apart: list[str] = []
    prefer: list[str] = []
    licenses: dict[str, int] = {}
    balancer: str | None = None
    env: dict[str, str] = {}
    cwd: str | None = None
    stdout: str | None = None
    stderr: str | None = None
    stdin: str | None = None
    pty: bool = False
    output_limit: int | float | str | None = None
    login_shell: bool = False
    push: list[str] = []
    artifacts: list[str] = []


class BatchFast(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """Members stay raw, so that one bad member has a problem of its own."""

    tasks: list[msgspec.Raw]
    atomic: bool = False


class Calls(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """Calls of one function that differ in their arguments alone; ``task`` is JSON, as for a single one."""

    task: bytes
    args: list[bytes]


class BatchIn(Strict):
    """The same for the OpenAPI document."""

    tasks: Annotated[list[TaskIn], Field(min_length=1, max_length=10_000)]
    atomic: bool = False


class CancelIn(Strict):
    """``unstarted`` cancels only what has not begun to run."""

    grace: Duration | None = None
    unstarted: bool = False


class SignalIn(Strict):
    signal: int | str = "TERM"


class DrainIn(Strict):
    reason: Annotated[str, Field(max_length=1000)] = ""
    deadline: Duration | None = None


class RemoveIn(Strict):
    force: bool = False


Holder = Annotated[str, Field(pattern=r"^[A-Za-z0-9*][A-Za-z0-9._@-]{0,99}$")]


class TokenIn(Strict):
    role: Literal["admin", "user", "join"]
    user: Holder | None = None
    projects: Annotated[list[Holder], Field(max_length=100)] = []
    label: Annotated[str, Field(max_length=100)] = ""
    ttl: Duration | None = None


class BackupIn(Strict):
    path: str


class MissingIn(Strict):
    """Digests that a client is about to refer to."""

    digests: Annotated[list[Digest], Field(min_length=1, max_length=MAX_ASKED)]
    project: Word | None = None


class RetryTaskIn(Strict):
    """``failed`` is what a retry of an array always means; the word is accepted so that it can be said."""

    failed: bool = True


_KINDS = [
    {"required": ["command"], "properties": {"command": {"type": "string", "minLength": 1, "pattern": r"^[^\x00]+$"}}},
    {"required": ["command"], "properties": {"command": {"type": "array", "minItems": 1, "items": {"type": "string"}}}},
    {"required": ["script"], "properties": {"script": {"type": "string"}}},
    {"required": ["image"], "properties": {"image": {"type": "string"}}},
    {"required": ["function"], "properties": {"function": {"type": "object"}}},
]
"""Every task has one kind of work at least."""


def components() -> dict[str, Any]:
    """Schemas of all bodies for the OpenAPI document, which cannot see them: routes read their bodies themselves."""
    out: dict[str, Any] = {}
    from jarvis.api.schemas.quotas import BookingIn, QuotaIn  # which builds on this module

    for model in (
        QuotaIn,
        BookingIn,
        BackupIn,
        BatchIn,
        CancelIn,
        SignalIn,
        DrainIn,
        RemoveIn,
        RetryTaskIn,
        MissingIn,
        TokenIn,
    ):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        out |= schema.pop("$defs", {})
        out[model.__name__] = schema
    out["TaskIn"]["anyOf"] = _KINDS
    return out


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """``openapi_extra`` for a route that reads its body itself."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"content": {"application/json": {"schema": schema}}}}
