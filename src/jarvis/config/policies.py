"""Policies as they are written in YAML, their presets, and the frozen values that the scheduler's pure code gets from them."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from jarvis.config.section import Section
from jarvis.config.windows import WindowSettings
from jarvis.core.errors import InvalidValue
from jarvis.core.holdings import HELD_LEAST
from jarvis.core.resources import parse_bytes
from jarvis.core.task import LICENSE
from jarvis.policies import Kind, checked, of_others
from jarvis.scheduler.cycle import AHEAD_SECONDS, Policy
from jarvis.scheduler.policy.backfill import Backfill, BackfillName
from jarvis.scheduler.policy.fairness import Fairness
from jarvis.scheduler.policy.locality import LEAST, Locality
from jarvis.scheduler.policy.order import WEIGHTS, Order, Times
from jarvis.scheduler.policy.preemption import Preemption

PRESETS: dict[str, dict[str, Any]] = {
    "default": {
        "order": {"name": "smallest_area", "exponent": 0.5, "ageing": 0.003, "patience": 3 * 86400},
        "backfill": {"name": "easy"},
    },
    "throughput": {
        "order": {"name": "smallest_area"}, "backfill": {"name": "easy"}, "fairness": {"by": "nobody"},
    },
    "fifo": {"order": {"name": "fifo"}, "backfill": {"name": "easy"}, "fairness": {"by": "nobody"}},
}  # fmt: skip
"""Whole policies by name; what is set beside ``preset`` takes the place of what it brings."""


def _named(value: object) -> object:
    """``order: shortest`` is short for ``order: {name: shortest}``."""
    return {"name": value} if isinstance(value, str) else value


def _by(value: object) -> object:
    return {"by": value} if isinstance(value, str) else value


def _balanced(value: object) -> object:
    return {"balancer": value} if isinstance(value, str) else value


OrderName = Annotated[str, AfterValidator(lambda name: checked("order", name))]
Balancer = Annotated[str, AfterValidator(lambda name: checked("score", name))]
FilterName = Annotated[str, AfterValidator(lambda name: checked("filter", name))]


class OrderSettings(Section):
    name: OrderName = "priority"
    """One of Jarvis's own, or of another package."""
    ageing: float = Field(0.0, ge=0)
    patience: float = Field(float("inf"), gt=0)
    exponent: float = Field(1.0, gt=0, le=2)
    size: float = 0.0
    default_seconds: float = Field(3600.0, gt=0)
    times: Times = "limit"
    first: float = Field(3600.0, gt=0)
    """Cpu-seconds of the first level of ``least_attained``."""
    factor: float = Field(4.0, ge=1.1, le=1000)
    """So many times as far goes each level after it."""
    weights: dict[str, Annotated[float, Field(ge=0)]] = {}
    """What one cpu, one GiB, one GPU weigh in a size; what is not named keeps its own."""


class FairnessSettings(Section):
    by: Literal["owners", "nobody"] = "owners"
    half_life: float = Field(0.0, ge=0)
    weights: dict[str, Annotated[float, Field(gt=0)]] = {}


class BackfillSettings(Section):
    name: BackfillName = "skip"
    depth: int = Field(100, ge=1, le=10_000)
    order: Literal["policy", "submission", "shortest", "smallest_area"] = "policy"
    extra: bool = True
    keep: bool = False
    look: int = Field(1000, ge=1, le=100_000)
    times: Times = "limit"


OrderField = Annotated[OrderSettings, BeforeValidator(_named)]
BackfillField = Annotated[BackfillSettings, BeforeValidator(_named)]
FairnessField = Annotated[FairnessSettings, BeforeValidator(_by)]


class PreemptionSettings(Section):
    by: int | None = Field(1000, ge=1)
    """Within a tier, what has a priority that is higher by so much preempts; null: priorities preempt nothing."""
    tiers: bool = True
    """Whether queues of a higher tier preempt those of lower ones."""
    grace: float = Field(30.0, ge=0, le=86_400)
    """Seconds from the soft signal, at which a program may write a checkpoint, to the kill."""
    protect: float = Field(60.0, ge=0)
    """Seconds for which an attempt is left alone after its start."""
    times: int = Field(3, ge=1)
    """How often an element is preempted at most."""
    most: int = Field(100, ge=1, le=100_000)
    """Victims a cycle."""
    attained: bool = False
    """Whether what has attained less preempts what has attained more, by the levels of the order ``least_attained``."""


def _on_or_off(value: object) -> object:
    """``preemption: on`` is short for ``preemption: {}``."""
    return {True: {}, False: None}[value] if isinstance(value, bool) else value


def _least(value: object) -> object:
    """``64MiB``, ``on`` or ``off``; not so little that nodes tell nothing of it."""
    if isinstance(value, bool) or value in ("on", "off"):
        return LEAST if value in (True, "on") else 0
    try:
        least = parse_bytes(value, "locality")
    except InvalidValue as error:
        raise ValueError(f"{error}, on or off") from None
    if 0 < least < HELD_LEAST:
        raise ValueError(f"{value} is too little: nodes tell only of what takes {HELD_LEAST >> 20}MiB or more (off: 0)")
    return least


LocalityField = Annotated[int, BeforeValidator(_least)]
PreemptionField = Annotated[PreemptionSettings | None, BeforeValidator(_on_or_off)]
LicenseName = Annotated[str, Field(pattern=LICENSE)]


