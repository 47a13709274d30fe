"""What is recommended follows from what was measured, and nothing is recommended that was not."""

from hypothesis import given
from hypothesis import strategies as st

from jarvis.core.attempt import Usage
from jarvis.core.resources import parse_resources
from jarvis.core.states import Cause
from jarvis.core.task import Task, TaskSpec
from jarvis.scheduler.policy.prediction import Predictor
from jarvis.scheduler.recommend import ENOUGH, recommend

GIB = 1 << 30


def task(name: str = "fit", **spec: object) -> Task:
    made = TaskSpec(name=name, **{"command": ("python", "fit.py"), **spec})  # type: ignore[arg-type]
    return Task(id=1, uuid="", project="p", user="ann", spec=made, submitted_at=0.0)


def run(predictor: Predictor, count: int, usage: Usage, of: Task, cause: Cause = Cause.EXIT) -> None:
    for number in range(count):
        predictor.learn(of, usage, cause, 100.0 * number)


def test_measured_peaks_and_a_margin() -> None:
    predictor = Predictor()
    asked = task(resources={"cpu": 8000, "memory": 16 * GIB}, time_limit=86_400.0)
    run(predictor, 20, Usage(wall_s=100.0, cpu_user_s=140.0, cpu_system_s=10.0, max_rss=GIB), asked)
    told = recommend(predictor, asked)
    assert (told["enough"], told["runs"]) == (True, 20)
    assert (told["cpu"], told["memory"], told["time_limit"]) == ("1.7", "1232Mi", 180)
    assert told["asked"] == {"cpu": "8", "memory": "16Gi", "time_limit": 86_400.0}
    assert told["summary"].startswith("cpu 1.7, memory 1232Mi, time limit 180 s: what 95 % of the last 20")


def test_too_few_runs_are_told() -> None:
    predictor = Predictor()
    run(predictor, ENOUGH - 1, Usage(wall_s=1.0, max_rss=GIB), task())
    run(predictor, 3, Usage(wall_s=1.0, max_rss=GIB), task(), Cause.CANCELLED)
    told = recommend(predictor, task())
    assert (told["enough"], told["runs"], told["cpu"], told["memory"], told["time_limit"]) == (
        False,
        4,
        None,
        None,
        None,
    )
    assert told["summary"] == "not enough runs: 4 of fit by ann ended by themselves, 5 are needed"
    assert recommend(predictor, task("unknown"))["runs"] == 0


def test_other_names_say_nothing_about_this_one() -> None:
    predictor = Predictor()
    run(predictor, 50, Usage(wall_s=1.0, max_rss=GIB), task("other"))
    assert recommend(predictor, task())["enough"] is False


def test_a_name_alone_takes_all_its_commands_together() -> None:
    predictor = Predictor()
    run(predictor, 3, Usage(wall_s=10.0), task(command=("a",)))
    run(predictor, 3, Usage(wall_s=20.0), task(command=("b",)))
    told = recommend(predictor, task(command=None))
    assert (told["enough"], told["runs"], told["like"], told["time_limit"]) == (True, 6, "tasks of its name", 60)
    assert told["memory"] is None
    assert "memory was measured in 0 of them" in told["summary"]


@given(
    st.lists(
        st.tuples(st.floats(0.01, 1e5), st.floats(0.0, 64.0), st.integers(1, 1 << 40)), min_size=ENOUGH, max_size=60
    )
)
def test_all_but_one_in_twenty_would_have_had_enough(runs: list[tuple[float, float, int]]) -> None:
    predictor = Predictor()
    for number, (seconds, cpus, peak) in enumerate(runs):
        predictor.learn(
            task(), Usage(wall_s=seconds, cpu_user_s=cpus * seconds, max_rss=peak), Cause.EXIT, 10.0 * number
        )
    told = recommend(predictor, task())
    amounts = parse_resources({"cpu": told["cpu"], "memory": told["memory"]})
    most = len(runs) // 20
    assert sum(peak > amounts["memory"] for _, _, peak in runs) <= most
    assert sum(cpus * 1000 > amounts["cpu"] + 1 for _, cpus, _ in runs) <= most
    assert sum(seconds > told["time_limit"] for seconds, _, _ in runs) <= most
