"""Preemption: who stops whom, what it costs, and what it never does."""

from typing import Any

import pytest
from tests.unit.scheduler.harness import Case

from jarvis.core.booking import Booking
from jarvis.core.effects import Recall, ToNode
from jarvis.core.ids import ElementKey
from jarvis.core.inputs import Known, NodeDisconnected
from jarvis.core.retry import RetryPolicy
from jarvis.core.states import Cause, State
from jarvis.core.task import Affinity, Constraint, TaskSpec
from jarvis.scheduler import preempted
from jarvis.scheduler.bookings import load
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.explain import why
from jarvis.scheduler.nodes import on_node_lost
from jarvis.scheduler.policy.backfill import Backfill
from jarvis.scheduler.policy.preemption import Claim, Preemption
from jarvis.scheduler.turn import Turn
from jarvis.scheduler.whatif import plan_task

RULES = Preemption(by=500, grace=7.0, protect=60.0, times=2)


def case_of(rules: Preemption | None = RULES, **policy: object) -> Case:
    return Case(Policy(preemption=rules, **policy))  # type: ignore[arg-type]


def running(case: Case, *cpus: float, **spec: Any) -> list[int]:
    """Tasks that run, each started ten seconds after the one before, all past their protection."""
    idents = []
    for amount in cpus:
        ident = case.submit(cpus=amount, **spec)
        case.started(ident)
        case.now += 10
        idents.append(ident)
    case.now += 60
    case.take()
    return idents


def test_the_victim_with_the_least_lost_work_makes_room() -> None:
    case = case_of()
    case.node(cpus=4)
    old, new = running(case, 2, 2)
    urgent = case.submit(cpus=2, priority=500)
    stops = case.stops()
    assert [(stop.cause, stop.grace_s) for stop in stops] == [(Cause.PREEMPTED, 7.0)]
    case.expect(new, "cancelling")
    case.expect(old, "running")
    assert case.cluster.elements[ElementKey(new)].reason == "Preempted"
    case.ends(new, cause=Cause.PREEMPTED, exit_code=0)
    case.expect(urgent, "assigned")
    case.expect(new, "queued")
    element = case.cluster.elements[ElementKey(new)]
    assert (element.failures, element.preemptions, element.reason) == (0, 1, "Preempted")
    assert not case.cluster.claims


def test_nobody_stops_where_something_else_keeps_it_away() -> None:
    """A node with room that it may not have does not keep it from looking elsewhere, and no victim stops there."""
    case = case_of()
    for _ in range(2):
        case.node(cpus=4)
    running(case, 3, 3)
    here = case.attempt(1).node
    booking = Booking(
        id=9, nodes=(case.cluster.nodes[here].node.name,), begin=case.now + 5, end=case.now + 500, project="q"
    )
    load(case.cluster, [booking])
    case.submit(cpus=1, priority=500)
    assert not case.stops()
    case.expect(3, "assigned")
    case.wait(2)
    urgent = case.submit(cpus=1, priority=500)
    case.expect(2, "cancelling")
    case.expect(1, "running")
    case.expect(urgent, "queued")


def test_off_means_off() -> None:
    case = case_of(None)
    case.node(cpus=4)
    running(case, 4)
    case.submit(cpus=4, priority=1000)
    assert not case.stops()


def test_an_equal_or_hardly_higher_one_waits() -> None:
    case = case_of()
    case.node(cpus=4)
    running(case, 4, priority=100)
    for priority in (100, 599, -500):
        case.submit(cpus=4, priority=priority)
        case.wait(5)
    assert not case.stops()


def test_nobody_is_stopped_in_vain() -> None:
    case = case_of()
    case.node(cpus=4)
    running(case, 2)
    running(case, 2, priority=500)
    case.submit(cpus=4, priority=500)
    case.wait(5)
    assert not case.stops()


def test_what_may_not_run_again_is_left_alone() -> None:
    for spec in (
        {"preemptible": False}, {"on_lost": "never"}, {"retry": RetryPolicy(never_on=("preempted",))}, {"pty": True},
        {"stdin": "-"}, {"queue": "calm"},
    ):  # fmt: skip
        case = case_of(Preemption(protect=0.0, spared=frozenset({"calm"})))
        case.node(cpus=4)
        running(case, 4, **spec)
        case.submit(cpus=4, priority=1000)
        case.wait(5)
        assert not case.stops(), spec


def test_a_higher_tier_preempts_whatever_the_priorities() -> None:
    case = case_of(queue_tiers={"urgent": 1})
    case.node(cpus=4)
    (low,) = running(case, 4, priority=1000)
    case.submit(cpus=1, queue="urgent", priority=-500)
    case.expect(low, "cancelling")


