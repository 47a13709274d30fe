"""Where a backfill keeps reservations: whoever is first stays first, and may have others stopped."""

import pytest
from tests.unit.scheduler.harness import Case

from jarvis.core.states import Cause
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.policy.backfill import Backfill
from jarvis.scheduler.policy.order import Order
from jarvis.scheduler.policy.preemption import Preemption


@pytest.mark.parametrize("backfill", ["none", "easy", "conservative"])
def test_what_is_kept_first_may_have_others_stopped(backfill: str) -> None:
    """That its start is reserved, and nobody comes before it, does not make it wait for a start that it could have earlier."""
    case = Case(Policy(backfill=Backfill(backfill, keep=True), preemption=Preemption(by=500)))
    case.node(cpus=4)
    low = case.submit(cpus=4, time_limit=1000.0)
    case.started(low)
    case.now += 10
    urgent = case.submit(cpus=4, priority=500, time_limit=1000.0)
    case.expect(low, "running")
    case.wait(51)
    case.expect(low, "cancelling")
    case.ends(low, cause=Cause.PREEMPTED)
    case.expect(urgent, "assigned")


@pytest.mark.parametrize("keep", [False, True])
def test_what_is_kept_first_comes_before_what_was_stopped_meanwhile(keep: bool) -> None:
    """Two have had as much; the one that was submitted first runs, and is stopped for a new one."""
    rules = Preemption(attained=True, grace=0.0, protect=0.0)
    order = Order("least_attained", first=5.0)
    case = Case(Policy(order=order, backfill=Backfill("easy", keep=keep), preemption=rules))
    case.node(cpus=4)
    first = case.submit(cpus=4, time_limit=20.0)
    case.started(first)
    case.wait(1.5)
    kept = case.submit(cpus=4, time_limit=20.0)
    for stops, begins, seconds in ((first, kept, 6.0), (kept, first, 4.0)):
        case.expect(stops, "cancelling")
        case.ends(stops, cause=Cause.PREEMPTED)
        case.started(begins)
        case.wait(seconds)
    new = case.submit(time_limit=10.0)
    case.wait(1.0)
    case.ends(first, cause=Cause.PREEMPTED)
    case.started(new)
    case.ends(new)
    case.expect(kept if keep else first, "assigned")
