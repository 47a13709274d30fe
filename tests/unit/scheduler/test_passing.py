"""Who preempts does not pass what has a start reserved and comes before it."""

import random
from dataclasses import replace

import msgspec
import pytest
from tests.unit.scheduler.gang_harness import Gangs
from tests.unit.scheduler.harness import Case

from jarvis.core.ids import ElementKey
from jarvis.core.quota import Quota
from jarvis.core.states import State
from jarvis.core.task import Task, TaskSpec
from jarvis.scheduler.cycle import Policy, plan_cycle
from jarvis.scheduler.explain import why
from jarvis.scheduler.passing import Ahead, Reserved
from jarvis.scheduler.policy.backfill import Backfill
from jarvis.scheduler.policy.fairness import Fairness
from jarvis.scheduler.policy.order import Order
from jarvis.scheduler.policy.preemption import Preemption, Standing
from jarvis.scheduler.whatif import plan_task

NEVER_LOOKED = float("-inf")
SPEC = TaskSpec(name="t", resources={"cpu": 1000})


def run(case: Case, **spec: object) -> int:
    ident = case.submit(**spec)  # type: ignore[arg-type]
    case.started(ident)
    return ident


def in_turns(backfill: str, limit: float = 20.0) -> tuple[Case, int, int, int]:
    """Two that run, of which one may be stopped already, and one that needs the room of both."""
    rules = Preemption(attained=True, grace=0.0, protect=3.0, times=1000)
    case = Case(Policy(order=Order("least_attained", first=2.0), backfill=Backfill(backfill), preemption=rules))
    case.node(cpus=2)
    old = run(case, time_limit=limit)
    case.now += 1.5
    other = run(case, time_limit=20.0)
    case.now += 0.5
    large = case.submit(cpus=2, time_limit=20.0)
    case.now += 2.0
    return case, old, other, large


@pytest.mark.parametrize("backfill", ["none", "easy", "conservative"])
def test_what_is_first_waits_for_several_who_may_be_stopped_together(backfill: str) -> None:
    case, old, other, large = in_turns(backfill)
    case.submit(time_limit=30.0)
    assert not case.stops(), "it would run longer than what it could stop"
    case.wait(1.0)
    case.expect(old, "cancelling")
    case.expect(other, "cancelling")
    assert [key.task for key in case.cluster.claims] == [large]


@pytest.mark.parametrize(
    ("backfill", "stops"), [("none", False), ("easy", True), ("conservative", True), ("skip", True)]
)
def test_what_is_over_by_then_may_have_others_stopped(backfill: str, stops: bool) -> None:
    case, old, _, _ = in_turns(backfill)
    case.submit(time_limit=10.0)
    case.expect(old, "cancelling" if stops else "running")


def test_a_start_of_its_own_is_not_in_its_way() -> None:
    case, old, _, large = in_turns("conservative", limit=6.0)
    late = case.submit(time_limit=10.0)
    starts = {key.task: start for key, (_, start) in case.cluster.reservations.items()}
    assert starts == {large: 1021.5, late: 1006.0}
    case.expect(old, "cancelling")


@pytest.mark.parametrize(("limit", "state"), [(20.0, "cancelling"), (1000.0, "running")])
def test_nor_does_a_gang_on_a_node_where_it_needs_no_victim(limit: float, state: str) -> None:
    case = Gangs(Policy(backfill=Backfill("easy"), preemption=Preemption(protect=0.0, grace=0.0)))
    case.able(1)
    victim = run(case, time_limit=100.0)
    case.able(2)
    run(case, time_limit=50.0, preemptible=False)
    case.submit(cpus=2, priority=1000, time_limit=10.0)
    case.now += 2.0
    case.submit(priority=1000, nodes=2, time_limit=limit)
    case.expect(victim, state)


def test_what_a_project_is_guaranteed_comes_before_what_others_have_reserved() -> None:
    case = Case(Policy(backfill=Backfill("easy"), fairness=Fairness("nobody")))
    case.cluster.quotas["own", ""] = Quota(project="own", guaranteed={"cpu": 1000})
    case.node(cpus=2)
    borrowed = run(case, time_limit=1000.0)
    run(case, time_limit=500.0, preemptible=False)
    case.now += 100.0
    large = case.submit(cpus=2, time_limit=100.0)
    case.now += 2.0
    case.submit_as("own", "u", 1, {"cpu": 1000}, time_limit=5000.0)
    assert [key.task for key in case.cluster.reservations] == [large]
    case.expect(borrowed, "cancelling")


