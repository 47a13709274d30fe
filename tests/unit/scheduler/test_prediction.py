"""Predictions: never from the future, ordered bounds, bounded memory, intervals that hold what they promise."""

import math
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jarvis.config.policies import SchedulerSettings, policy_of
from jarvis.core.attempt import Usage
from jarvis.core.states import Cause
from jarvis.core.task import Task, TaskSpec
from jarvis.scheduler.policy import prediction
from jarvis.scheduler.policy.prediction import (
    GROUPS_MOST,
    LEARN_RATE,
    WINDOW,
    Prediction,
    Predictor,
    Recent,
    groups_of,
    program_of,
)
from jarvis.sim.traces.formats import read
from jarvis.sim.traces.replay import History, Replay
from jarvis.sim.traces.report import foresight
from jarvis.sim.traces.run import policy_from
from jarvis.sim.traces.workload import Recorded

TRACES = Path(os.environ.get("JARVIS_TRACES") or Path(__file__).resolve().parents[4] / "shared" / "traces")


def task(
    name: str = "t", user: str = "ann", project: str = "p", limit: float | None = None, ident: int = 1,
    command: tuple[str, ...] | str = ("python", "train.py", "--seed", "1"), cpu: int = 1000,
) -> Task:  # fmt: skip
    spec = TaskSpec(name=name, command=command, time_limit=limit, resources={"cpu": cpu})
    return Task(id=ident, uuid="", project=project, user=user, spec=spec, submitted_at=0.0)


def taught(*seconds: float, of: Task | None = None) -> Predictor:
    predictor = Predictor()
    for at, value in enumerate(seconds):
        predictor.learn(of or task(), Usage(wall_s=value), Cause.EXIT, 10.0 * at)
    return predictor


def predicted(predictor: Predictor, of: Task) -> Prediction:
    said = predictor.predict(of)
    assert said is not None
    return said


# ---------------------------------------------------------------- groups


def test_options_are_not_part_of_a_program() -> None:
    assert program_of(task().spec) == "python train.py"
    assert program_of(task(command="make  -j4 all").spec) == "make"
    assert program_of(TaskSpec(name="t", script="abc", command=("x",))) == "abc"
    assert len(program_of(task(command="x" * 5000).spec)) == prediction.PROGRAM_MOST


def test_a_specific_group_speaks_before_a_wider_one() -> None:
    predictor = Predictor()
    for at in range(20):
        predictor.learn(task("short"), Usage(wall_s=10.0), Cause.EXIT, 10.0 * at)
        predictor.learn(task("long"), Usage(wall_s=1000.0), Cause.EXIT, 10.0 * at)
    short, unknown = predicted(predictor, task("short")), predicted(predictor, task("new"))
    assert (short.seconds, short.like) == (10.0, "runs of its command with the same request")
    assert unknown.like == "tasks of its user"
    assert unknown.runs == 40
    assert predicted(predictor, task("short", cpu=2000)).like == "runs of its command"
    assert predicted(predictor, task("short", user="bob", project="q")).like == "tasks of anybody"


def test_a_point_may_come_from_fewer_ends_than_an_interval() -> None:
    predictor = taught(*[100.0] * 20)
    for at in range(3):
        predictor.learn(task("new"), Usage(wall_s=5.0), Cause.EXIT, 1000.0 + at)
    said = predicted(predictor, task("new"))
    assert (said.seconds, said.runs) == (5.0, 3)
    assert said.low <= 5.0
    assert said.high >= 100.0


def test_hardly_anything_is_known() -> None:
    assert taught(1.0, 2.0).predict(task()) is None
    assert Predictor().predict(task()) is None


def test_only_ends_of_its_own_count() -> None:
    predictor = Predictor()
    for cause in (Cause.CANCELLED, Cause.NODE_LOST, Cause.PREEMPTED, Cause.RECALLED, Cause.REQUEUED, Cause.EXPIRED):
        predictor.learn(task(), Usage(wall_s=5.0), cause, 0.0)
    assert (predictor.ends, len(predictor)) == (0, 0)