def test_priority_counts_within_a_tier_only() -> None:
    case = case_of(queue_tiers={"urgent": 1})
    case.node(cpus=4)
    running(case, 4, queue="urgent")
    case.submit(cpus=4, priority=1000)
    case.wait(5)
    assert not case.stops()


def test_young_ones_are_protected_and_then_are_not() -> None:
    case = case_of()
    case.node(cpus=4)
    low = case.submit(cpus=4)
    case.started(low)
    case.submit(cpus=4, priority=500)
    case.wait(59)
    case.expect(low, "running")
    case.wait(2)
    case.expect(low, "cancelling")


def test_it_happens_to_an_element_only_so_often() -> None:
    case = case_of(Preemption(by=500, protect=0.0, times=2))
    case.node(cpus=4)
    low = case.submit(cpus=4)
    for _ in range(2):
        case.started(low)
        case.now += 5
        urgent = case.submit(cpus=4, priority=500)
        case.ends(low, cause=Cause.PREEMPTED, exit_code=None)
        case.started(urgent)
        case.ends(urgent)
        case.expect(low, "assigned")
    case.started(low)
    case.now += 5
    case.submit(cpus=4, priority=500)
    case.wait(5)
    case.expect(low, "running")


def test_the_room_is_kept_until_the_preemptor_starts() -> None:
    case = case_of()
    case.node(cpus=4)
    first, second = running(case, 2, 2)
    urgent = case.submit(cpus=4, priority=500)
    assert len(case.stops()) == 2
    case.ends(first, cause=Cause.PREEMPTED)
    other = case.submit(cpus=1)
    case.expect(other, "queued")
    case.expect(urgent, "queued")
    case.ends(second, cause=Cause.PREEMPTED)
    case.expect(urgent, "assigned")


def test_what_a_preemptor_does_not_need_is_for_others() -> None:
    case = case_of()
    case.node(cpus=4)
    first, second = running(case, 2, 2)
    urgent = case.submit(cpus=3, priority=500)
    case.ends(first, cause=Cause.PREEMPTED)
    case.ends(second, cause=Cause.PREEMPTED)
    case.expect(urgent, "assigned")
    small = case.submit(cpus=1)
    assert State.ASSIGNED in (case.state(small), case.state(first))


def test_a_preemptor_that_leaves_does_no_more_harm() -> None:
    case = case_of()
    case.node(cpus=4)
    low = running(case, 2, 2)
    urgent = case.submit(cpus=2, priority=500)
    assert len(case.stops()) == 1
    case.command("cancel", urgent)
    assert not case.cluster.claims
    case.wait(5)
    assert not case.stops()
    stopped = next(ident for ident in low if case.state(ident) == "cancelling")
    case.ends(stopped, cause=Cause.PREEMPTED)
    case.expect(stopped, "assigned")


def test_room_that_comes_elsewhere_is_taken() -> None:
    case = case_of()
    case.node(cpus=4)
    running(case, 4)
    urgent = case.submit(cpus=4, priority=500)
    case.expect(urgent, "queued")
    case.node(cpus=4)
    case.expect(urgent, "assigned")
    assert not case.cluster.claims


def test_a_new_leader_stops_nobody_else() -> None:
    """Its claims went with the old one; the victims are still stopping, and theirs is the room that counts."""
    case = case_of()
    case.node(cpus=4)
    first, second = running(case, 2, 2)
    case.submit(cpus=2, priority=500)
    case.expect(second, "cancelling")
    case.take()
    case.cluster.claims = {}
    case.wait(2)
    assert not case.stops()
    case.expect(first, "running")
    assert [claim.victims for claim in case.cluster.claims.values()] == [((ElementKey(second), 2),)]


def test_two_urgent_ones_do_not_count_on_the_same_room() -> None:
    case = case_of()
    case.node(cpus=4)
    running(case, 2, 2)
    case.submit(cpus=2, priority=500)
    case.wait(2)
    case.submit(cpus=2, priority=500)
    case.wait(2)
    assert len(case.stops()) == 2
    assert {claim.node for claim in case.cluster.claims.values()} == {1}


def test_a_victim_that_is_cancelled_stays_cancelled() -> None:
    case = case_of()
    case.node(cpus=4)
    (low,) = running(case, 4)
    urgent = case.submit(cpus=4, priority=500)
    case.command("cancel", low)
    case.ends(low, cause=Cause.CANCELLED)
    case.expect(low, "cancelled")
    case.expect(urgent, "assigned")