class QueueSettings(Section):
    balancer: Balancer | None = None
    order: OrderField | None = None
    tier: int = Field(0, ge=-1000, le=1000)
    """Queues with a higher one go first, whatever the order within them."""
    preemptible: bool = True
    """Whether its tasks may be preempted, as far as they allow it themselves."""
    locality: LocalityField | None = None


class SchedulerSettings(WindowSettings):
    preset: Literal["default", "throughput", "fifo"] = "default"
    balancer: Balancer = "least_loaded"
    gpu_balancer: Balancer = "gpu_fit"
    """Instead of ``balancer`` where any node has GPUs."""
    order: OrderField = OrderSettings()
    fairness: FairnessField = FairnessSettings()
    backfill: BackfillField = BackfillSettings()
    preemption: PreemptionField = None
    ahead_seconds: float = Field(AHEAD_SECONDS, ge=0, le=60)
    """Estimated work that a node is given ahead of free room."""
    locality: LocalityField = LEAST
    """Bytes of what a task needs that a node must hold to be preferred; 0 or ``off``: none is."""
    queues: dict[str, Annotated[QueueSettings, BeforeValidator(_balanced)]] = {}
    filters: list[FilterName] = []
    """Of other packages: which nodes a class of tasks may have."""
    licenses: dict[LicenseName, Annotated[int, Field(ge=0, le=1_000_000)]] = {}
    """Counters of the whole cluster: never are more in use than are named here."""

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        preset = PRESETS.get(given.get("preset", "default"))
        return given if preset is None else _laid_over(preset, given)

    @model_validator(mode="after")
    def _check_orders(self) -> "SchedulerSettings":
        """Ranks of different orders say nothing about each other, and without levels nobody is of a higher one."""
        orders = {0: self.order}
        for name, queue in self.queues.items():
            order = queue.order or self.order
            if orders.setdefault(queue.tier, order) != order:
                raise ValueError(f"queue {name} has an order of its own, and so needs a tier of its own")
        if self.preemption is not None and self.preemption.attained and self.order.name != "least_attained":
            raise ValueError("preemption by what was attained needs the order least_attained")
        return self


def _laid_over(preset: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The preset with what is given in its place; short forms replace a whole section."""
    out = deepcopy(preset)
    for key, value in given.items():
        if isinstance(value, dict) and isinstance(out.get(key), dict) and "name" not in value:
            out[key] = {**out[key], **value}
        else:
            out[key] = value
    return out


def policy_of(settings: SchedulerSettings) -> Policy:
    """What the scheduler is given."""
    queues = settings.queues
    fairness, backfill = settings.fairness, settings.backfill
    return Policy(
        balancer=settings.balancer,
        gpu_balancer=settings.gpu_balancer,
        queue_balancers={name: queue.balancer for name, queue in queues.items() if queue.balancer is not None},
        ahead_seconds=settings.ahead_seconds,
        order=_order(settings.order),
        queue_orders={name: _order(queue.order) for name, queue in queues.items() if queue.order is not None},
        queue_tiers={name: queue.tier for name, queue in queues.items() if queue.tier},
        fairness=Fairness(fairness.by, fairness.half_life, dict(fairness.weights)),
        backfill=Backfill(
            backfill.name, backfill.depth, backfill.order, backfill.extra, backfill.keep, backfill.look, backfill.times
        ),
        preemption=_preemption(settings),
        filters=tuple(settings.filters),
        plugged=of_others(_named_policies(settings)),
        licenses=dict(settings.licenses),
        locality=Locality(
            settings.locality, {name: queue.locality for name, queue in queues.items() if queue.locality is not None}
        ),
    )  # fmt: skip


def _preemption(settings: SchedulerSettings) -> Preemption | None:
    spared = frozenset(name for name, queue in settings.queues.items() if not queue.preemptible)
    return None if settings.preemption is None else Preemption(**settings.preemption.model_dump(), spared=spared)


def _order(settings: OrderSettings) -> Order:
    weights = {**WEIGHTS, **settings.weights}
    return Order(
        settings.name,
        settings.ageing,
        settings.patience,
        settings.exponent,
        settings.size,
        settings.default_seconds,
        weights,
        settings.times,
        settings.first,
        settings.factor,
    )


def _named_policies(settings: SchedulerSettings) -> Iterator[tuple[Kind, str]]:
    parts: list[SchedulerSettings | QueueSettings] = [settings, *settings.queues.values()]
    for part in parts:
        if part.order is not None:
            yield "order", part.order.name
        if part.balancer is not None:
            yield "score", part.balancer
    yield "score", settings.gpu_balancer
    for name in settings.filters:
        yield "filter", name


def queue_refused(settings: SchedulerSettings, queue: str) -> InvalidValue | None:
    """Where queues are named, there are no others; where none is, a task may name any."""
    known = {"default", *settings.queues}
    if not settings.queues or queue in known:
        return None
    return InvalidValue("queue", queue, f"one of {', '.join(sorted(known))}")


def queues_out(settings: SchedulerSettings) -> list[dict[str, object]]:
    """The queues that are named, the highest tier first."""
    named = {"default": QueueSettings(), **settings.queues}
    return [
        {
            "queue": name, "tier": queue.tier, "balancer": queue.balancer or settings.balancer,
            "order": (queue.order or settings.order).name,
        }
        for name, queue in sorted(named.items(), key=lambda item: (-item[1].tier, item[0]))
    ]  # fmt: skip
