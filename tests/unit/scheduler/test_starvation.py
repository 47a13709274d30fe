"""Nobody starves: under a stream without end of newer, smaller, more urgent work every task starts within a bound.

``catch_up`` says, from the figures of the order alone, how many seconds after a task others may come and still go before it. Of
what came until then, finitely many wait. Each of them is first at some time, has a reservation then, and starts when everything
that ran has ended, that is within the longest time limit; so does the task itself, behind them. This holds with each backfill
that reserves or holds up (``skip`` promises nothing), and between owners as long as who waits holds nothing else.

With preemption it holds of each wait of a task, also of those after it made room: nobody but those that stand before it, as what
they have had says, may keep it from being first, and none that stands behind it may take the place of what it waits for. Where a
backfill keeps reservations, one more may: who was first when the wait began stays first, wherever it stands.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any, NamedTuple

import pytest
from tests.unit.scheduler.gang_harness import Gangs

from jarvis.core.attempt import Usage
from jarvis.core.ids import ElementKey
from jarvis.core.inputs import Ended, NodeReported
from jarvis.core.states import Cause, State
from jarvis.core.task import TaskSpec
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.policy.attained import behind
from jarvis.scheduler.policy.backfill import Backfill
from jarvis.scheduler.policy.fairness import Fairness
from jarvis.scheduler.policy.order import Order, weight_of
from jarvis.scheduler.policy.preemption import Preemption
from jarvis.scheduler.preemption import LOOK_S

LONGEST_S = 20.0
"""Of all time limits."""
ORDERS = (
    Order("fifo"),
    Order("priority", ageing=2.0),
    Order("priority", ageing=3.0, size=-5.0),
    Order("smallest_area", ageing=4.0),
    Order("smallest_area", exponent=0.5, ageing=0.1, patience=15.0),
    Order("shortest", ageing=0.1, patience=15.0),
    Order("least_attained"),
)
INF = float("inf")
URGENT = 100
"""The highest priority in the order that ages it; in all others, a higher priority goes before any waiting."""


def catch_up(order: Order, spec: TaskSpec) -> float:
    """Seconds of waiting that make up for all that anybody who comes later could be better by."""
    seconds = order.default_seconds if spec.time_limit is None else spec.time_limit
    size = weight_of(order, spec)
    if order.name == "priority":
        return (URGENT - spec.priority - min(order.size, 0.0) * size) / order.ageing
    if order.name == "smallest_area":
        return min((size * seconds) ** order.exponent / order.ageing, order.patience)
    if order.name == "shortest":
        return min(seconds**order.exponent / order.ageing, order.patience)
    return 0.0


@dataclass
class Stream:
    """A cluster with never less than ``backlog`` tasks waiting that came just now and are small, and now and then a large one."""

    chance: random.Random
    policy: Policy
    hurried: bool = False
    """Whether what comes is over within less than a second."""
    backlog: int = 3
    case: Gangs = field(init=False)
    owners: set[str] = field(default_factory=set)
    waiting: set[int] = field(default_factory=set)
    begun: dict[int, float] = field(default_factory=dict)
    _ends: list[tuple[float, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.case = Gangs(self.policy)
        self.case.checked = False
        for _ in range(self.chance.randint(1, 3)):
            self.case.able(self.chance.choice((2, 4, 8)))

    def run(self, seconds: float, large_until: float) -> None:
        end, begin = self.case.now + seconds, self.case.now
        while self.case.now < end:
            if self.case.now < begin + large_until and self.chance.random() < 0.1:
                self._large()
            while len(self.waiting) < self.backlog:
                self._small()
            self._next_end()

    def _next_end(self) -> None:
        self.case.now, task = heappop(self._ends)
        if self.case.attempt(task).ranks:
            for rank in range(len(self.case.attempt(task).ranks)):
                self.case.rank_ends(task, rank)
        else:
            self.case.ends(task)
        self._look()

    def _large(self) -> None:
        sizes = sorted(view.node.resources["cpu"] // 1000 for view in self.case.cluster.nodes.values())
        nodes = self.chance.choice((1, 1, len(sizes)))
        cpus = self.chance.randint(1, sizes[-nodes])
        self._submit(cpus, nodes=nodes, time_limit=self.chance.uniform(2.0, LONGEST_S))

    def _small(self) -> None:
        urgent = {"priority": URGENT} if self.policy.order.name == "priority" else {}
        limits = (0.5, 0.7, 0.9) if self.hurried else (4.0, 4.0, 4.0, 9.0, LONGEST_S)
        self._submit(1, time_limit=self.chance.choice(limits), **urgent)

    def _submit(self, cpus: int, **spec: Any) -> None:
        ident = len(self.case.tasks) + 1
        owner = self._owner() if self.policy.fairness.by == "owners" else "p"
        self.waiting.add(ident)
        self.case.submit_as(owner, "u", 1, {"cpu": 1000 * cpus}, **spec)
        self._look()

    def _owner(self) -> str:
        """One who has nothing yet, now and then a new one."""
        idle = self.owners - {task.project for task in self.case.cluster.tasks.values()}
        if not idle:
            self.owners.add(f"{self.chance.choice('abz')}{len(self.owners)}")
            return self._owner()
        return self.chance.choice(sorted(idle))

    def _look(self) -> None:
        """What began now ends within its limit, seldom just by it."""
        for task in sorted(self.waiting & set(self._on_nodes())):
            self.waiting.remove(task)
            self.begun[task] = self.case.now
            limit = self.case.tasks[task].spec.time_limit or 0.0
            heappush(self._ends, (self.case.now + limit * self.chance.choice((0.3, 0.9, 1.0)), task))

    def _on_nodes(self) -> Iterator[int]:
        for view in self.case.cluster.nodes.values():
            for placed in view.placed.values():
                if not placed.ahead:
                    yield placed.key.task

    def latest(self, task: int) -> float:
        """When it has to have begun: behind those that wait when nobody can go before it any more, with itself."""
        of = self.case.tasks[task]
        even = of.submitted_at + catch_up(self.policy.order, of.spec)
        if self.begun.get(task, INF) <= even:
            return even
        ahead = [t for t in self.case.tasks.values() if t.submitted_at <= even < self.begun.get(t.id, INF)]
        return even + len(ahead) * LONGEST_S


def check(seed: int) -> float:
    """The longest wait in a world from a seed, all of which end in time."""
    chance = random.Random(seed)
    order = ORDERS[seed % len(ORDERS)]
    backfill = Backfill(chance.choice(("none", "easy", "conservative")), keep=chance.random() < 0.3)
    fairness = Fairness(chance.choice(("nobody", "owners")))
    balancer = chance.choice(("least_loaded", "best_fit", "spread"))
    hurried = seed % 5 == 4
    world = Stream(chance, Policy(order=order, backfill=backfill, fairness=fairness, balancer=balancer), hurried)
    world.run(150.0 if hurried else 250.0, large_until=5.0 if hurried else 40.0)
    now, longest = world.case.now, 0.0
    for ident, task in world.case.tasks.items():
        begun, latest = world.begun.get(ident, now), world.latest(ident)
        assert begun <= latest, (
            f"seed {seed}: {ident} of {task.submitted_at} waits until {begun}, not {latest}: {world.policy}"
        )
        longest = max(longest, begun - task.submitted_at)
    return longest


def test_every_task_starts_within_its_bound() -> None:
    longest = [check(seed) for seed in (0, 1, 2, 3, 5, 11, 24)]
    assert max(longest) > LONGEST_S


@pytest.mark.soak
def test_in_a_thousand_worlds() -> None:
    for seed in range(1000):
        check(seed)


class Wait(NamedTuple):
    """Of a task: where it stood, from when until when."""

    stood: tuple[float, int]
    since: float
    until: float


@dataclass
class Turns(Stream):
    """With preemption, in which who was stopped goes on where it was."""

    left: dict[int, float] = field(default_factory=dict)
    """Task → seconds that it has to run still."""
    since: dict[int, float] = field(default_factory=dict)
    """Task that waits or runs → since when."""
    stops: dict[int, float] = field(default_factory=dict)
    """Task that was told to stop → when it does."""
    runs: set[int] = field(default_factory=set)
    waits: list[Wait] = field(default_factory=list)
    preempted: int = 0

    def _next_end(self) -> None:
        now = self.case.now + LOOK_S
        self.case.now, task = min([(self._end_of(task), task) for task in self.runs] + [(now, 0)])
        if task:
            self._end(task)
        else:
            self.case.step()
        self._look()

    def _end_of(self, task: int) -> float:
        return min(self.since[task] + self.left[task], self.stops.get(task, INF))

    def _end(self, task: int) -> None:
        self.runs.remove(task)
        self.left[task] -= self.case.now - self.since[task]
        over = self.left[task] < 1e-9
        self.stops.pop(task, None)
        self.since[task] = self.case.now
        self.preempted += not over
        attempt, cause = self.case.attempt(task), Cause.EXIT if over else Cause.PREEMPTED
        for rank in attempt.ranks or (attempt,):
            fact = Ended(number=rank.number, token=attempt.token, cause=cause, exit_code=0, usage=Usage(wall_s=1.0))
            self.case.step(
                NodeReported("report", self.case.cluster.nodes[rank.node].session or "", rank.node, 1, [fact])
            )

    def _look(self) -> None:
        while begun := set(self._on_nodes()) - self.runs:
            for task in sorted(begun):
                self._begin(task)
        grace = self.policy.preemption.grace if self.policy.preemption else 0.0
        for key, element in self.case.cluster.elements.items():
            if element.state is State.CANCELLING and key.task not in self.stops:
                self.stops[key.task] = self.case.now + grace * self.chance.choice((0.0, 0.5, 1.0))

    def _begin(self, task: int) -> None:
        now = self.case.now
        self.left.setdefault(task, (self.case.tasks[task].spec.time_limit or 0.0) * self.chance.choice((0.3, 0.9, 1.0)))
        self.waits.append(self._wait(task))
        self.waiting.discard(task)
        self.runs.add(task)
        self.since[task] = now
        if self.case.attempt(task).ranks:
            self.case.all_start(task)
        else:
            self.case.started(task)

    def _wait(self, task: int) -> Wait:
        """Until now."""
        submitted, had = self.case.tasks[task].submitted_at, self.case.cluster.attained.get(ElementKey(task), 0.0)
        stood = submitted + behind(self.policy.order, had), task
        return Wait(stood, self.since.get(task, submitted), self.case.now)

    def all_waits(self) -> list[Wait]:
        """Those that are not over among them."""
        queued = [task.id for task in self.case.cluster.tasks.values() if task.state is State.QUEUED]
        return self.waits + [self._wait(task) for task in queued]


def check_turns(seed: int) -> int:
    """How many were preempted in a world from a seed, in which each wait is over in time."""
    chance = random.Random(seed)
    order = Order("least_attained", first=chance.choice((2.0, 5.0)), patience=chance.choice((15.0, 60.0, INF)))
    backfill = Backfill(chance.choice(("none", "easy", "conservative")), keep=chance.random() < 0.3)
    grace, protect, times = chance.choice((0.0, 2.0)), chance.choice((0.0, 3.0)), chance.choice((3, 1000))
    rules = Preemption(attained=True, grace=grace, protect=protect, times=times)
    fairness, balancer = Fairness(chance.choice(("nobody", "owners"))), chance.choice(("least_loaded", "spread"))
    policy = Policy(order=order, backfill=backfill, preemption=rules, fairness=fairness, balancer=balancer)
    world = Turns(chance, policy)
    world.run(250.0, large_until=40.0)
    turn = LONGEST_S + rules.grace + LOOK_S
    for wait in world.all_waits():
        before = [w for w in world.waits if w.stood < wait.stood and wait.since < w.until <= wait.until]
        kept = [w for w in world.waits if w.since <= wait.since < w.until < wait.until and w.stood > wait.stood]
        most = len(before) + (backfill.keep and any(kept))
        assert wait.until - wait.since <= (most + 1) * turn, f"seed {seed}: {wait} behind {most}: {policy}"
    return world.preempted


def test_so_does_what_may_be_preempted_whenever_it_waits() -> None:
    assert sum(check_turns(seed) for seed in (0, 2, 9)) > 100


@pytest.mark.soak
def test_in_three_hundred_worlds_that_take_turns() -> None:
    for seed in range(300):
        check_turns(seed)
