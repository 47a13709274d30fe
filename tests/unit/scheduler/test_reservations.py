"""What is promised to who waits: a start that was reserved is never put off by what starts before it.

Random clusters of which every time limit is exact (or kept, where that is said), told to the engine cycle by cycle; what each
node has room for, and from when on, is counted here once more.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from tests.unit.scheduler.gang_harness import Gangs

from jarvis.core.attempt import Usage
from jarvis.core.ids import ElementKey
from jarvis.core.inputs import Ended, NodeReported, TasksTaken
from jarvis.core.resources import Resources, fits, subtract
from jarvis.core.states import Cause, State
from jarvis.core.task import Task, TaskSpec
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.policy.backfill import Backfill
from jarvis.scheduler.policy.fairness import Fairness
from jarvis.scheduler.policy.order import Order

ORDERS = (Order("fifo"), Order("smallest_area"), Order("shortest"), Order("priority", size=-1.0))
SLACK = 1e-6


@dataclass
class Promises:
    """Many tasks that came at once to a few nodes, until all have ended."""

    chance: random.Random
    policy: Policy
    exact: bool
    case: Gangs = field(init=False)
    ends: dict[int, tuple[float, float]] = field(default_factory=dict)
    """Task that runs → when it ends, and when it is expected to."""
    promised: dict[ElementKey, float] = field(default_factory=dict)
    kept: int = 0
    passed: int = 0
    """Tasks that started although another had a reservation."""

    def __post_init__(self) -> None:
        self.case = Gangs(replace(self.policy, ahead_seconds=0.0))
        self.case.checked = False
        for _ in range(self.chance.randint(1, 4)):
            self.case.able(self.chance.choice((2, 4, 6)), mem=self.chance.choice((4, 8)))
        tasks = [self._task(at) for at in range(1, self.chance.randint(10, 40))]
        self.case.step(TasksTaken("submit", tasks))
        self._look()

    def _task(self, ident: int) -> Task:
        nodes = sorted((v.node.resources for v in self.case.cluster.nodes.values()), key=lambda r: -r["cpu"])
        ranks = self.chance.choice((1, 1, 1, len(nodes)))
        need = {name: self.chance.randint(1, min(has[name] for has in nodes[:ranks])) for name in ("cpu", "memory")}
        need["cpu"] = max(need["cpu"] // 1000, 1) * 1000
        limit = self.chance.choice((self.chance.uniform(0.2, 1.0), self.chance.uniform(1.0, 60.0)))
        spec = TaskSpec(name="t", resources=need, time_limit=limit, nodes=ranks, priority=self.chance.choice((0, 0, 2)))
        return Task(id=ident, uuid="", project="p", user="u", submitted_at=self.case.now, spec=spec)

    def run(self) -> None:
        while self.ends:
            self.case.now = min(end for end, _ in self.ends.values())
            over = [task for task, (end, _) in self.ends.items() if end <= self.case.now + SLACK]
            reports = [report for task in over for report in self._reports(task)]
            for task in over:
                del self.ends[task]
            self.case.step(*reports)
            self._look()
        waits = [task for task in self.case.cluster.tasks.values() if task.state is State.QUEUED]
        assert not waits, f"nothing runs, and there is room for {waits[0].spec}"

    def _reports(self, task: int) -> Iterator[NodeReported]:
        """All that end at an instant are told at once: of what should have ended, nobody knows when it will."""
        attempt = self.case.attempt(task)
        for rank in attempt.ranks or (attempt,):
            fact = Ended(
                number=rank.number, token=attempt.token, cause=Cause.EXIT, exit_code=0, usage=Usage(wall_s=1.0)
            )
            yield NodeReported("report", self.case.cluster.nodes[rank.node].session or "", rank.node, 1, [fact])

    def _look(self) -> None:
        now, reservations = self.case.now, self.case.cluster.reservations
        for key, attempt in self.case.cluster.attempts.items():
            if attempt.assigned_at == now and key.task not in self.ends:
                limit = self.case.tasks[key.task].spec.time_limit or 0.0
                share = 1.0 if self.exact else self.chance.choice((0.2, 0.9, 1.0))
                self.ends[key.task] = now + limit * share, now + limit
                self.passed += bool(reservations)
                if key in self.promised:
                    self.kept += 1
                    assert now <= self.promised[key] + SLACK, f"{key} begins at {now}, not at {self.promised[key]}"
        for key, (_, start) in reservations.items():
            before = self.promised.setdefault(key, start)
            assert start <= before + SLACK, f"{key} is put off from {before} to {start}"
            self.promised[key] = start
        if self.policy.backfill.name == "easy" and reservations:
            self._count_again(*next(iter(reservations.items())))

    def _count_again(self, key: ElementKey, said: tuple[int, float]) -> None:
        """With all that runs, however it was let in, the one that is first begins on its nodes when that was said."""
        cluster, need = self.case.cluster, self.case.tasks[key.task].spec.resources
        nodes = [said[0], *cluster.reserved_others.get(key, ())]
        assert max(self._has_room(node, need) for node in nodes) <= said[1] + SLACK

    def _has_room(self, node: int, need: Resources) -> float:
        placed = [p for p in self.case.cluster.nodes[node].placed.values() if p.key.task in self.ends]
        for at in sorted({self.case.now, *(self.ends[p.key.task][1] for p in placed)}):
            free = self.case.cluster.nodes[node].node.resources
            for other in placed:
                if self.ends[other.key.task][1] > at:
                    free = subtract(free, other.need)
            if fits(need, free):
                return at
        raise AssertionError("it is larger than the node")


def check(seed: int) -> tuple[int, int]:
    """How many reservations were kept, and how many tasks passed one."""
    chance = random.Random(seed)
    name: Any = ("easy", "conservative")[seed % 2]
    order = chance.choice(ORDERS)
    backfill = Backfill(name, extra=chance.random() < 0.7, order=chance.choice(("policy", "policy", "shortest")))
    balancer = chance.choice(("least_loaded", "best_fit", "spread", "bin_pack"))
    policy = Policy(order=order, backfill=backfill, fairness=Fairness("nobody"), balancer=balancer)
    world = Promises(chance, policy, exact=name == "conservative" or chance.random() < 0.5)
    try:
        world.run()
    except AssertionError as wrong:
        raise AssertionError(f"seed {seed}: {wrong}; {policy}") from wrong
    return world.kept, world.passed


def test_what_starts_beside_a_reservation_gives_its_room_back_once() -> None:
    """The fourth: of the node the first end was looked at for the reservation of the third, and no later one yet."""
    case = Gangs(Policy(order=Order("fifo"), backfill=Backfill("conservative"), ahead_seconds=0.0))
    case.able(4)
    asked = ((1, 10.0), (1, 100.0), (3, 5.0), (1, 8.0), (4, 50.0), (1, 200.0))
    specs = [TaskSpec(name="t", resources={"cpu": 1000 * cpus}, time_limit=limit) for cpus, limit in asked]
    tasks = [
        Task(id=at, uuid="", project="p", user="u", submitted_at=case.now, spec=spec)
        for at, spec in enumerate(specs, 1)
    ]
    case.step(TasksTaken("submit", tasks))
    starts = {key.task: start - case.now for key, (_, start) in case.cluster.reservations.items()}
    assert starts == {3: 10.0, 5: 100.0, 6: 150.0}


def test_a_reserved_start_is_never_put_off() -> None:
    kept, passed = (sum(figures) for figures in zip(*(check(seed) for seed in range(30)), strict=True))
    assert kept > 100
    assert passed > 100


@pytest.mark.soak
def test_nor_in_two_thousand_clusters() -> None:
    for seed in range(2000):
        check(seed)
