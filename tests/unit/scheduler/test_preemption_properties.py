"""Preemption in random clusters: what never happens, whatever is asked for, and the cheapest victims beside all others."""

import itertools
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.scheduler.harness import Case

from jarvis.core.ids import ElementKey
from jarvis.core.quota import Quota
from jarvis.core.states import Cause, State
from jarvis.core.task import Task
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.policy.preemption import NOTHING_FOUND, Candidate, Preemption, Search, Standing, some_set

RULES = Preemption(by=100, grace=5.0, protect=5.0, times=2, most=3)
TIERS = {"urgent": 1}
OWNERS = ("a", "b", "c")


class Watched(Case):
    """Looks at each turn: who was stopped, for whom, and whether it was right."""

    def __init__(self, guaranteed: dict[str, int], limited: dict[str, int]) -> None:
        super().__init__(Policy(preemption=RULES, queue_tiers=TIERS))
        for project in OWNERS:
            cpu = limited.get(project)
            self.cluster.quotas[project, ""] = Quota(
                project=project, resources={} if cpu is None else {"cpu": cpu},
                guaranteed={"cpu": guaranteed[project]} if project in guaranteed else {},
            )  # fmt: skip
        self.guaranteed, self.limited = guaranteed, limited
        self.stopped: dict[ElementKey, int] = {}
        self.for_others: set[tuple[ElementKey, int]] = set()
        """Attempts that were stopped for other projects; what a project has stopped for itself, it gets back."""
        self.graph: dict[int, set[int]] = {}
        """Task → those that it ever had stopped."""

    def held(self, project: str, keys: list[ElementKey] | None = None) -> int:
        found = self.cluster.attempts if keys is None else keys
        needs = [self.tasks[key.task] for key in found]
        return sum(task.spec.resources["cpu"] for task in needs if task.project == project)

    def step(self, *items: object, placing: bool = True):  # type: ignore[no-untyped-def]
        claims = dict(self.cluster.claims)
        turn = super().step(*items, placing=placing)
        for event in turn.changes.events:
            if event.kind == "cancelling" and event.detail.get("reason") == "Preempted":
                self.judge(ElementKey(event.task, event.index), int(str(event.detail["by"])))
        for project, most in self.limited.items():
            assert self.held(project) <= most, f"{project} is over its quota"
        for key, claim in claims.items():
            if key in self.cluster.claims or self.state(key) is not State.QUEUED:
                continue
            on_node = self.cluster.nodes[claim.node].placed
            assert not any(number in on_node for _, number in claim.victims), f"{key} was forgotten while it waits"
        return turn

    def judge(self, victim: ElementKey, by: int) -> None:
        lower, higher = self.tasks[victim.task], self.tasks[by]
        self.stopped[victim] = self.stopped.get(victim, 0) + 1
        assert self.stopped[victim] <= RULES.times
        attempt = self.cluster.attempts[victim]
        assert self.now - (attempt.started_at or attempt.assigned_at) >= RULES.protect
        assert lower.spec.preemptible
        by_standing = is_higher(higher, lower)
        share = self.guaranteed.get(higher.project, 0)
        reclaims = higher.project != lower.project and higher.spec.resources["cpu"] <= share
        assert by_standing or reclaims, f"{by} preempts {victim}"
        if by_standing and not reclaims:
            self.graph.setdefault(by, set()).add(victim.task)
        if higher.project != lower.project:
            self.for_others.add((victim, attempt.attempt))
            staying = [k for k, a in self.cluster.attempts.items() if (k, a.attempt) not in self.for_others]
            staying += self.cluster.claims  # room is kept for them
            assert self.held(lower.project, staying) >= self.guaranteed.get(lower.project, 0), (
                f"{victim} was guaranteed"
            )


def is_higher(one: Task, other: Task) -> bool:
    tiers = [TIERS.get(task.spec.queue, 0) for task in (one, other)]
    return tiers[0] > tiers[1] or (tiers[0] == tiers[1] and one.spec.priority - other.spec.priority >= 100)


def submit(case: Watched, chance: random.Random) -> None:
    case.submit_as(
        chance.choice(OWNERS), "u", 1, {"cpu": chance.choice((500, 1000, 2000, 4000))},
        priority=chance.choice((-100, 0, 50, 100, 300)), queue=chance.choice(("default", "default", "urgent")),
        preemptible=chance.random() < 0.8, time_limit=100.0,
    )  # fmt: skip


def goes_on(case: Watched, what: str, share: float, chance: random.Random) -> None:
    """Some of what is so far."""
    for key in [key for key, e in sorted(case.cluster.elements.items()) if e.state is WANTED[what]]:
        if chance.random() >= share:
            continue
        if what == "start":
            case.started(key)
        else:
            wish = case.cluster.elements[key].wish
            cause = {"preempt": Cause.PREEMPTED, "cancel": Cause.CANCELLED}.get(wish, Cause.EXIT)
            case.ends(key, cause=cause, exit_code=0)


WANTED = {"start": State.ASSIGNED, "end": State.RUNNING, "stopped": State.CANCELLING}


def act(case: Watched, chance: random.Random) -> None:
    roll = chance.random()
    if roll < 0.3:
        submit(case, chance)
    elif roll < 0.35:
        case.wait(chance.choice((0.5, 1.5)))
    elif roll < 0.6:
        case.wait(chance.choice((6.0, 20.0)))
    elif roll < 0.95:
        what, share = chance.choice((("start", 0.9), ("stopped", 0.8), ("end", 0.3)))
        goes_on(case, what, share, chance)
    elif case.cluster.tasks:
        case.command("cancel", chance.choice(sorted(case.cluster.tasks)))


