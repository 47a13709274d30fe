"""Guaranteed shares: borrowed while they are not wanted, given back when they are, and never taken from within a guarantee."""

import pytest
from tests.unit.scheduler.harness import Case

from jarvis.core.ids import ElementKey
from jarvis.core.quota import Quota
from jarvis.core.states import Cause, State
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.explain import why
from jarvis.scheduler.policy.backfill import Backfill, BackfillName
from jarvis.scheduler.policy.fairness import Fairness
from jarvis.scheduler.policy.preemption import Preemption

CPU = {"cpu": 1000}


def case_of(policy: Policy | None = None, **guaranteed: int) -> Case:
    """A cluster of one node with four cpus; ``a=2``: project a is guaranteed two of them."""
    case = Case(policy)
    case.node(cpus=4)
    for project, cpus in guaranteed.items():
        args = {"guaranteed.cpu": cpus * 1000}
        case.command("quota_set", project=project, **args)
    return case


def held(case: Case, project: str) -> int:
    return case.cluster.ledger.project(project).held.get("cpu", 0) // 1000


def pass_by(case: Case, seconds: float = 70.0) -> None:
    """All that is on the node runs, and is past its protection."""
    for key, attempt in list(case.cluster.attempts.items()):
        if attempt.started_at is None:
            case.started(key)
    case.wait(seconds)
    case.take()


def victims_end(case: Case) -> list[str]:
    """The projects of those that were told to stop, once they have ended."""
    stopped = [key for key, e in case.cluster.elements.items() if e.state is State.CANCELLING]
    projects = [case.tasks[key.task].project for key in stopped]
    for key in stopped:
        case.ends(key, cause=Cause.PREEMPTED)
    return projects


def test_what_is_not_used_is_borrowed_and_given_back() -> None:
    case = case_of(a=2)
    case.submit_as("b", "u", 6, CPU)
    assert held(case, "b") == 4
    pass_by(case)
    case.submit_as("a", "u", 3, CPU)
    case.wait(2)
    while projects := victims_end(case):
        assert set(projects) == {"b"}
        case.wait(2)
    assert (held(case, "a"), held(case, "b")) == (2, 2)


def test_an_owner_goes_first_as_far_as_its_guarantee() -> None:
    """Before what others want in a higher tier, and whatever the shares."""
    policy = Policy(queue_tiers={"urgent": 1}, fairness=Fairness("nobody"))
    case = case_of(policy, a=2)
    case.submit_as("b", "u", 1, {"cpu": 4000})
    case.submit_as("b", "u", 4, CPU, queue="urgent", priority=900)
    case.submit_as("a", "u", 4, CPU)
    case.ends(1)
    assert (held(case, "a"), held(case, "b")) == (2, 2)


@pytest.mark.parametrize("name", ["none", "easy", "conservative"])
def test_reservations_of_others_do_not_stand_before_it(name: BackfillName) -> None:
    case = case_of(Policy(backfill=Backfill(name, keep=True)), a=1)
    case.submit_as("b", "u", 1, {"cpu": 3000})
    case.submit_as("b", "u", 1, {"cpu": 4000})
    case.submit_as("a", "u", 1, CPU)
    assert held(case, "a") == 1


def test_nobody_within_their_own_guarantee_loses_anything() -> None:
    case = case_of(a=2, b=4)
    case.submit_as("b", "u", 4, CPU)
    pass_by(case)
    case.submit_as("a", "u", 2, CPU, priority=1000)
    case.wait(5)
    assert not case.stops()


def test_a_task_goes_back_as_a_whole_or_not_at_all() -> None:
    case = case_of(a=1, b=3)
    case.submit_as("b", "u", 1, {"cpu": 4000})
    pass_by(case)
    case.submit_as("a", "u", 1, CPU)
    case.wait(5)
    assert not case.stops()


def test_what_exceeds_the_guarantee_reclaims_nothing() -> None:
    case = case_of(a=2)
    case.submit_as("b", "u", 4, CPU)
    pass_by(case)
    case.submit_as("a", "u", 1, {"cpu": 3000})
    case.wait(5)
    assert not case.stops()


def test_a_priority_does_not_reach_into_a_guarantee() -> None:
    case = case_of(Policy(preemption=Preemption(by=500)), b=3)
    case.submit_as("b", "u", 4, CPU)
    pass_by(case)
    case.submit_as("a", "u", 1, CPU, priority=1000)
    case.submit_as("a", "u", 1, {"cpu": 500}, priority=1000)
    case.wait(5)
    assert len(case.stops()) == 1


def test_the_same_rules_protect() -> None:
    case = case_of(Policy(preemption=Preemption(protect=500.0)), a=2)
    case.submit_as("b", "u", 1, CPU)
    case.submit_as("b", "u", 3, CPU, preemptible=False)
    pass_by(case)
    case.submit_as("a", "u", 2, CPU)
    case.wait(5)
    assert not case.stops()
    case.wait(500)
    assert len(case.stops()) == 1
    victims_end(case)
    case.wait(500)
    assert not case.stops()


def test_why_says_what_is_given_back() -> None:
    case = case_of(a=4)
    case.submit_as("b", "u", 4, CPU)
    pass_by(case)
    case.submit_as("a", "u", 1, {"cpu": 4000})
    told = why(case.cluster, ElementKey(5), case.now, case.policy)
    assert told is not None
    assert told["reasons"][0] == {"reason": "WaitingForPreempted", "text": "tasks 1, 2, 3, 4 on n1 stop for it"}


def test_a_guarantee_that_is_removed_is_none() -> None:
    case = case_of(a=2)
    case.submit_as("b", "u", 4, CPU)
    pass_by(case)
    case.command("quota_remove", project="a")
    case.submit_as("a", "u", 2, CPU)
    case.wait(5)
    assert not case.stops()


def test_a_guarantee_of_gpus_brings_the_cpus_along() -> None:
    case = Case()
    case.node(cpus=4)
    node = case.cluster.nodes[1].node
    node.resources = node.resources | {"gpu": 2000}
    case.cluster.nodes_changed = True
    case.cluster.quotas["a", ""] = Quota(project="a", guaranteed={"gpu": 1000})
    case.submit_as("b", "u", 2, {"cpu": 2000, "gpu": 1000})
    pass_by(case)
    case.submit_as("a", "u", 1, CPU)
    case.wait(5)
    assert not case.stops()
    case.submit_as("a", "u", 2, {"cpu": 1000, "gpu": 1000})
    case.wait(5)
    assert len(case.stops()) == 1