def test_a_limit_bounds_what_is_predicted() -> None:
    said = predicted(taught(*[500.0] * 30), task(limit=60.0))
    assert (said.seconds, said.high) == (60.0, 60.0)
    assert said.low <= 60.0
    timed_out = predicted(taught(*[61.5] * 30, of=task(limit=60.0)), task(limit=60.0))
    assert (timed_out.seconds, timed_out.high) == (60.0, 60.0), "what its limit ended counts as the limit"


# ---------------------------------------------------------------- properties


RUNS = st.lists(st.tuples(st.integers(0, 3), st.floats(0.0, 1e6), st.floats(0.1, 100.0)), max_size=120)


@given(RUNS)
def test_bounds_are_in_order_and_known_ends_only_count(runs: list[tuple[int, float, float]]) -> None:
    """A prediction is the same whatever happens after it, and its bounds never cross."""
    predictor, now = Predictor(), 0.0
    said: list[tuple[int, Prediction | None]] = []
    for number, (who, seconds, pause) in enumerate(runs):
        of = task(f"n{who}", limit=50.0 if who == 3 else None)
        now += pause
        said.append((number, predictor.predict(of)))
        predictor.learn(of, Usage(wall_s=seconds), Cause.EXIT, now, said[-1][1])
    for number, before in said:
        again, then = Predictor(), 0.0
        for (who, seconds, pause), (_, told) in zip(runs[:number], said, strict=False):
            then += pause
            again.learn(
                task(f"n{who}", limit=50.0 if who == 3 else None), Usage(wall_s=seconds), Cause.EXIT, then, told
            )
        who = runs[number][0]
        assert again.predict(task(f"n{who}", limit=50.0 if who == 3 else None)) == before
        if before is not None:
            assert 0.0 <= before.low <= before.seconds <= before.high


@given(st.lists(st.floats(0.0, 1e9), min_size=1, max_size=200))
def test_the_last_values_and_their_quantiles(values: list[float]) -> None:
    recent = Recent()
    for value in values:
        recent.add(value)
    assert list(recent.ascending) == sorted(values[-WINDOW:])
    quantiles = [recent.quantile(share / 20) for share in range(21)]
    assert quantiles == sorted(quantiles)
    assert (quantiles[0], quantiles[-1]) == (min(values[-WINDOW:]), max(values[-WINDOW:]))


def test_memory_is_bounded() -> None:
    """Whatever names are made up, and the oldest are forgotten first."""
    predictor = Predictor()
    for number in range(GROUPS_MOST):
        predictor.learn(task(f"n{number}", f"u{number % 9}"), Usage(wall_s=1.0), Cause.EXIT, float(number))
    assert len(predictor) == GROUPS_MOST
    assert predictor.needs(groups_of(task("n0", "u0"))[2:3], 0.95, 1) is None
    assert (
        predictor.needs(groups_of(task(f"n{GROUPS_MOST - 1}", f"u{(GROUPS_MOST - 1) % 9}"))[2:3], 0.95, 1) is not None
    )
    assert len(predicted(predictor, task(f"n{GROUPS_MOST - 1}", f"u{(GROUPS_MOST - 1) % 9}")).group) <= 2


def test_a_full_group_learns_at_a_bounded_rate() -> None:
    predictor = Predictor()
    for number in range(10 * WINDOW):
        predictor.learn(task(), Usage(wall_s=1.0), Cause.EXIT, number * 1e-3)
    assert predictor.ends == WINDOW
    predictor.learn(task(), Usage(wall_s=1.0), Cause.EXIT, 5.0)
    assert predictor.ends == WINDOW + 1


def test_a_second_has_a_bounded_number_of_ends() -> None:
    predictor = Predictor()
    for number in range(2 * LEARN_RATE):
        predictor.learn(task(f"n{number}"), Usage(wall_s=1.0), Cause.EXIT, 7.5)
    assert predictor.ends == LEARN_RATE
    predictor.learn(task("later"), Usage(wall_s=1.0), Cause.EXIT, 8.0)
    assert predictor.ends == LEARN_RATE + 1


# ---------------------------------------------------------------- what intervals hold


