"""Least attained service: who has had little goes before who has had much, and takes its place where that is asked for."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.unit.scheduler.harness import Case

from jarvis.config.policies import SchedulerSettings
from jarvis.core.ids import ElementKey
from jarvis.core.states import Cause
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.policy.attained import behind, level_at, level_of
from jarvis.scheduler.policy.order import Order
from jarvis.scheduler.policy.preemption import Preemption, Standing, beats

ORDER = Order("least_attained", first=100.0, factor=10.0)
RULES = Preemption(attained=True, protect=0.0, times=100, grace=0.0)


def case_of(rules: Preemption | None = RULES, order: Order = ORDER) -> Case:
    case = Case(Policy(order=order, preemption=rules))
    case.node(cpus=1)
    return case


def run(case: Case, ident: int, seconds: float) -> None:
    case.started(ident)
    case.now += seconds


def test_levels_grow_by_a_factor() -> None:
    assert [level_of(ORDER, had) for had in (0.0, 99.9, 100.0, 999.0, 1000.0, 1e5)] == [0, 0, 1, 1, 2, 4]
    assert level_of(ORDER, 1e300) == 64, "and have an end"


def test_a_fresh_task_takes_the_place_of_one_that_has_had_more() -> None:
    case = case_of()
    old = case.submit()
    run(case, old, 99)
    fresh = case.submit()
    assert not case.stops(), "of the same level"
    case.wait(2)
    case.expect(old, "cancelling")
    assert case.stops()
    case.ends(old, cause=Cause.PREEMPTED)
    case.expect(fresh, "assigned")
    assert case.cluster.attained == {ElementKey(old): 101.0}
    run(case, fresh, 99)
    case.step()
    case.expect(fresh, "running")
    case.wait(2)
    case.expect(fresh, "running")
    assert not case.stops(), "what waits is of the same level now: it came first, but has had no less"


def test_what_was_had_is_added_up_and_forgotten_at_the_end() -> None:
    case = case_of()
    one = case.submit()
    run(case, one, 150)
    two = case.submit()
    case.ends(one, cause=Cause.PREEMPTED)
    run(case, two, 1500)
    case.wait(2)
    case.expect(two, "cancelling")
    case.ends(two, cause=Cause.PREEMPTED)
    run(case, one, 50)
    three = case.submit()
    case.ends(one, cause=Cause.PREEMPTED)
    assert case.cluster.attained[ElementKey(one)] == pytest.approx(200.0)
    case.ends(three)
    case.expect(one, "assigned")
    case.ends(one)
    case.ends(two)
    assert not case.cluster.attained
    assert not case.cluster.stands


def test_within_a_level_the_first_one_stays_first() -> None:
    case = case_of(rules=None)
    blocker = case.submit()
    first, second = case.submit(), case.submit()
    for key, had in ((first, 5.0), (second, 1.0)):
        case.cluster.attained[ElementKey(key)] = had
    case.ends(blocker)
    case.expect(first, "assigned")
    case.expect(second, "queued")


def test_who_waits_long_enough_is_not_put_behind_any_more() -> None:
    patient = Order("least_attained", first=100.0, factor=10.0, patience=2000.0)
    assert behind(patient, 1000.0) == 4000.0
    assert [level_at(patient, 1000.0, waited) for waited in (0.0, 1999.0, 2000.0, 6400.0)] == [2, 2, 1, -1]
    case = case_of(order=patient)
    before = case.submit(preemptible=False)
    old = case.submit()
    run(case, before, 2500)
    case.ends(before)
    run(case, old, 700)
    case.submit()
    case.wait(2)
    assert not case.stops(), "it has had more, but it came long before"
    case.now += 400  # now it has had one level more
    case.wait(2)
    case.expect(old, "cancelling")


@given(
    st.floats(1, 1e6), st.tuples(st.floats(0, 1e9), st.floats(0, 1e7)), st.tuples(st.floats(0, 1e9), st.floats(0, 1e7)),
    st.floats(0, 1e7),
)  # fmt: skip
def test_who_preempts_stands_before_its_victim_in_the_queue(
    patience: float, one: tuple[float, float], two: tuple[float, float], later: float
) -> None:
    """Else the victim would take the room back at once."""
    order = Order("least_attained", patience=patience)
    now = 1e7 + later

    def stands(had: float, submitted: float) -> tuple[Standing, float]:
        return Standing(0, 0, level_at(order, had, now - submitted)), submitted + behind(order, had)

    (mine, my_rank), (other, its_rank) = stands(*one), stands(*two)
    if beats(RULES, mine, other):
        assert my_rank < its_rank + 1e-6 * patience
        assert not beats(RULES, other, mine)


def test_priority_and_tier_come_first() -> None:
    assert not beats(RULES, Standing(0, 0, 0), Standing(0, 1, 5))
    assert beats(RULES, Standing(0, 1, 0), Standing(0, 0, 5))
    assert not beats(RULES, Standing(0, 0, 0), Standing(1, 0, 5))
    assert beats(RULES, Standing(0, 1000, 5), Standing(0, 0, 0)), "by priority"
    assert not beats(Preemption(), Standing(0, 0, 0), Standing(0, 0, 5)), "only where it is asked for"


def test_it_needs_its_order() -> None:
    found = SchedulerSettings.model_validate({"order": "least_attained", "preemption": {"attained": True}})
    assert found.preemption is not None
    assert found.preemption.attained
    with pytest.raises(ValidationError, match="least_attained"):
        SchedulerSettings.model_validate({"preemption": {"attained": True}})


def _hidden_behind_a_throttle(case: Case, again: Callable[[int], None]) -> None:
    """An entry that was placed stays in its lane as long as one before it waits; it is queued again with another rank."""
    array = case.submit(array="0-1%1", priority=5)
    case.expect(ElementKey(array, 0), "assigned")
    task = case.submit()
    case.expect(task, "assigned")
    again(task)
    case.ends(task, cause=Cause.REQUEUED)
    attempt = case.attempt(task)
    assert attempt.attempt == 2, "it is assigned once more, and not twice"


def test_what_is_queued_again_with_another_rank_counts_once() -> None:
    case = Case(Policy(order=ORDER))
    case.node(cpus=4)

    def again(task: int) -> None:
        run(case, task, 5000)

    _hidden_behind_a_throttle(case, again)


def test_what_is_predicted_differently_counts_once() -> None:
    case = Case(Policy(order=Order("shortest", times="predicted")))
    case.node(cpus=4)

    def again(task: int) -> None:
        del task
        for _ in range(20):  # of the same name: now it is known how long such a one takes
            case.ends(case.submit(), wall=500.0)

    _hidden_behind_a_throttle(case, again)
