"""What answers look like, for the OpenAPI document: routes write plain dicts (see ``out``), and fuzzing compares the two."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from jarvis.core.states import State

Instant = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")] | None
Count = Annotated[int, Field(ge=0)]
Code = Annotated[str, Field(pattern=r"^[A-Z]{1,3}$")]


class Answer(BaseModel):
    """Exactly these fields."""

    model_config = ConfigDict(extra="forbid", defer_build=True)


class LastTry(Answer):
    attempt: int | None
    node: int | None
    cause: str | None
    exit_code: int | None
    signal: int | None
    failures: Count
    infra_losses: Count
    preemptions: Count
    eligible_at: Instant


class ElementOut(LastTry):
    id: Annotated[str, Field(pattern=r"^\d+(_\d+)?$")]
    task: int
    index: Count | None
    state: State
    code: Code
    reason: str


class Owner(Answer):
    user: str
    project: str


class ArrayOut(Answer):
    id: int
    uuid: str
    name: str
    kind: str
    state: State
    code: Code
    reason: str
    ended: bool
    counts: dict[str, Count]
    size: Count
    owner: Owner
    user: str
    project: str
    queue: str
    priority: int
    submitted_at: Instant
    started_at: Instant
    ended_at: Instant
    retry_of: int | None
    spec: dict[str, Any]


class TaskOut(LastTry, ArrayOut):
    """A task without an array: its element is told along."""


class TaskPage(Answer):
    items: list[TaskOut | ArrayOut]
    next: str | None


class ElementPage(Answer):
    items: list[ElementOut]
    next: str | None
    base: State
    unnamed: Count


class Submitted(Answer):
    id: int
    uuid: str
    state: Literal["submitted"]


class FieldProblem(Answer):
    path: str
    message: str
    line: int | None = None


class Problem(Answer):
    """RFC 9457, with a stable ``code`` and what to do next in ``hint``."""

    type: str
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    code: str
    detail: str
    hint: str = ""
    errors: list[FieldProblem] = []


class Member(Answer):
    """What became of one task of a batch."""

    id: int | None = None
    uuid: str | None = None
    replayed: bool = False
    problem: Problem | None = None


class Refused(Answer):
    index: Count
    problem: Problem


class BatchAnswer(Answer):
    accepted: Count
    refused: Count
    atomic: bool
    results: list[Member]
    problems: list[Refused] = []


class Wish(Answer):
    """It is stored; the leader acts on it."""

    id: str
    verb: str
    command: int


class NodeWish(Answer):
    id: int
    name: str
    verb: str
    command: int


class Placement(Answer):
    """Of a gang, also how the rank went."""

    rank: Count
    node: int
    resources: dict[str, Any]
    started_at: Instant = None
    ended_at: Instant = None
    cause: str | None = None
    message: str = ""
    exit_code: int | None = None
    signal: int | None = None
    stdout: "OutputOut | None" = None
    stderr: "OutputOut | None" = None


class OutputOut(Answer):
    size: Count
    path: str | None


class AttemptOut(Answer):
    attempt: int
    token: int
    node: int
    placements: list[Placement]
    state: State
    cause: str | None
    message: str
    exit_code: int | None
    signal: int | None
    assigned_at: Instant
    started_at: Instant
    ended_at: Instant
    usage: dict[str, Any] | None
    stdout: OutputOut | None
    stderr: OutputOut | None
    has_result: bool


class AttemptPage(Answer):
    items: list[AttemptOut]


class EventOut(Answer):
    cursor: Annotated[str, Field(pattern=r"^\d+\.\d+$")]
    seq: int
    at: Instant
    kind: str
    task: int | None
    index: Count | None
    attempt: int | None
    node: int | None
    cause_id: str
    detail: dict[str, Any]


class EventPage(Answer):
    items: list[EventOut]
    next: str | None


class PastRun(Answer):
    """A task or element that has ended: instants and times in seconds, amounts as they are counted."""

    task: int
    index: Count | None
    submitted_at: float
    ran_s: Annotated[float, Field(ge=0)]
    limit_s: float | None
    resources: dict[str, int]
    nodes: Annotated[int, Field(ge=1)]
    user: str
    project: str
    name: str
    queue: str
    priority: int
    attempts: Count


class HistoryPage(Answer):
    items: list[PastRun]
    next: str | None


class Why(BaseModel):
    """Its state and, while it waits, what it waits for."""

    id: str
    state: State
    reason: str
    history: "list[Waited] | None" = None


class Waited(Answer):
    """Since when it was in a state, for which reasons: none where it could go on."""

    since: Instant
    state: State
    reasons: list[str]
    text: str


class NodeOut(Answer):
    id: int
    name: str
    state: str
    schedulable: bool
    cordoned: bool
    draining: bool
    drain_deadline: Instant
    reason: str
    unfit: str
    maintenance: str
    resources: dict[str, Any]
    used: dict[str, Any] | None
    gpu_memory: list[str]
    labels: dict[str, str]
    taints: list[str]
    watch: list[str]
    health: Any
    version: str
    registered_at: Instant
    seen_at: Instant


class HeldOut(Answer):
    """An image, or files by the beginning of their manifest's digest, and its bytes."""

    what: str
    size: Count