def invented(count: int, seed: int) -> list[Recorded]:
    """Users with habits that change now and then, in bursts; run times are log-normal around the habit."""
    chance = random.Random(seed)
    habits = {user: chance.uniform(2.0, 8.0) for user in range(12)}
    items: list[Recorded] = []
    at = 0.0
    while len(items) < count:
        user = chance.randrange(12)
        if chance.random() < 0.05:
            habits[user] = chance.uniform(2.0, 8.0)
        at += chance.expovariate(1 / 200.0)
        for _ in range(chance.randrange(1, 12)):
            run = min(math.exp(chance.gauss(habits[user], 0.7)), 86_400.0)
            items.append(Recorded(len(items) + 1, at, run, 86_400.0, {"cpu": 1000}, f"u{user}"))
    return items[:count]


def replayed(items: list[Recorded], cpus: int, policy: str) -> History:
    settings = policy_from(policy) if policy in ("default", "fifo") else SchedulerSettings.model_validate_json(policy)
    return Replay(items, [(1, {"cpu": cpus * 1000})], policy_of(settings)).run()


def test_intervals_hold_what_they_promise_on_an_invented_workload() -> None:
    seen = foresight(replayed(invented(6000, 1), 64, "default"))
    assert seen is not None
    assert seen.tasks == 3000
    assert 0.85 <= seen.covered <= 0.95, seen
    assert seen.width < 0.2 * seen.limit_mean, "and they say something"
    assert seen.factor < 3.0 < seen.factor_limit


@pytest.mark.parametrize("at", [300, 500, 700])
def test_nothing_is_known_that_has_not_happened(at: int) -> None:
    """What ends later than an instant may take as long as it likes: until then the same is predicted, and the same begins."""
    items = invented(at + 100, 3)
    now = items[at].submitted
    first = replayed(items, 16, BY_PREDICTION)
    later = {ran.item.ident for ran in first.ran if ran.ended > now}
    others = [replace(item, run=86_400.0) if item.ident in later else item for item in items]
    seen, again = (until(history, now) for history in (first, replayed(others, 16, BY_PREDICTION)))
    assert sum(begun is not None for ident, (_, begun) in seen.items() if ident in later) > 5, "some run just now"
    assert sum(said is not None for said, _ in seen.values()) > at / 2
    assert seen == again


def until(history: History, now: float) -> dict[int, tuple[Prediction | None, float | None]]:
    """What was predicted of what had been submitted, and when it began, if it had."""
    submitted = (ran for ran in history.ran if ran.item.submitted <= now)
    return {ran.item.ident: (ran.said, ran.started if ran.started <= now else None) for ran in submitted}


BY_PREDICTION = """{
    "order": {"name": "shortest", "times": "predicted"}, "backfill": {"name": "easy", "times": "predicted"}, "fairness": "nobody"
}"""


def test_an_order_by_predictions_has_one_history() -> None:
    items = invented(1500, 2)
    once, again = (replayed(items, 6, BY_PREDICTION) for _ in range(2))
    assert [(r.item.ident, r.started) for r in once.ran] == [(r.item.ident, r.started) for r in again.ran]
    limit = replayed(items, 6, BY_PREDICTION.replace("predicted", "limit"))
    assert sum(r.wait for r in once.ran) < 0.7 * sum(r.wait for r in limit.ran), (
        "limits that are all the same say nothing"
    )


@pytest.mark.skipif(
    not (TRACES / "hpc2n").is_dir(), reason=f"no traces in {TRACES} (JARVIS_TRACES says where they are)"
)
@pytest.mark.parametrize("log", ["hpc2n/hpc2n", pytest.param("ricc/RICC-2010-2", marks=pytest.mark.soak)])
def test_intervals_hold_on_a_recorded_workload(log: str) -> None:
    workload = read(TRACES / f"{log}.swf.gz")
    seen = foresight(replayed(workload.items, workload.nodes[0][1]["cpu"] // 1000, "default"))
    assert seen is not None
    assert seen.tasks > 0.49 * len(workload.items), "hardly any goes without an interval"
    assert 0.85 <= seen.covered <= 0.95, seen
