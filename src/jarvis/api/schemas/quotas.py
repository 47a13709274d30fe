"""Bodies and answers about quotas, projects, use and queues."""

from typing import Annotated, Any, Literal

from pydantic import Field

from jarvis.api.schemas.answers import Answer, Count, Instant
from jarvis.api.schemas.task_in import Instant as When
from jarvis.api.schemas.task_in import Limit as Span
from jarvis.api.schemas.task_in import Strict, Word

Limit = Annotated[int, Field(ge=0, le=1_000_000_000)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]{0,62}$")]


class QuotaIn(Strict):
    """Hard limits; what is not named has none. ``guaranteed``: what others give back to the project when it wants it."""

    weight: Annotated[float, Field(gt=0, le=1_000_000, strict=False)] | None = None
    running: Limit | None = None
    tasks: Limit | None = None
    resources: Annotated[dict[Name, str | int | float], Field(max_length=50)] = {}
    guaranteed: Annotated[dict[Name, str | int | float], Field(max_length=50)] = {}


class QuotaOut(Answer):
    project: str
    user: str
    weight: float | None
    running: Count | None
    tasks: Count | None
    resources: dict[str, str]
    guaranteed: dict[str, str]


class QuotaWish(QuotaOut):
    command: int


class QuotaPage(Answer):
    items: list[QuotaOut]
    next: None


class UsageOut(Answer):
    """Seconds times cpus, GPUs …; bytes for memory."""

    project: str
    user: str
    at: Instant
    attempts: Count
    total: dict[str, float]
    recent: dict[str, float]


class UsagePage(Answer):
    items: list[UsageOut]
    next: None


class ProjectOut(Answer):
    project: str
    weight: float
    attempts: Count
    total: dict[str, float]
    quota: QuotaOut | None


class ProjectPage(Answer):
    items: list[ProjectOut]
    next: None


class QueueOut(Answer):
    queue: str
    tier: int
    balancer: str
    order: str


class QueuePage(Answer):
    items: list[QueueOut]
    next: None


class LicenseOut(Answer):
    """``tasks``: those that have some of them and may be seen."""

    license: str
    total: Count
    used: Count
    free: Count
    tasks: list[int]


class LicensePage(Answer):
    items: list[LicenseOut]
    next: None


class BookingIn(Strict):
    """Nodes that are set aside: with a project or a user for its tasks alone, else for nobody's. Without ``begin``: now."""

    nodes: Annotated[list[Word], Field(min_length=1, max_length=10_000)]
    begin: When | None = None
    duration: Span | None = None
    end: When | None = None
    reason: Annotated[str, Field(max_length=200)] = ""
    project: Word | None = None
    user: Word | None = None


class BookingOut(Answer):
    id: int
    kind: Literal["maintenance", "reservation"]
    state: Literal["planned", "active"]
    nodes: list[str]
    begin: Instant
    end: Instant
    reason: str
    project: str
    user: str
    by: str


class BookingWish(BookingOut):
    command: int


class BookingPage(Answer):
    items: list[BookingOut]
    next: None


class ReasonOut(Answer):
    reason: str
    text: str


class RecommendOut(Answer):
    """``asked``: what the task asks for, in the same words; ``runs`` of ``needed`` have ended by themselves."""

    project: str
    user: str
    name: str
    runs: int
    needed: int
    enough: bool
    like: str
    cpu: str | None
    memory: str | None
    time_limit: float | None
    asked: dict[str, Any]
    summary: str


class PlanOut(Answer):
    """``changes``: single changes of the request, each of which would let it start now. ``earliest_s``: seconds until then."""

    verdict: Literal["now", "wait", "never"]
    node: str | None
    summary: str
    reasons: list[ReasonOut]
    changes: list[str]
    earliest: Instant
    earliest_s: float | None