class NodeShown(NodeOut):
    holds: list[HeldOut] | None


class NodePage(Answer):
    items: list[NodeOut]
    next: None


class BlobOut(Answer):
    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    size: Count
    project: str


class MissingOut(Answer):
    missing: list[Annotated[str, Field(pattern="^[0-9a-f]{64}$")]]
    project: str


class ArtifactOut(Answer):
    """``digest``: sha256 of its bytes, which ``/tasks/{ident}/artifacts/{digest}`` gives."""

    path: str
    size: Count
    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    executable: bool
    pack: str | None
    """The body that holds it and others, from ``offset`` on; it is given as one of them is."""
    offset: int | None


class ArtifactPage(Answer):
    """``attempt``: which one left them, null where none did yet; ``left_out``: what could not be kept, and why."""

    attempt: int | None
    items: list[ArtifactOut]
    size: Count
    left_out: list[str]


class Ok(Answer):
    status: Literal["ok"]


class Check(BaseModel):
    status: Literal["ok", "degraded", "down", "not_configured"]
    detail: str
    since: Instant
    latency_ms: float | None


class Health(Answer):
    """The checks are for those with a token."""

    status: Literal["ok", "degraded", "down"]
    checks: dict[str, Check] = {}
    version: str = ""


class Version(Answer):
    version: str
    api: Literal["v1"]
    incarnation: int


class Disk(Answer):
    database_bytes: Count
    blob_bytes: Count


class Stats(Answer):
    tasks: dict[str, Count]
    nodes: dict[str, Count]
    events: Count
    disk: Disk
    durable: bool


class Backup(Answer):
    path: str
    bytes: Count


class ServerOut(BaseModel):
    """``leads`` at most one does; ``url`` where the others and the nodes reach it, empty where it is the only one."""

    name: str
    url: str
    version: str
    seen_at: Instant | None
    leads: bool


class TakeoverOut(BaseModel):
    """``silent_s``: how long before it the leader before had been heard of."""

    epoch: int
    leader: str
    at: Instant
    cause: str
    silent_s: float


class ClusterOut(Answer):
    incarnation: int
    epoch: int
    leader: str
    lease_left_s: float
    servers: list[ServerOut]
    takeovers: list[TakeoverOut]
    checks: dict[str, Check]


class TokenOut(Answer):
    """``id`` begins the token's hash; the token itself is told only once, when it is made."""

    id: Annotated[str, Field(pattern="^[0-9a-f]{12}$")]
    user: str
    role: str
    projects: list[str]
    label: str
    expires_at: Instant | None


class NewToken(TokenOut):
    token: str


class TokenPage(Answer):
    items: list[TokenOut]
    next: None
