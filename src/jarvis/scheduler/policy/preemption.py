"""PURE: preemption: what may stop what, and which set of running attempts makes room for the least lost work.

Who may preempt is decided by standings, a queue's tier first and priority within it, and only a strictly higher one preempts. These
two do not change while a task lives. So of two tasks at most one can ever preempt the other, and no chain of them comes back to its
begin. The level of what was attained, where it counts, only falls behind by running: two tasks take turns at most once a level. How
often an element is preempted is bounded besides.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jarvis.core.gpus import Share
from jarvis.core.ids import ElementKey
from jarvis.core.resources import Resources
from jarvis.core.states import Cause
from jarvis.core.task import TaskSpec
from jarvis.scheduler.policy.backfill import NEVER


@dataclass(frozen=True, slots=True)
class Preemption:
    """Who may preempt whom, and how victims are spared."""

    by: int | None = 1000
    """Within a tier, a priority must be higher by at least so much; None: priorities preempt nothing."""
    tiers: bool = True
    """Whether a queue of a higher tier preempts those of lower ones."""
    grace: float = 30.0
    """Seconds from the soft signal, at which a victim may write a checkpoint, to the kill."""
    protect: float = 60.0
    """Seconds for which an attempt is left alone after its start."""
    times: int = 3
    """How often an element is preempted at most."""
    most: int = 100
    """Victims a cycle."""
    attained: bool = False
    """Whether, where priority does not decide, what has attained less preempts what has attained more, by levels of the order."""
    spared: frozenset[str] = frozenset()
    """Queues of which nothing is preempted."""


RECLAIMING = Preemption(by=None, tiers=False)
"""Where preemption is off, and projects are guaranteed shares."""


class Standing(NamedTuple):
    """What decides who may preempt. Tier and priority never change while a task lives."""

    tier: int
    priority: int
    level: int = 0
    """Of what it has attained, lower first; 0 for all where that does not count."""


class Claim(NamedTuple):
    """Room on a node that is kept for what waits, until the attempts that were stopped for it have ended.

    ``victims``: their elements with the numbers of their attempts on these nodes. ``others``: of a gang, the nodes on which room is
    kept for its other ranks; it has room on all of them, or there is no claim."""

    node: int
    victims: tuple[tuple[ElementKey, int], ...]
    others: tuple[int, ...] = ()

    @property
    def nodes(self) -> tuple[int, ...]:
        return (self.node, *self.others)


class Candidate(NamedTuple):
    """An attempt that may be stopped. ``loss``: the cpu-seconds that are lost with it, or where attained service counts, the ends a
    second that are put off; 0 for what is being stopped already."""

    loss: float
    key: ElementKey
    number: int
    need: Resources
    shares: tuple[Share, ...]
    project: str
    standing: Standing
    stopping: bool = False
    whole: Resources = {}
    """With all that it has on other nodes, which it loses as well."""


def beats(rules: Preemption, mine: Standing, other: Standing) -> bool:
    """Whether a task of one standing may preempt one of another."""
    if mine.tier != other.tier:
        return rules.tiers and mine.tier > other.tier
    if rules.by is not None and mine.priority >= other.priority + max(rules.by, 1):
        return True
    return rules.attained and mine.priority >= other.priority and mine.level < other.level


def may_stop(rules: Preemption, spec: TaskSpec) -> bool:
    """Whether a task may be stopped and run again: nobody said otherwise, and nobody is connected to it."""
    return (
        spec.preemptible
        and spec.on_lost != "never"
        and str(Cause.PREEMPTED) not in spec.retry.never_on
        and spec.queue not in rules.spared
        and not spec.pty
        and spec.stdin != "-"
    )


class Best(NamedTuple):
    """A set of victims. Sorts by what it costs: lost work, then how many, then which."""

    loss: float
    many: int
    keys: tuple[ElementKey, ...]
    victims: tuple[Candidate, ...]


NOTHING_FOUND = Best(NEVER, 0, (), ())
Asked = Callable[[Sequence[Candidate]], bool]


def some_set(candidates: Sequence[Candidate], enough: Asked, permitted: Asked) -> Best:
    """The cheapest first until there is room, then without those that turn out not to be needed: a bound, quickly found."""
    chosen: list[Candidate] = []
    for candidate in candidates:
        if enough(chosen):
            break
        if permitted([*chosen, candidate]):
            chosen.append(candidate)
    if not enough(chosen):
        return NOTHING_FOUND
    for candidate in reversed(list(chosen)):
        fewer = [other for other in chosen if other is not candidate]
        if enough(fewer):
            chosen = fewer
    return _best_of(chosen)


class Search:
    """The cheapest set of victims of a node, cheaper than what was found elsewhere, by branch and bound.

    ``steps`` bounds the work: when they are used up, the best found so far stands.
    """

    def __init__(self, enough: Asked, permitted: Asked, steps: int) -> None:
        self.enough, self.permitted, self.steps = enough, permitted, steps

    def run(self, candidates: Sequence[Candidate], bound: Best) -> Best:
        """``candidates`` ascending by loss; ``bound`` itself when nothing better is found."""
        self._best = bound
        self._go(candidates, 0, [], 0.0)
        return self._best

    def _go(self, candidates: Sequence[Candidate], at: int, chosen: list[Candidate], loss: float) -> None:
        if self.steps <= 0:
            return
        self.steps -= 1
        if self.enough(chosen):
            self._best = min(self._best, _best_of(chosen))
            return
        if (loss, len(chosen) + 1) >= self._best[:2]:  # at least one more is needed; of equal sets the first stands
            return
        if not self.enough([*chosen, *candidates[at:]]):
            return
        for index in range(at, len(candidates)):
            candidate = candidates[index]
            if (loss + candidate.loss, len(chosen) + 1) >= self._best[:2]:
                return
            chosen.append(candidate)
            if self.permitted(chosen):
                self._go(candidates, index + 1, chosen, loss + candidate.loss)
            chosen.pop()


def _best_of(chosen: Sequence[Candidate]) -> Best:
    victims = tuple(sorted(chosen, key=lambda candidate: candidate.key))
    return Best(sum(c.loss for c in victims), len(victims), tuple(c.key for c in victims), victims)