def check(seed: int) -> int:
    """How many were stopped in a cluster from a seed, each of them rightly."""
    chance = random.Random(seed)
    guaranteed = {project: chance.choice((1000, 2000, 3000)) for project in OWNERS if chance.random() < 0.3}
    limited = {project: chance.choice((2000, 4000, 5000)) for project in OWNERS if chance.random() < 0.3}
    case = Watched(guaranteed, {p: max(most, guaranteed.get(p, 0)) for p, most in limited.items()})
    for _ in range(chance.randint(1, 3)):
        case.node(cpus=chance.choice((2, 4, 6)))
    try:
        for _ in range(chance.randint(30, 150)):
            act(case, chance)
        assert not _circle(case.graph), "a preempted b, and b, or what b preempted, a"
        _bring_to_an_end(case, chance)
    except AssertionError as wrong:
        raise AssertionError(f"seed {seed}: {wrong}") from wrong
    return sum(case.stopped.values())


def test_what_never_happens() -> None:
    assert sum(check(seed) for seed in range(25)) > 80


@pytest.mark.soak
def test_nor_in_two_thousand_clusters() -> None:
    assert sum(check(seed) for seed in range(2000)) > 8000


def _bring_to_an_end(case: Watched, chance: random.Random) -> None:
    """Everything that can run does, and nothing is preempted for ever."""
    for _ in range(400):
        if not case.cluster.tasks:
            return
        for what in ("start", "stopped", "end"):
            goes_on(case, what, 0.7, chance)
        case.wait(2.0)
    stuck = [task for task in case.cluster.tasks.values() if case.cluster.attempts or fits_somewhere(case, task)]
    assert not stuck, f"tasks {stuck} never end"


def fits_somewhere(case: Watched, task: Task) -> bool:
    within = task.spec.resources["cpu"] <= case.limited.get(task.project, 1 << 30)
    return within and any(task.spec.resources["cpu"] <= v.node.resources["cpu"] for v in case.cluster.nodes.values())


def _circle(graph: dict[int, set[int]]) -> bool:
    """Whether anything is left when what preempted nothing (any more) is taken away again and again."""
    left = dict(graph)
    while leaves := [task for task, below in left.items() if not below & left.keys()]:
        for task in leaves:
            del left[task]
    return bool(left)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.lists(st.sampled_from((0, 100, 900)), min_size=1, max_size=6),
    st.integers(0, 5),
)
def test_an_owner_below_its_guarantee_gets_it_soon(
    nodes: int, cpus: int, priorities: list[int], more: int
) -> None:  # fmt: skip
    """Every cycle that finds it below stops some; when those have ended, it has as much more: so many cycles are enough."""
    share = min(nodes * 4, cpus) * 1000
    case = Watched({"a": share}, {})
    for _ in range(nodes):
        case.node(cpus=4)
    for at in range(nodes * 4 + more):
        case.submit_as(OWNERS[1 + at % 2], "u", 1, {"cpu": 1000}, priority=priorities[at % len(priorities)])
    for key in list(case.cluster.attempts):
        case.started(key)
    case.wait(10.0)
    case.submit_as("a", "u", share // 1000 + 2, {"cpu": 1000}, priority=-900)
    for _ in range(share // 1000 + 1):
        for key in [k for k, e in case.cluster.elements.items() if e.state is State.CANCELLING]:
            case.ends(key, cause=Cause.PREEMPTED)
        case.wait(2.0)
    assert case.held("a") >= share


candidates = st.lists(
    st.tuples(st.integers(0, 6), st.sampled_from((500, 1000, 2000, 3000)), st.booleans()), min_size=1, max_size=8
)


@pytest.mark.parametrize("permitted_most", [2, 8])
@settings(max_examples=150, deadline=None)
@given(found=candidates, need=st.integers(500, 9000))
def test_no_set_is_cheaper(found: list[tuple[int, int, bool]], need: int, permitted_most: int) -> None:
    """Branch and bound beside all sets there are; the quick bound is a set, too, and none of its victims is there in vain."""
    every = sorted(
        Candidate(float(loss), ElementKey(at), at, {"cpu": cpu}, (), "p", Standing(0, 0), stopping)
        for at, (loss, cpu, stopping) in enumerate(found)
    )

    def enough(victims: Sequence[Candidate]) -> bool:
        return sum(victim.need["cpu"] for victim in victims) >= need

    def permitted(victims: Sequence[Candidate]) -> bool:
        return sum(not victim.stopping for victim in victims) <= permitted_most

    quick = some_set(every, enough, permitted)
    best = Search(enough, permitted, 10_000).run(every, quick)
    sets = (s for n in range(len(every) + 1) for s in itertools.combinations(every, n) if enough(s) and permitted(s))
    cheapest = min((sum(c.loss for c in s) for s in sets), default=NOTHING_FOUND.loss)
    assert best.loss == cheapest
    assert best.loss <= quick.loss
    for chosen in (quick, best):
        for victim in chosen.victims:
            assert not enough([other for other in chosen.victims if other is not victim])


def test_the_order_of_what_is_asked_does_not_matter() -> None:
    """Equal losses: the lower ids, however the nodes came to know them."""
    one, two = (Candidate(1.0, ElementKey(n), n, {"cpu": 1000}, (), "p", Standing(0, 0)) for n in (1, 2))

    def enough(victims: object) -> bool:
        return bool(victims)

    for order in ([one, two], [two, one]):
        found = Search(enough, enough, 100).run(sorted(order), NOTHING_FOUND)
        assert found.keys == (ElementKey(1),)
