"""Orders, scores and filters of other packages, which plug in by the entry point group ``jarvis.policies``.

A package names an object of :class:`OrderPolicy`, :class:`ScorePolicy` or :class:`FilterPolicy` under an entry point, and the
settings of the scheduler name the entry point where they would name one of Jarvis's own. They are part of the pure core: the same
arguments must give the same answer at all times and on all machines, without looking at a clock, at chance or at anything outside
of the arguments, which they leave as they are. ``jarvis policy check NAME`` looks for what is wrong with one.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Literal

from jarvis.core.errors import JarvisError
from jarvis.core.task import TaskSpec
from jarvis.scheduler.load_balancer import BALANCERS, EXACT, IMPROVES, SCORES, Candidate
from jarvis.scheduler.policy.order import ORDERS, RANKS, Order
from jarvis.scheduler.policy.plugged import FILTERS, NodeFacts, Plugged
from jarvis.scheduler.task_queue import PlacementClass

GROUP = "jarvis.policies"
Kind = Literal["order", "score", "filter"]
OWN: dict[Kind, tuple[str, ...]] = {"order": ORDERS, "score": BALANCERS, "filter": ()}
"""What Jarvis brings itself."""


@dataclass(frozen=True, slots=True)
class OrderPolicy:
    """``rank``: where a task stands, lower first, a finite number; computed once, when it is queued. From the settings of the
    order, the spec, the instant of its submission (seconds since 1970) and the seconds that are predicted for it, None where none
    are. A task's own priority comes before it."""

    rank: Callable[[Order, TaskSpec, float, float | None], float]


@dataclass(frozen=True, slots=True)
class ScorePolicy:
    """``score``: how good a node with room is, lower is better, a finite number; equal ones go to the node that came first. Work
    ahead of room must make a node worse by at least as much as anything else can make it better."""

    score: Callable[[Candidate], float]


@dataclass(frozen=True, slots=True)
class FilterPolicy:
    """``refuse``: why a node may not have the tasks of a class, "" where it may; asked again when the node's resources, labels or
    taints change."""

    refuse: Callable[[NodeFacts, PlacementClass], str]


AnyPolicy = OrderPolicy | ScorePolicy | FilterPolicy
_KINDS: dict[type, Kind] = {OrderPolicy: "order", ScorePolicy: "score", FilterPolicy: "filter"}
_plugged: dict[tuple[Kind, str], Plugged] = {}


class UnknownPolicy(JarvisError):
    """It is not installed, is of another kind or version, or cannot be loaded."""

    code = "unknown_policy"

    def __init__(self, text: str, hint: str = "install its package here, or name another one") -> None:
        super().__init__(text)
        self.hint = hint


def found() -> list[EntryPoint]:
    """Entry points of all installed packages, by name."""
    return sorted(entry_points(group=GROUP), key=lambda point: point.name)


def load(point: EntryPoint) -> tuple[Kind, AnyPolicy]:
    """What an entry point names; raises :class:`UnknownPolicy`."""
    try:
        policy = point.load()
    except Exception as error:
        raise UnknownPolicy(f"the policy {point.name} of {_package(point)[0]} cannot be loaded: {error!r}") from error
    kind = _KINDS.get(type(policy))
    if kind is None:
        expected = ", ".join(cls.__name__ for cls in _KINDS)
        raise UnknownPolicy(f"the policy {point.name} is a {type(policy).__name__}, none of {expected}")
    return kind, policy


def _package(point: EntryPoint) -> tuple[str, str]:
    return ("?", "") if point.dist is None else (point.dist.name, point.dist.version)


def plug(kind: Kind, name: str) -> Plugged:
    """Make a policy of another package usable under its name; raises :class:`UnknownPolicy` with the names that there are."""
    known = _plugged.get((kind, name))
    if known is not None:
        return known
    point = next((p for p in found() if p.name == name), None)
    if point is None:
        raise UnknownPolicy(f"there is no {kind} {name}; there are {', '.join(names(kind))}")
    its_kind, policy = load(point)
    if its_kind != kind:
        raise UnknownPolicy(f"{name} is a policy of the kind {its_kind}, not {kind}")
    if isinstance(policy, OrderPolicy):
        RANKS[name] = policy.rank
    elif isinstance(policy, ScorePolicy):
        SCORES[name] = policy.score
        EXACT.add(name)
        IMPROVES.add(name)
    else:
        FILTERS[name] = policy.refuse
    plugged = _plugged[kind, name] = Plugged(kind, name, *_package(point))
    return plugged


def names(kind: Kind) -> list[str]:
    """Jarvis's own, then those of other packages; what cannot be loaded is left out."""
    others = []
    for point in found():
        try:
            if load(point)[0] == kind:
                others.append(point.name)
        except UnknownPolicy:
            continue
    return [*OWN[kind], *others] or ["none"]


def checked(kind: Kind, name: str) -> str:
    """The name itself, if there is such a policy; raises :class:`ValueError`, for settings."""
    if name not in OWN[kind]:
        try:
            plug(kind, name)
        except UnknownPolicy as error:
            raise ValueError(str(error)) from None
    return name


def of_others(used: Iterable[tuple[Kind, str]]) -> tuple[Plugged, ...]:
    """Those among the used ones that Jarvis does not bring itself."""
    return tuple(sorted({plug(kind, name) for kind, name in used if name not in OWN[kind]}))


def need(plugged: Iterable[Plugged]) -> None:
    """Have those again with which something was decided; raises :class:`UnknownPolicy` where one is not installed here, or in
    another version."""
    for one in plugged:
        by = f"it was decided by the {one.kind} {one.name} of {one.package} {one.version}"
        hint = f"install {one.package} {one.version} here"
        try:
            here = plug(_kind(one.kind), one.name)
        except UnknownPolicy as error:
            raise UnknownPolicy(f"{by}, which is not usable here: {error}", hint) from None
        if here != one:
            raise UnknownPolicy(f"{by}; here is {here.package} {here.version}", hint)


def _kind(text: str) -> Kind:
    return next(kind for kind in OWN if kind == text)
