"""The longest path to the end: from time limits, timeouts, pauses and what is inside of steps."""

from typing import Any

from jarvis.api.workflow_documents import Given, Rules, compiled
from jarvis.core.workflow import Block, NewWorkflow, Workflow
from jarvis.dag.dag_manager import Run
from jarvis.dag.resolver import weights


def block(*steps: dict[str, Any]) -> Block:
    return compiled(Given({"steps": list(steps)}), Rules(0.0)).block


def ready(*steps: dict[str, Any]) -> dict[str, float]:
    """The ranks that tasks get which may begin at once, in the order in which they are made."""
    spec = compiled(Given({"steps": list(steps)}), Rules(0.0))
    new = NewWorkflow(uuid="u", project="p", user="ann", spec=spec)
    run = Run(Workflow(id=1, uuid=new.uuid, project=new.project, user=new.user, spec=spec, submitted_at=5.0))
    run.begin(10.0)
    made: dict[str, float] = {}
    while run.startable:
        task = run.start_next(len(made) + 2, 10.0)
        assert task is not None and task.origin is not None and task.origin.submitted_at == 5.0
        made[task.origin.step] = task.origin.rank
    return made


def test_without_times_it_is_the_number_of_steps() -> None:
    chain: list[dict[str, Any]] = [{"id": "a", "command": "true"}, {"id": "b", "command": "true", "depends_on": ["a"]}]
    assert weights(block(*chain).steps) == {}
    assert ready({"id": "alone", "command": "true"}, *chain) == {"a": 2.0, "alone": 1.0}


def test_what_tells_no_time_takes_the_mean_of_what_does() -> None:
    steps = block(
        {"id": "a", "command": "true", "time_limit": 10}, {"id": "b", "command": "true", "timeout": 20},
        {"id": "c", "sleep": 30}, {"id": "d", "command": "true"}, {"id": "e", "approval": "go?"},
    ).steps  # fmt: skip
    assert weights(steps) == {"a": 10.0, "b": 20.0, "c": 30.0, "d": 20.0, "e": 20.0}


def test_the_length_of_a_block_is_that_of_the_longest_way_through_it() -> None:
    inner = [{"id": "x", "command": "true", "time_limit": 5}, {"id": "y", "command": "true", "time_limit": 7}]
    after = {"id": "after", "command": "true", "time_limit": 100, "depends_on": ["inner"]}
    steps: tuple[dict[str, Any], ...] = (
        {"id": "inner", "steps": inner},
        after,
        {"id": "single", "command": "true", "time_limit": 106},
    )
    assert weights(block(*steps).steps) == {"inner": 7.0, "after": 100.0, "single": 106.0}
    assert ready(*steps) == {"inner/y": 107.0, "single": 106.0, "inner/x": 105.0}


def test_elements_of_a_fan_out_rank_as_the_whole() -> None:
    each = {"id": "each", "for_each": ["p", "q"], "command": ["echo", "${{ item }}"], "time_limit": 3}
    assert ready(each, {"id": "last", "command": "true", "time_limit": 4, "depends_on": ["each"]}) == {
        "each[0]": 7.0, "each[1]": 7.0,
    }  # fmt: skip


def test_what_is_predicted_comes_before_a_limit() -> None:
    steps = block(
        {"id": "a", "name": "known", "command": "true", "time_limit": 100}, {"id": "b", "command": "true", "time_limit": 50},
        {"id": "c", "steps": [{"id": "d", "name": "known", "command": "true"}]}, {"id": "e", "approval": "go?"},
    ).steps  # fmt: skip
    assert weights(steps, lambda spec: 10.0 if spec.name == "known" else None) == {
        "a": 10.0,
        "b": 50.0,
        "c": 10.0,
        "e": 70 / 3,
    }
