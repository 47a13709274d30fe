"""What is known to fit nowhere is not searched for, and every decision is as if it had been."""

import copy
import random
from collections import Counter
from typing import Any

import pytest
from tests.unit.scheduler.harness import GIB, Case
from tests.unit.scheduler.test_alike import POLICIES, told

from jarvis.core.attempt import Usage
from jarvis.core.inputs import Ended, Fact, NodeReported, TasksTaken
from jarvis.core.resources import Resources
from jarvis.core.states import Cause
from jarvis.core.task import Affinity, Constraint, Task, TaskSpec
from jarvis.scheduler.choice import Choice
from jarvis.scheduler.cluster import Cluster, NodeView
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.policy.backfill import Backfill
from jarvis.scheduler.policy.fairness import Fairness
from jarvis.scheduler.pools import Group, Pool
from jarvis.scheduler.refusals import FEW, KEPT_MOST, Refusals
from jarvis.scheduler.task_queue import PlacementClass, class_of


class World:
    """Many classes on nodes that differ and are full, to two leaders that are told the same."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        policy = self.chance.choice((*POLICIES, Policy(balancer="spread"), Policy(balancer="best_fit")))
        self.knows, self.searches = Case(policy), Case(policy)
        self.ident = 0

    def begin(self) -> None:
        for _ in range(self.chance.randint(1, 6)):
            size: dict[str, Any] = {"cpus": self.chance.randint(1, 8), "mem": self.chance.randint(1, 8) * GIB}
            size["labels"] = {"kind": self.chance.choice("ab")}
            for case in (self.knows, self.searches):
                case.node(**size)

    def submitted(self) -> TasksTaken:
        return TasksTaken("tasks", [self._task() for _ in range(self.chance.randint(1, 30))])

    def _task(self) -> Task:
        self.ident += 1
        draw = self.chance.randint
        resources = {"cpu": 500 * draw(1, 8), "memory": draw(1, 16) * GIB // 2}
        more: dict[str, Any] = {}
        if self.chance.random() < 0.2:
            more["constraints"] = (Constraint("kind", "=", "a"),)
        if self.chance.random() < 0.1:
            more["keys"], more["affinities"] = ("k",), (Affinity("apart", "k"),)
        if self.chance.random() < 0.1:
            more["nodes"] = 2
        spec = TaskSpec(name="t", resources=resources, time_limit=float(draw(1, 90)), priority=draw(0, 2), **more)
        owner = self.chance.choice("uvw")
        return Task(id=self.ident, uuid="", project=owner, user=owner, spec=spec, submitted_at=self.knows.now)

    def reported(self) -> list[NodeReported]:
        reports = []
        for ident, view in self.knows.cluster.nodes.items():
            facts: list[Fact] = [
                Ended(
                    number=n, token=token, cause=Cause.EXIT, exit_code=0, usage=Usage(self.chance.choice((0.05, 20.0)))
                )
                for n, token in self._running(ident, view)
                if self.chance.random() < 0.3
            ]
            reports.append(NodeReported("report", view.session or "", ident, 1, facts))
        return reports

    def _running(self, ident: int, view: NodeView) -> list[tuple[int, int]]:
        """Numbers and tokens of what the node may end: of gangs it leads."""
        attempts = self.knows.cluster.attempts
        found = [(number, attempts[placed.key]) for number, placed in view.placed.items()]
        return [(number, a.token) for number, a in found if (a.node, a.number) == (ident, number)]


def both(world: World, *items: object) -> None:
    knows = world.knows.step(*copy.deepcopy(items))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Refusals, "where", lambda *_: None)
        searches = world.searches.step(*copy.deepcopy(items))
    assert told(knows, world.knows) == told(searches, world.searches)


@pytest.mark.parametrize("seed", range(8))
def test_every_decision_is_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    world, answers, where = World(seed), Counter[int | None](), Refusals.where

    def counted(refusals: Refusals, pool: Pool) -> tuple[int, ...] | None:
        found = where(refusals, pool)
        answers[None if found is None else len(found)] += 1
        return found

    monkeypatch.setattr(Refusals, "where", counted)
    world.begin()
    for _ in range(15):
        for case in (world.knows, world.searches):
            case.now += 1.0
        both(world, world.submitted(), *world.reported())
    for _ in range(5):
        both(world, *world.reported())
    assert answers.total() - answers[None] > 10, "something is known"
    assert len(world.knows.cluster.tasks) < world.ident, "something ends"


def test_what_is_kept_is_looked_at_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """In some of these worlds there is room on a node that is kept for a reservation: what ends soon enough begins there."""
    asked: list[tuple[int, bool]] = []
    among = Choice._among

    def counted(choice: Choice, nodes: tuple[int, ...], *rest: Any) -> tuple[int, bool] | None:
        found = among(choice, nodes, *rest)
        asked.append((len(nodes), found is not None))
        return found

    monkeypatch.setattr(Choice, "_among", counted)
    for seed in range(12):
        world = World(seed)
        world.begin()
        for _ in range(15):
            world.knows.now += 1.0
            world.searches.now += 1.0
            both(world, world.submitted(), *world.reported())
    assert sum(count > 0 for count, _ in asked) > 20
    assert any(found for _, found in asked)


def own_classes(classes: int, now: float, *, smallest_first: bool) -> TasksTaken:
    tasks = [
        Task(
            id=1000 + n, uuid="", project="p", user="u", submitted_at=now,
            spec=TaskSpec(name="t", resources={"cpu": 500, "memory": (1 + n if smallest_first else classes - n) << 20}),
        )
        for n in range(classes)
    ]  # fmt: skip
    return TasksTaken("tasks", tasks[::-1])


def looked_at(case: Case, *items: TasksTaken) -> int:
    """How many nodes a turn looks at."""
    looked, room = 0, Choice._room

    def looks(*given: Any) -> bool | None:
        nonlocal looked
        looked += 1
        return room(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Choice, "_room", looks)
        case.step(*items)
    return looked


def test_a_full_cluster_is_not_searched_for_each_class() -> None:
    case = Case(Policy(fairness=Fairness("nobody")))
    for _ in range(60):
        case.node(cpus=1)
    case.submit_as("p", "u", 60, {"cpu": 1000})
    assert looked_at(case, own_classes(50, case.now, smallest_first=False)) < 3 * 60
    assert len(case.cluster.tasks) == 60 + 50


def test_nor_is_one_with_room_that_is_kept() -> None:
    """Half a cpu of each class would fit on the node whose other half the first one waits for."""
    case = Case(Policy(fairness=Fairness("nobody"), backfill=Backfill("easy")))
    for _ in range(60):
        case.node(cpus=1)
    case.submit_as("p", "u", 59, {"cpu": 1000})
    case.submit_as("p", "u", 1, {"cpu": 500}, time_limit=100.0)
    case.submit_as("p", "u", 1, {"cpu": 1000}, priority=9)
    assert looked_at(case, own_classes(50, case.now, smallest_first=True)) < 4 * 60 + 2 * 50
    assert len(case.cluster.tasks) == 61 + 50


def pool_of(need: Resources, group: Group, **spec: Any) -> Pool:
    return Pool(class_of(TaskSpec(name="t", resources=need, **spec)), "least_loaded", group, [])


def test_what_is_larger_in_everything_is_covered() -> None:
    group, cluster = Group({1}), Cluster(1, 1)
    refusals = Refusals(cluster, 0.1)
    refusals.note(pool_of({"cpu": 2000, "memory": 5}, group), is_first=False)
    assert refusals.where(pool_of({"cpu": 2000, "memory": 5}, group)) == ()
    assert refusals.where(pool_of({"cpu": 3000, "memory": 9, "gpus_of_another_kind": 1}, group)) == ()
    for smaller in ({"cpu": 1999, "memory": 5}, {"cpu": 2000, "memory": 4}, {"cpu": 2000}):
        assert refusals.where(pool_of(smaller, group)) is None
    assert refusals.where(pool_of({"cpu": 2000, "memory": 5}, Group({1}))) is None, "other nodes"
    assert refusals.where(pool_of({"cpu": 2000, "memory": 5}, group, affinities=(Affinity("apart", "k"),))) is None


def test_what_may_go_ahead_is_looked_for() -> None:
    group, cluster = Group({1}), Cluster(1, 1)
    cluster.largest = {"cpu": 8000}
    pool = pool_of({"cpu": 1000}, group)
    of_class: PlacementClass = pool.placement_class
    for seconds, where in ((0.79, None), (0.81, ())):
        cluster.estimates[of_class] = seconds
        refusals = Refusals(cluster, 0.1)
        refusals.note(pool, is_first=False)
        assert refusals.where(pool) == where


def test_of_many_kept_nodes_nothing_is_known() -> None:
    group = Group(set(range(2 * FEW)))
    refusals, pool = Refusals(Cluster(1, 1), 0.1), pool_of({"cpu": 1000}, group)
    refusals.note(pool, is_first=True, kept=range(FEW + 1))
    assert refusals.where(pool) is None
    refusals.note(pool, is_first=True, kept=range(FEW))
    assert refusals.where(pool_of({"cpu": 2000}, group)) == tuple(range(FEW))
    assert not group.refused, "in the next cycle others may be kept"


def test_few_are_kept_and_the_smallest() -> None:
    group = Group({1})
    refusals = Refusals(Cluster(1, 1), 0.1)
    for n in range(2 * KEPT_MOST):
        refusals.note(pool_of({"cpu": 1000 + n, "memory": 1000 - n}, group), is_first=False)
    assert refusals.where(pool_of({"cpu": 1000, "memory": 1000}, group)) is None, "the first are forgotten"
    assert refusals.where(pool_of({"cpu": 1000 + 2 * KEPT_MOST, "memory": 1000}, group)) == ()
    refusals.note(pool_of({"cpu": 1}, group), is_first=False)
    assert refusals.where(pool_of({"cpu": 1}, group)) == ()