def test_what_was_given_ahead_is_taken_back_first() -> None:
    case = case_of()
    case.node(cpus=1)
    for _ in range(3):
        case.ends(case.submit(cpus=1), wall=0.001)
    tasks = [case.submit(cpus=1) for _ in range(3)]
    case.started(tasks[0])
    case.now += 100
    case.take()
    urgent = case.submit(cpus=0.5, priority=500)
    recalled = [e.message.numbers for e in case.take() if isinstance(e, ToNode) and isinstance(e.message, Recall)]
    assert len(recalled) == 1
    assert len(recalled[0]) == 2
    case.ends(tasks[0], cause=Cause.PREEMPTED)
    for task in tasks[1:]:
        case.returned(task)
    case.expect(urgent, "assigned")


def test_a_checkpoint_makes_a_victim_cheap() -> None:
    case = case_of()
    case.node(cpus=4)
    old, new = running(case, 2, 2)
    case.command("signal", old, signum=10)
    case.submit(cpus=2, priority=500)
    case.expect(old, "cancelling")
    case.expect(new, "running")


def test_of_several_nodes_the_cheapest_set_is_found() -> None:
    case = case_of()
    case.node(cpus=4)
    case.node(cpus=4)
    running(case, 3, 3)
    small = [case.submit(cpus=1), case.submit(cpus=1)]
    for ident in small:
        case.started(ident)
    case.now += 60
    case.submit(cpus=4, priority=500)
    cheap = case.attempt(2).node
    assert [claim.node for claim in case.cluster.claims.values()] == [cheap]


def test_the_restart_reason_travels() -> None:
    case = case_of()
    case.node(cpus=4)
    (low,) = running(case, 4)
    urgent = case.submit(cpus=4, priority=500)
    case.ends(low, cause=Cause.PREEMPTED)
    case.started(urgent)
    case.take()
    case.ends(urgent)
    sent = [e.message for e in case.take() if isinstance(e, ToNode) and hasattr(e.message, "assignments")]
    assert [a.restart for message in sent for a in message.assignments] == ["preempted"]


def test_a_quota_that_is_lowered_meanwhile_is_kept_to() -> None:
    case = case_of()
    case.node(cpus=4)
    (low,) = running(case, 4)
    urgent = case.submit(cpus=4, priority=500)
    args = {"resource.cpu": 2000}
    case.command("quota_set", project="p", **args)
    case.ends(low, cause=Cause.PREEMPTED)
    case.expect(urgent, "queued")
    assert not case.cluster.claims


def test_what_waits_for_something_else_than_room_stops_nobody() -> None:
    """There is room on one node, which is kept for what has a reservation: the other node has victims."""
    case = case_of(backfill=Backfill("easy", keep=True))
    case.node(cpus=4)
    (first,) = running(case, 2, time_limit=500.0, preemptible=False)
    reserved = case.submit(cpus=4, time_limit=10.0)
    assert list(case.cluster.reservations) == [ElementKey(reserved)]
    case.node(cpus=2)
    running(case, 2, time_limit=500.0)
    case.submit(cpus=2, priority=500, time_limit=1000.0)
    case.wait(5)
    case.expect(first, "running")
    assert not case.stops()


def test_where_it_may_not_be_nobody_is_stopped() -> None:
    """It keeps apart from what is there, or near to the very one that would have to go."""
    for affinity in (Affinity("apart", "db"), Affinity("near", "db")):
        case = case_of()
        case.node(cpus=4)
        running(case, 4, keys=("db",))
        case.submit(cpus=4, priority=500, affinities=(affinity,))
        case.wait(5)
        assert not case.stops(), affinity


def test_near_to_what_stays_another_is_stopped() -> None:
    case = case_of()
    case.node(cpus=4)
    running(case, 2, keys=("db",))
    (other,) = running(case, 2)
    case.submit(cpus=2, priority=500, affinities=(Affinity("near", "db"),))
    case.expect(other, "cancelling")


def test_in_one_look_each_is_asked_about_its_own_nodes() -> None:
    case = case_of()
    case.node(cpus=4, labels={"kind": "x"})
    running(case, 1, 1, 1, 1)
    case.node(cpus=4)
    running(case, 1, 1, 1, 1)
    case.submit(cpus=5, priority=500)  # a look in vain: the next one is a second later
    labelled = (Constraint("kind", "=", "x"),)
    first = case.submit(cpus=2, priority=900, constraints=labelled)
    other = case.submit(cpus=2, priority=800)
    second = case.submit(cpus=2, priority=700, constraints=labelled)
    case.wait(2)
    nodes = {key.task: claim.node for key, claim in case.cluster.claims.items()}
    assert nodes == {first: 1, other: 2, second: 1}
    assert len(case.stops()) == 6


