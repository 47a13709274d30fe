"""When what waits is predicted to start: counted by hand where that is possible, and as often right as the interval says."""

import random
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.scheduler.harness import Case

from jarvis.core.attempt import Usage
from jarvis.core.ids import ElementKey
from jarvis.core.states import Cause, State
from jarvis.core.task import Task, TaskSpec
from jarvis.scheduler import foresight
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.explain import why
from jarvis.scheduler.policy.backfill import Backfill
from jarvis.scheduler.policy.order import Order
from jarvis.scheduler.policy.preemption import Preemption
from jarvis.scheduler.whatif import plan_task

EASY = Policy(order=Order("fifo"), backfill=Backfill("easy"))
SKIP = Policy(order=Order("fifo"))


def told(case: Case, task: int) -> dict[str, Any]:
    answer = why(case.cluster, ElementKey(task), case.now, case.policy)
    assert answer is not None
    return answer


def teach(case: Case, *seconds: float, cpus: int = 4) -> None:
    like = TaskSpec(name="t", resources={"cpu": cpus * 1000})
    for at, value in enumerate(seconds):
        task = Task(id=0, uuid="", project="p", user="u", spec=like, submitted_at=0.0)
        case.cluster.predictor.learn(task, Usage(wall_s=value), Cause.EXIT, 10.0 * at)


def test_counted_by_hand() -> None:
    """Runs take 100 s, so one that has run for 30 s ends in 70, and the second in line starts 100 s after the first."""
    for policy in (EASY, SKIP):
        case = Case(policy)
        case.node(cpus=4)
        teach(case, *[100.0] * 64)
        running, first, second = (case.submit(cpus=4) for _ in range(3))
        case.started(running)
        case.wait(30.0)
        assert told(case, first)["predicted"]["start_s"] == 70.0
        assert told(case, second)["predicted"]["start_s"] == 170.0
        seen = told(case, second)["predicted"]
        assert seen["earliest_s"] <= 170.0 <= seen["latest_s"]
        assert (seen["running"], seen["predicted"]) == (1, 1)
        assert told(case, running)["run"]["seconds"] == 70.0
        assert told(case, second)["run"]["seconds"] == 100.0
        assert told(case, second)["run"]["like"] == "runs of its command with the same request"


def test_what_outlived_its_like_ends_by_its_limit_at_the_latest() -> None:
    case = Case(EASY)
    case.node(cpus=4)
    teach(case, *[100.0] * 64)
    running = case.submit(cpus=4, time_limit=1000.0)
    waiting = case.submit(cpus=4)
    case.started(running)
    case.wait(400.0)
    assert told(case, waiting)["predicted"] == {
        "start_s": 600.0, "earliest_s": 600.0, "latest_s": 600.0, "running": 1, "predicted": 0,
    }  # fmt: skip


def test_of_what_is_not_known_nothing_is_said() -> None:
    case = Case(EASY)
    case.node(cpus=4)
    running, waiting = case.submit(cpus=4), case.submit(cpus=4)
    case.started(running)
    assert told(case, waiting)["predicted"] is None
    assert told(case, waiting)["run"] is None
    teach(case, *[100.0] * 64)
    case.wait(500.0)
    assert told(case, waiting)["predicted"] is None, "it has no limit, and nothing like it ever ran so long"


def test_too_many_to_foresee(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(EASY)
    case.node(cpus=4)
    teach(case, *[100.0] * 64)
    for _ in range(4):
        case.started(case.submit(cpus=1))
    waiting = case.submit(cpus=4)
    assert told(case, waiting)["predicted"] is not None
    monkeypatch.setattr(foresight, "WORK_MOST", 3)
    assert told(case, waiting)["predicted"] is None
    monkeypatch.setattr(foresight, "WORK_MOST", 4)
    assert told(case, waiting)["predicted"] is not None
    monkeypatch.setattr(foresight, "RUNNING_MOST", 3)
    assert told(case, waiting)["predicted"] is None


def test_it_starts_within_the_interval_nine_times_in_ten() -> None:
    """Four nodes full of tasks that take as long as chance says: the interval said at submission holds."""
    chance = random.Random(3)
    case = Case(EASY)
    for _ in range(4):
        case.node(cpus=4)
    ends: dict[int, float] = {}
    said: dict[int, tuple[float, float, float]] = {}
    right = []
    for number in range(400):
        task = case.submit(cpus=4)
        if number > 40 and case.state(task) is State.QUEUED:
            seen = told(case, task)["predicted"]
            if seen is not None and seen["latest_s"] is not None:
                said[task] = case.now, case.now + seen["earliest_s"], case.now + seen["latest_s"]
        while sum(t.state is State.QUEUED for t in case.cluster.tasks.values()) > 3:
            for key in case.cluster.attempts:
                if key.task not in ends:
                    case.started(key.task)
                    ends[key.task] = case.now + chance.lognormvariate(4.0, 0.5)
                    if key.task in said:
                        _, low, high = said[key.task]
                        right.append(low <= case.now <= high + 1.0)
            first = min((k.task for k in case.cluster.attempts), key=ends.__getitem__)
            begun = case.cluster.attempts[ElementKey(first)].started_at or 0.0
            case.now = max(case.now, ends[first])
            case.ends(first, wall=ends[first] - begun)
    assert len(right) > 200
    assert sum(right) / len(right) >= 0.85, f"{sum(right)} of {len(right)}"


def test_who_may_soon_preempt_is_not_expected_at_the_next_end_alone() -> None:
    case = Case(replace(EASY, preemption=Preemption(by=500, protect=60.0)))
    case.node(cpus=4)
    protected = case.submit(cpus=4, time_limit=1000.0)
    case.started(protected)
    urgent, patient = case.submit(cpus=4, priority=500), case.submit(cpus=4)
    case.wait(50.0)
    answers = [told(case, task) for task in (urgent, patient)]
    bounds = [(a["expected"]["earliest_s"], a["predicted"]["earliest_s"]) for a in answers]
    assert bounds == [(0.0, 0.0), (950.0, 950.0)]
    assert all(a["expected"]["latest_s"] >= 950.0 for a in answers)
    asked = [TaskSpec(name="t", resources={"cpu": 4000}, priority=priority) for priority in (500, 0)]
    answers = [plan_task(case.cluster, case.policy, spec, ("p", "u"), case.now) for spec in asked]
    assert [answer["earliest"] for answer in answers] == [case.now, case.now + 950.0]
    assert [answer["earliest_s"] for answer in answers] == [0.0, 950.0]
    case.wait(12.0)
    assert ElementKey(urgent) in case.cluster.claims, "what runs is protected no more"
    assert told(case, urgent)["expected"]["earliest_s"] == 0.0
