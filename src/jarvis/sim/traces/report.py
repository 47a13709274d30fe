"""Figures of a replay: means, and always beside them the 99th percentile and the longest."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from jarvis.sim.traces.cost import Prices, cost_of
from jarvis.sim.traces.replay import History, Ran

TAU_S = 10.0
"""Run times below this count as this much in a slowdown (Feitelson and Rudolph, JSSPP'98)."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Times in seconds; ``slowdown`` is the bounded one, max(1, (wait + run) / max(run, 10 s))."""

    tasks: int
    never: int
    slowdown: float
    slowdown_p99: float
    slowdown_longest: float
    wait: float
    wait_p99: float
    wait_longest: float
    turnaround: float
    turnaround_p50: float
    turnaround_p99: float
    turnaround_longest: float
    utilisation: float
    utilisation_to_last_start: float
    makespan: float
    preemptions: int
    preempted_most: int
    """How often the task was preempted that was so most often."""
    fairness: float
    """Jain's index of what waiting projects hold, 1 at best; ``contested``: seconds in which at least two waited."""
    contested: float
    starved: int
    """Tasks that waited longer than was asked about, and those that never began."""
    node_hours: float
    cost: float
    cost_unused: float
    """Share of the cost that was paid for what no task held."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


NOTHING_RAN = Figures(
    tasks=0, never=0, slowdown=0.0, slowdown_p99=0.0, slowdown_longest=0.0, wait=0.0, wait_p99=0.0, wait_longest=0.0,
    turnaround=0.0, turnaround_p50=0.0, turnaround_p99=0.0, turnaround_longest=0.0, utilisation=0.0,
    utilisation_to_last_start=0.0, makespan=0.0, preemptions=0, preempted_most=0, fairness=1.0, contested=0.0, starved=0,
    node_hours=0.0, cost=0.0, cost_unused=0.0,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Terms:
    """``starved_s``: who waits longer than so many seconds, starves; ``prices``: of what nodes have."""

    starved_s: float = 86_400.0
    prices: Prices = field(default_factory=dict)


USUAL = Terms()


def figures(history: History, terms: Terms = USUAL) -> Figures:
    ran = history.ran
    never = len(history.never)
    if not ran:
        return replace(NOTHING_RAN, never=never, starved=never)
    waits = sorted(r.wait for r in ran)
    slowdowns = sorted(_slowdown(r) for r in ran)
    times = sorted(r.ended - r.item.submitted for r in ran)
    begin = min(r.item.submitted for r in ran)
    end, last = max(r.ended for r in ran), max(r.started for r in ran)
    name = _busiest(history)
    work = history.work(name)
    total = history.capacity[name]
    cost = cost_of(history, end - begin, terms.prices)
    return Figures(
        len(ran), never, _mean(slowdowns), _p(slowdowns, 0.99), slowdowns[-1], _mean(waits), _p(waits, 0.99), waits[-1],
        _mean(times), _p(times, 0.5), _p(times, 0.99), times[-1], _ratio(work, (end - begin) * total),
        _ratio(work, (last - begin) * total),
        end - begin, sum(r.preempted for r in ran), max(r.preempted for r in ran), history.tally.fairness,
        history.tally.contested, sum(wait > terms.starved_s for wait in waits) + never, cost.node_hours, cost.total, cost.unused,
    )  # fmt: skip


def _busiest(history: History) -> str:
    """The resource of which the largest part was held: bytes and cpus compare in no other way."""
    return max(history.capacity, key=lambda name: _ratio(history.work(name), history.capacity[name]))


def _slowdown(ran: Ran) -> float:
    return max(1.0, (ran.wait + ran.item.run) / max(ran.item.run, TAU_S))


@dataclass(frozen=True, slots=True)
class Share:
    """What a project had. ``share`` is of all work that was done, by the resource of which the largest part was held."""

    project: str
    tasks: int
    share: float
    slowdown: float
    wait: float
    wait_p99: float
    wait_longest: float
    turnaround: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def shares(history: History) -> list[Share]:
    """Of each project, the largest first."""
    by_project: dict[str, list[Ran]] = {}
    for one in history.ran:
        by_project.setdefault(one.item.project, []).append(one)
    name = _busiest(history)
    work = {p: sum(r.held * r.item.whole.get(name, 0) for r in ran) for p, ran in by_project.items()}
    found = []
    for project, ran in by_project.items():
        waits = sorted(r.wait for r in ran)
        found.append(Share(
            project, len(ran), _ratio(work[project], sum(work.values())), _mean([_slowdown(r) for r in ran]), _mean(waits),
            _p(waits, 0.99), waits[-1], _mean([r.ended - r.item.submitted for r in ran]),
        ))  # fmt: skip
    return sorted(found, key=lambda share: (-share.share, share.project))


@dataclass(frozen=True, slots=True)
class Foresight:
    """How good predictions were, made at submission: of the later half of the tasks, those that had one."""

    tasks: int
    covered: float
    """Share of ends within their interval."""
    width: float
    """Median of the widths, seconds; ``width_mean`` beside it, and the mean of the limits."""
    width_mean: float
    limit_mean: float
    factor: float
    """By which the predicted time is off, in the median; ``factor_limit``: the limit."""
    factor_limit: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def foresight(history: History) -> Foresight | None:
    """None where nothing was predicted."""
    ran = sorted(history.ran, key=lambda r: r.item.submitted)
    half = [(r.item, r.said) for r in ran[len(ran) // 2 :] if r.said is not None]
    if not half:
        return None
    widths = sorted(said.high - said.low for _, said in half)
    limits = [(item.run if item.limit is None else item.limit, item.run) for item, _ in half]
    return Foresight(
        len(half), _mean([float(said.low <= item.run <= said.high) for item, said in half]), _p(widths, 0.5),
        _mean(widths), _mean([limit for limit, _ in limits]),
        _p(sorted(_factor(said.seconds, item.run) for item, said in half), 0.5),
        _p(sorted(_factor(limit, run) for limit, run in limits), 0.5),
    )  # fmt: skip


def _factor(said: float, was: float) -> float:
    low, high = sorted((max(said, 1.0), max(was, 1.0)))
    return high / low


def mean_of(several: list[Figures]) -> Figures:
    """Of sequences: the mean of each figure."""
    rows = [one.as_dict() for one in several]
    mean = {name: _mean([row[name] for row in rows]) for name in rows[0]}
    return Figures(**mean | {name: sum(r[name] for r in rows) for name in ("tasks", "never", "preemptions", "starved")})


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _p(ascending: list[float], share: float) -> float:
    return ascending[min(int(len(ascending) * share), len(ascending) - 1)]


def _ratio(above: float, below: float) -> float:
    return above / below if below else 0.0
