"""PURE: in which order tasks are considered: a rank per task, lower first, that needs no clock.

Waiting counts linearly and without end, so that what a task gains by it is the same for all who wait and drops out of every
comparison: ``rank = value + ageing × submitted_at``. Ranks are therefore computed once, when a task is queued, and whoever
came ``(difference of values) / ageing`` seconds earlier goes first, whatever its size: with ``ageing`` above 0 nobody starves.
A task's own priority comes before all this, but in ``priority``, where it is one of the factors.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, get_args

from jarvis.core.task import TaskSpec

OrderName = Literal["fifo", "priority", "smallest_area", "shortest", "deadline", "f1", "least_attained"]
Times = Literal["limit", "predicted"]
ORDERS: tuple[str, ...] = get_args(OrderName)

GIB = 1 << 30
WEIGHTS = {"cpu": 1.0, "memory": 0.125, "gpu": 16.0, "gpu_memory": 0.25}
"""What one cpu, one GiB of memory, one GPU, one GiB of its memory weigh when sizes are compared."""
_UNITS = {"memory": GIB, "gpu_memory": GIB, "disk": GIB}


@dataclass(frozen=True, slots=True)
class Order:
    """An order and its figures. ``ageing``: how much of its value a task gains by a second of waiting, in the unit of the order
    (points for ``priority``, cpu-seconds for ``smallest_area``, seconds for ``shortest`` and ``deadline``)."""

    name: str = "priority"
    ageing: float = 0.0
    patience: float = float("inf")
    """Seconds of waiting that make up for any size in ``smallest_area`` and ``shortest``: whoever waits so long is passed only by
    those who came before."""
    exponent: float = 1.0
    """Of the size in ``smallest_area`` and ``shortest``: below 1, large ones gain on small ones."""
    size: float = 0.0
    """Points of ``priority`` that a cpu (or what weighs as much) adds; below 0 it takes some away."""
    default_seconds: float = 3600.0
    """How long a task is thought to take that names no time limit."""
    weights: dict[str, float] = field(default_factory=lambda: dict(WEIGHTS))
    times: Times = "limit"
    """How long a task is thought to take: its time limit, or what is predicted from the ends of those like it."""
    first: float = 3600.0
    """Cpu-seconds of the first level of ``least_attained``; each level after it goes ``factor`` times as far."""
    factor: float = 4.0

    @property
    def may_change(self) -> bool:
        """Whether a task that is queued again may have another rank than before."""
        return self.name == "least_attained" or self.times == "predicted"


def weight_of(order: Order, spec: TaskSpec) -> float:
    """The size of a task: its dominant resource on all of its nodes, in cpus."""
    most = 0.0
    for name, amount in spec.resources.items():  # no generator: each task is asked when a new leader reads them all
        most = max(most, order.weights.get(name, 0.0) * amount / _UNITS.get(name, 1000))
    return spec.nodes * most


def seconds_of(order: Order, spec: TaskSpec, predicted: float | None = None) -> float:
    """What is predicted, if anything, else the time limit; never more than that."""
    limit = order.default_seconds if spec.time_limit is None else spec.time_limit
    return limit if predicted is None else predicted


def _fifo(order: Order, spec: TaskSpec, submitted_at: float, seconds: float | None) -> float:
    return submitted_at


def _priority(order: Order, spec: TaskSpec, submitted_at: float, seconds: float | None) -> float:
    points = float(spec.priority)
    if order.size:
        points += order.size * weight_of(order, spec)
    return order.ageing * submitted_at - points if order.ageing else -points


def _smallest_area(order: Order, spec: TaskSpec, submitted_at: float, seconds: float | None) -> float:
    """What names no time limit, and has none predicted, counts as one cpu for ``default_seconds``, so that such tasks go in
    order of submission."""
    size = 1.0 if spec.time_limit is None and seconds is None else weight_of(order, spec)
    area = size * seconds_of(order, spec, seconds)
    return _aged(order, area**order.exponent, submitted_at)


def _aged(order: Order, value: float, submitted_at: float) -> float:
    if not order.ageing:
        return value
    return min(value, order.ageing * order.patience) + order.ageing * submitted_at


def _shortest(order: Order, spec: TaskSpec, submitted_at: float, seconds: float | None) -> float:
    return _aged(order, seconds_of(order, spec, seconds) ** order.exponent, submitted_at)


def _deadline(order: Order, spec: TaskSpec, submitted_at: float, seconds: float | None) -> float:
    """Earliest deadline first; what has none comes behind all that do, in order of submission."""
    return spec.deadline if spec.deadline is not None else 5e9 + submitted_at


def _f1(order: Order, spec: TaskSpec, submitted_at: float, seconds: float | None) -> float:
    """F1 of Carastan-Santos and de Camargo (SC'17), learned by them from simulations."""
    cpus = weight_of(order, spec)
    return math.log10(max(seconds_of(order, spec, seconds), 1.0)) * cpus + 870.0 * math.log10(max(submitted_at, 1.0))


PRIORITY_STEP = 1e10
"""Above any value that an order gives."""

RANKS: dict[str, Callable[[Order, TaskSpec, float, float | None], float]] = {
    "fifo": _fifo, "priority": _priority, "smallest_area": _smallest_area, "shortest": _shortest,
    "deadline": _deadline, "f1": _f1, "least_attained": _fifo,
}  # fmt: skip


def rank(order: Order, spec: TaskSpec, submitted_at: float, seconds: float | None = None) -> float:
    """Where a task stands, lower first; ties go to the one submitted first. ``seconds``: as predicted."""
    value = RANKS[order.name](order, spec, submitted_at, seconds)
    return value - PRIORITY_STEP * spec.priority if spec.priority and order.name != "priority" else value
