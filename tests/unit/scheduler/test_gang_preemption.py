"""Gangs that preempt: on all of their nodes or on none, only what is less urgent, and then the whole gang starts."""

import random
from typing import Any

import pytest
from tests.unit.scheduler.gang_harness import Gangs

from jarvis.core.ids import ElementKey
from jarvis.core.quota import Quota
from jarvis.core.states import Cause, State
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.explain import why
from jarvis.scheduler.policy.backfill import Backfill
from jarvis.scheduler.policy.preemption import Preemption

RULES = Preemption(by=100, grace=5.0, protect=0.0, times=3, most=4)


def case_of(nodes: int = 2, cpus: int = 4, **policy: Any) -> Gangs:
    case = Gangs(Policy(preemption=RULES, **policy))
    case.nodes(nodes, cpus)
    return case


def runs(case: Gangs, cpus: int, **spec: Any) -> int:
    """A task that runs, ten seconds later."""
    ident = case.submit(cpus, **spec)
    attempt = case.attempt(ident)
    if attempt.ranks:
        case.all_start(ident)
    else:
        case.started(ident)
    case.wait(10)
    case.take()
    return ident


def stopping(case: Gangs) -> set[int]:
    return {key.task for key, element in case.cluster.elements.items() if element.state is State.CANCELLING}


def victim_ends(case: Gangs, ident: int) -> None:
    for rank in range(len(case.attempt(ident).ranks) or 1):
        if case.attempt(ident).ranks:
            case.rank_ends(ident, rank, None, Cause.PREEMPTED)
        else:
            case.ends(ident, cause=Cause.PREEMPTED)


def test_it_has_what_is_in_its_way_on_every_node_stopped_and_starts_when_all_of_it_is_over() -> None:
    case = case_of()
    one, two = runs(case, 4), runs(case, 3)
    gang = case.submit(3, nodes=2, priority=500)
    assert stopping(case) == {one, two}
    told = why(case.cluster, ElementKey(gang), case.now, case.policy)
    assert told is not None
    assert told["reasons"][0] == {
        "reason": "WaitingForPreempted", "text": f"tasks {one}, {two} on n1, n2 stop for it",
    }  # fmt: skip
    victim_ends(case, one)
    case.expect(gang, "queued")
    case.submit(3, priority=400)
    assert case.state(one) is State.QUEUED
    victim_ends(case, two)
    case.expect(gang, "assigned")


def test_a_node_that_is_free_costs_nobody_anything() -> None:
    case = case_of(3)
    low, high = runs(case, 4), runs(case, 4, priority=600)
    gang = case.submit(4, nodes=2, priority=500)
    assert stopping(case) == {low}
    victim_ends(case, low)
    case.expect(gang, "assigned")
    case.expect(high, "running")


def test_where_not_every_rank_would_find_room_nobody_is_stopped() -> None:
    case = case_of()
    runs(case, 4)
    runs(case, 4, preemptible=False)
    gang = case.submit(4, nodes=2, priority=500)
    assert stopping(case) == set()
    told = why(case.cluster, ElementKey(gang), case.now, case.policy)
    assert told is not None
    assert "of 2 attempts of lower standing on its nodes not all may be stopped: 1 never to be stopped" in [
        reason["text"] for reason in told["reasons"]
    ]


def test_not_more_than_a_cycle_may_stop_in_all() -> None:
    case = case_of(3)
    for _ in range(6):
        runs(case, 2)
    case.submit(4, nodes=3, priority=500)
    assert stopping(case) == set(), "six would have to go, and four may"
    case.submit(4, nodes=2, priority=500)
    case.wait(1)
    assert len(stopping(case)) == 4


def test_the_least_is_lost() -> None:
    case = case_of(3)
    old = runs(case, 4)
    case.wait(1000)
    young = {runs(case, 4), runs(case, 4)}
    case.submit(4, nodes=2, priority=500)
    assert stopping(case) == young
    case.expect(old, "running")


def test_a_gang_makes_room_for_a_gang() -> None:
    case = case_of()
    low = runs(case, 4, nodes=2)
    gang = case.submit(4, nodes=2, priority=500)
    assert stopping(case) == {low}
    victim_ends(case, low)
    case.expect(gang, "assigned")
    case.expect(low, "queued")