def test_who_could_preempt_it_may_put_it_off() -> None:
    """A priority counts for preemption as it was given, in the order with its age."""
    case = Case(Policy(order=Order("priority", ageing=10.0), backfill=Backfill("easy"), preemption=Preemption()))
    case.node(cpus=2)
    low = run(case, time_limit=1000.0)
    run(case, time_limit=1000.0, preemptible=False)
    aged = case.submit(cpus=2, time_limit=100.0)
    case.now += 150.0
    urgent = case.submit(priority=1000, time_limit=5000.0)
    case.expect(low, "cancelling")
    assert [key.task for key in case.cluster.claims] == [urgent]
    assert [key.task for key in case.cluster.reservations] == [aged]


def test_what_others_were_stopped_for_does_not_start_where_a_start_is_reserved() -> None:
    case = Case(Policy(backfill=Backfill("easy"), preemption=Preemption(protect=0.0)))
    first = case.node(cpus=2)
    victim = run(case, time_limit=100.0)
    run(case, time_limit=500.0, preemptible=False)
    second = case.node(cpus=2)
    short = run(case, time_limit=50.0, preemptible=False)
    run(case, time_limit=60.0, preemptible=False)
    large = case.submit(cpus=2, priority=1000, time_limit=10.0)
    case.now += 2.0
    urgent = case.submit(priority=1000, time_limit=1000.0)
    case.expect(victim, "cancelling")
    promised = dict(case.cluster.reservations)
    assert [(key.task, at) for key, at in promised.items()] == [(large, (second, 1060.0))]
    case.now += 3.0
    case.ends(short)
    case.expect(urgent, "queued")
    assert case.cluster.reservations == promised
    case.ends(victim)
    assert case.attempt(urgent).node == first


def reasons(case: Case, ident: int) -> dict[str, str]:
    said = why(case.cluster, ElementKey(ident), case.now, case.policy)
    assert said is not None
    return {reason["reason"]: reason["text"] for reason in said["reasons"]}


@pytest.mark.parametrize("backfill", ["none", "easy", "conservative"])
def test_why_says_that_it_could_have_others_stopped_but_for_what_is_reserved(backfill: str) -> None:
    case, old, _, large = in_turns(backfill)
    late = case.submit(time_limit=30.0)
    text = f"task {old} on n1 could stop for it, but that would put off the start of task {large}, which goes first"
    assert reasons(case, late)["PutsOffReserved"] == text
    assert "PutsOffReserved" not in reasons(case, large)
    told = plan_task(case.cluster, case.policy, msgspec.structs.replace(SPEC, time_limit=30.0), ("p", "u"), case.now)
    assert {"reason": "PutsOffReserved", "text": text} in told["reasons"]


def preempting(seed: int) -> Case:
    """Some wait, some could have others stopped, and of these some are held back."""
    chance = random.Random(seed)
    backfill = Backfill(chance.choice(["none", "easy", "conservative"]))
    rules = Preemption(protect=5.0)
    case = Case(Policy(order=Order("priority"), fairness=Fairness("nobody"), backfill=backfill, preemption=rules))
    sizes = [chance.randint(2, 4) for _ in range(chance.randint(1, 2))]
    for size in sizes:
        case.node(cpus=size)
    for _ in range(sum(sizes)):
        limit, preemptible = float(chance.choice([50, 300, 1000])), chance.random() < 0.6
        run(case, priority=chance.choice([0, 0, 1500]), time_limit=limit, preemptible=preemptible)
    case.now += 10.0
    for _ in range(chance.randint(2, 6)):
        limit = float(chance.choice([10, 200, 2000]))
        case.submit(cpus=chance.randint(1, 4), priority=chance.choice([0, 1500, 2500]), time_limit=limit)
        case.now += chance.choice([0.0, 1.0])
    return case


def claims(case: Case, passing: int | None = None) -> set[int]:
    """What a look at all that waits would have others stopped for, if one of it might pass what is reserved."""
    asked = replace(case.cluster, victims_looked_at=NEVER_LOOKED)
    rule = Reserved.ahead_of

    def ahead_of(self: Reserved, key: ElementKey, standing: Standing, task: Task) -> Ahead:
        return Ahead() if key.task == passing else rule(self, key, standing, task)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Reserved, "ahead_of", ahead_of)
        return {key.task for key in plan_cycle(asked, case.policy, case.now, seed=case.cluster.last_seq).claims}


def test_it_is_said_of_whoever_that_rule_holds_back_and_of_nobody_else() -> None:
    said = 0
    for seed in range(200):
        case = preempting(seed)
        now = claims(case)
        for task in [task for task in case.cluster.tasks.values() if task.state is State.QUEUED and task.id not in now]:
            held_back = task.id in claims(case, task.id)
            assert ("PutsOffReserved" in reasons(case, task.id)) is held_back, f"seed {seed}: task {task.id}"
            said += held_back
    assert said > 10