def test_a_session_that_breaks_off_meanwhile_costs_no_other_victim() -> None:
    case = case_of()
    for _ in range(2):
        case.node(cpus=4)
        running(case, 4)
    urgent = case.submit(cpus=4, priority=500)
    (stop,) = case.stops()
    (node,) = {claim.node for claim in case.cluster.claims.values()}
    view = case.cluster.nodes[node]
    case.step(NodeDisconnected("gone", view.session or "", node))
    case.wait(2)
    case.wait(2)
    assert not case.stops()
    known = [Known(n, case.attempt(p.key).token, "running") for n, p in view.placed.items()]
    case.node(view.node.name, cpus=4, known=known)
    assert {again.number for again in case.stops()} == {stop.number}
    case.ends(next(iter(view.placed.values())).key, cause=Cause.PREEMPTED)
    case.expect(urgent, "assigned")


def test_a_node_that_is_lost_keeps_nothing() -> None:
    case = case_of()
    case.node(cpus=4)
    running(case, 4, on_lost="fence")
    urgent = case.submit(cpus=4, priority=500)
    assert len(case.stops()) == 1
    view = case.cluster.nodes[1]
    turn = Turn(case.cluster, case.now, "test")
    on_node_lost(turn, view)
    case.wait(2)
    assert not case.cluster.claims
    case.expect(urgent, "queued")


def test_a_claim_says_where_and_whom() -> None:
    case = case_of()
    case.node(cpus=4)
    (low,) = running(case, 4)
    urgent = case.submit(cpus=4, priority=500)
    assert case.cluster.claims == {ElementKey(urgent): Claim(1, ((ElementKey(low), 1),))}


def test_why_says_who_stops_for_whom() -> None:
    case = case_of()
    case.node(cpus=4)
    (low,) = running(case, 4)
    urgent = case.submit(cpus=4, priority=500)
    told = why(case.cluster, ElementKey(urgent), case.now, case.policy)
    assert told is not None
    assert told["reasons"][0] == {"reason": "WaitingForPreempted", "text": f"task {low} on n1 stops for it"}
    stopping = why(case.cluster, ElementKey(low), case.now)
    assert stopping is not None
    assert stopping["summary"] == f"task {low} is cancelling: it stops for task {urgent}, and goes on later"
    case.ends(low, cause=Cause.PREEMPTED)
    waiting = why(case.cluster, ElementKey(low), case.now, case.policy)
    assert waiting is not None
    assert waiting["reasons"][0]["reason"] == "Preempted"


def test_plan_says_who_would_stop() -> None:
    case = case_of()
    case.node(cpus=4)
    (low,) = running(case, 4)
    said = plan_task(
        case.cluster, case.policy, TaskSpec(name="t", resources={"cpu": 4000}, priority=500), ("p", "u"), case.now
    )
    assert said["verdict"] == "wait"
    assert said["reasons"][0] == {"reason": "WaitingForPreempted", "text": f"task {low} on n1 would stop for it"}
    case.expect(low, "running")
    said = plan_task(case.cluster, case.policy, TaskSpec(name="t", resources={"cpu": 4000}), ("p", "u"), case.now)
    assert said["reasons"][0]["reason"] == "Resources"


def test_plan_looks_for_victims_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks, look = list[Any](), preempted._look

    def looked(*given: Any) -> Any:
        looks.append(given[-1])
        return look(*given)

    monkeypatch.setattr(preempted, "_look", looked)
    case = case_of()
    case.node(cpus=4)
    running(case, 4)
    for asked in (TaskSpec(name="t", resources={"cpu": 4000}, priority=priority) for priority in (500, 0)):
        assert plan_task(case.cluster, case.policy, asked, ("p", "u"), case.now)["verdict"] == "wait"
    assert looks == [case.now, case.now], "whether it would stop anybody or not"


def barred(case: Case, ident: int) -> list[str]:
    said = why(case.cluster, ElementKey(ident), case.now, case.policy)
    assert said is not None
    return [reason["text"] for reason in said["reasons"] if reason["reason"] == "PreemptsNobody"]


def test_why_says_who_may_not_be_stopped() -> None:
    case = case_of()
    case.node(cpus=5)
    running(case, 1), running(case, 1, preemptible=False), running(case, 1)
    fresh, twice = case.submit(cpus=1), case.submit(cpus=1)
    case.cluster.elements[ElementKey(twice)].preemptions = 2
    urgent = case.submit(cpus=5, priority=900)
    case.wait(2)
    case.expect(fresh, "assigned")
    (text,) = barred(case, urgent)
    assert text == (
        "of 5 attempts of lower standing on its nodes not all may be stopped: "
        "1 begun less than 60 s ago, 1 never to be stopped, 1 stopped 2 times before"
    )
    told = plan_task(
        case.cluster, case.policy, TaskSpec(name="t", resources={"cpu": 5000}, priority=900), ("p", "u"), case.now
    )
    assert "not all may be stopped" in told["summary"]
    off = case_of(None)
    off.node(cpus=1)
    off.submit(cpus=1)
    assert barred(off, off.submit(cpus=1, priority=900)) == []