def test_a_node_that_is_lost_meanwhile_ends_what_was_kept() -> None:
    case = case_of()
    one, _ = runs(case, 4), runs(case, 4)
    gang = case.submit(4, nodes=2, priority=500)
    case.lose(1)
    victim_ends(case, next(iter(stopping(case) - {one} or stopping(case))))
    case.expect(gang, "queued")
    assert ElementKey(gang) not in case.cluster.claims


def test_what_a_project_is_guaranteed_is_not_taken_in_parts() -> None:
    case = case_of()
    case.cluster.quotas["p", ""] = Quota(project="p", guaranteed={"cpu": 4000})
    case.cluster.quotas["q", ""] = Quota(project="q", guaranteed={"cpu": 8000})
    runs(case, 4)
    runs(case, 4)
    case.submit_as("q", "u", 1, {"cpu": 4000}, nodes=2)
    assert stopping(case) == set(), "p would keep nothing of its 4 cpus"


def check(seed: int) -> int:
    """A cluster at random: how many gangs had others stopped, each rightly."""
    chance = random.Random(seed)
    case = case_of(chance.randint(2, 4), backfill=Backfill(chance.choice(["skip", "easy", "conservative"])))
    graph: dict[int, set[int]] = {}
    made = 0
    for _ in range(40):
        before = dict(case.cluster.claims)
        what = chance.random()
        if what < 0.4:
            case.submit(chance.randint(1, 4), nodes=chance.choice([1, 1, 2, 3]), priority=chance.choice([0, 100, 250]))
        elif what < 0.6:
            case.wait(chance.choice([0.5, 2.0, 10.0]))
        else:
            _goes_on(case, chance)
        for key, claim in case.cluster.claims.items():
            task = case.tasks[key.task]
            assert len(set(claim.nodes)) == task.spec.nodes, f"seed {seed}"
            if before.get(key) == claim:
                continue
            made += task.spec.nodes > 1
            for victim, _ in claim.victims:
                other = case.tasks[victim.task]
                assert task.spec.priority >= other.spec.priority + 100, f"seed {seed}: {other.id} for {task.id}"
                graph.setdefault(task.id, set()).add(other.id)
            assert _would_fit(case, key, claim), f"seed {seed}: {key}"
    for _ in range(100):
        if not stopping(case):
            break
        victim_ends(case, min(stopping(case)))
    assert not case.cluster.claims, f"seed {seed}: all victims are over, and nothing is kept"
    _acyclic(graph)
    return made


def _goes_on(case: Gangs, chance: random.Random) -> None:
    """Something that is on nodes starts, or ends."""
    if not case.cluster.attempts:
        return
    key = chance.choice(sorted(case.cluster.attempts))
    state = case.state(key)
    if state is State.CANCELLING:
        victim_ends(case, key.task)
    elif state is State.ASSIGNED:
        case.all_start(key.task) if case.attempt(key).ranks else case.started(key)
    elif chance.random() < 0.3 and not case.attempt(key).ranks:
        case.ends(key)


def _would_fit(case: Gangs, key: ElementKey, claim: Any) -> bool:
    """On each of the nodes, when all that is stopping there is over and only that."""
    need = case.tasks[key.task].spec.resources["cpu"]
    for node in claim.nodes:
        placed = case.cluster.nodes[node].placed.values()
        stay = sum(p.need["cpu"] for p in placed if case.state(p.key) is not State.CANCELLING)
        if stay + need > case.cluster.nodes[node].node.resources["cpu"]:
            return False
    return True


def _acyclic(graph: dict[int, set[int]]) -> None:
    left = {task: set(others) for task, others in graph.items()}
    while left:
        ends = [task for task, others in left.items() if not others & left.keys()]
        assert ends, f"preemption goes around: {left}"
        for task in ends:
            del left[task]


def test_at_random() -> None:
    assert sum(check(seed) for seed in range(12)) > 2


@pytest.mark.soak
def test_a_thousand_at_random() -> None:
    assert sum(check(seed) for seed in range(1000)) > 200
