"""Steps in the queue: the one with the longest path behind it goes first, and all of a workflow stand where it was submitted."""

import pytest
from tests.unit.scheduler.harness import Case

from jarvis.config.policies import SchedulerSettings, policy_of
from jarvis.core.ids import SOLO, ElementKey
from jarvis.core.states import State
from jarvis.core.task import Origin
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.explain import why

PRESETS = [policy_of(SchedulerSettings.model_validate({"preset": name})) for name in ("default", "throughput", "fifo")]


@pytest.mark.parametrize("policy", PRESETS)
def test_the_longest_path_goes_first_however_long_it_takes_itself_and_whenever_it_came_up(policy: Policy) -> None:
    case = Case(policy)
    case.node(cpus=1)
    begun = case.submit(cpus=1, time_limit=1000.0)
    near = case.submit(origin=Origin(10, "near", 900.0, 1.0), time_limit=500.0)
    case.now += 50.0
    far = case.submit(origin=Origin(10, "far", 900.0, 9.0), time_limit=900.0)
    assert [case.state(near), case.state(far)] == [State.QUEUED, State.QUEUED]
    case.ends(begun)
    assert [case.state(near), case.state(far)] == [State.QUEUED, State.ASSIGNED]


def test_a_workflow_stands_where_it_was_submitted() -> None:
    case = Case(PRESETS[2])
    plain = case.submit()
    case.now += 10.0
    step = case.submit(origin=Origin(1, "a", case.now - 20.0, 1.0))
    urgent = case.submit(priority=1)
    queue = sorted((plain, step, urgent), key=lambda ident: case.cluster.entry_of(case.tasks[ident], 0))
    assert queue == [urgent, step, plain]


def test_why_counts_those_ahead_in_the_order_of_the_policy() -> None:
    case = Case(PRESETS[1])
    case.node(cpus=1)
    case.submit(cpus=1, time_limit=1000.0)
    long = [case.submit(cpus=1, time_limit=500.0) for _ in range(3)][-1]
    short = case.submit(cpus=1, time_limit=400.0)
    told = {i: str((why(case.cluster, ElementKey(i, SOLO), case.now) or {})["reasons"]) for i in (long, short)}
    assert "3 tasks of its shape go first" in told[long] and "go first" not in told[short]
