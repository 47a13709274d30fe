"""Which steps may take what an earlier one gave, as a leader decides it."""

from typing import Any

import msgspec
import pytest

from jarvis.api.workflow_documents import Given, Rules, compiled
from jarvis.core.states import State
from jarvis.core.workflow import Kept, Step, Workflow
from jarvis.dag.dag_manager import Run
from jarvis.dag.progress import TaskEnd

DAY = 86400.0


class Project:
    """Runs documents one after the other; every task gives a number of its own, and what is kept is there for the next one."""

    def __init__(self, name: str = "p") -> None:
        self.name = name
        self.kept: dict[tuple[str, str], Kept] = {}
        self.ran = 0
        self.rows: dict[str, Step] = {}

    def run(
        self, *steps: dict[str, Any], now: float = 0.0, state: State = State.SUCCEEDED, reuse: bool = True, **more: Any
    ) -> int:
        """How many of its tasks ran."""
        params = more.pop("given", {})
        spec = compiled(Given({"steps": list(steps), **more}, params, reuse=reuse), Rules(0.0))
        workflow = Workflow(id=self.ran + 100, uuid="u", project=self.name, user="ann", spec=spec, submitted_at=now)
        run, before, self.rows = Run(workflow), self.ran, {}
        run.begin(now)
        while workflow.ended_at is None:
            self.take(run)
            if (kept := self.kept.get((self.name, run.next_key(now)))) is not None and run.reuse(kept, now):
                continue
            self.ran += 1
            task = run.start_next(self.ran, now)
            assert task is not None
            assert task.origin is not None
            run.task_ended(task.origin.step, TaskEnd(state, output=b"%d" % self.ran), now)
        self.take(run)
        return self.ran - before

    def take(self, run: Run) -> None:
        deeds = run.take()
        self.rows |= deeds.rows
        self.kept |= {(kept.project, kept.key): kept for kept in deeds.kept}


def step(command: str = "work", key: str = "k", ident: str = "a", **more: Any) -> dict[str, Any]:
    return {"id": ident, "command": command, "cache": {"key": key, "ttl": "1d"}, **more}


def test_the_same_is_done_once() -> None:
    project = Project()
    assert project.run(step(), output="${{ steps.a.output }}") == 1
    assert project.run(step(), name="another", output="${{ steps.a.output }}") == 0
    row = project.rows["a"]
    assert (row.state, row.output, row.task, row.detail.reused) == (State.SUCCEEDED, b"1", 1, 100)


@pytest.mark.parametrize(
    "other",
    [
        step("other work"), step(key="another"), step(env={"X": "1"}), step(cwd="/"), step(login_shell=True),
        {"id": "a", "image": "alpine", "command": "work", "cache": {"key": "k"}},
        step(array="0-1"),
    ],
)  # fmt: skip
def test_what_differs_runs(other: dict[str, Any]) -> None:
    project = Project()
    assert project.run(step()) == 1
    assert project.run(other) == 1


def test_where_and_how_long_it_may_run_makes_no_difference() -> None:
    project = Project()
    assert project.run(step()) == 1
    assert (
        project.run(step(ident="b", resources={"cpu": 2}, time_limit=60, priority="high", timeout="1h", name="x")) == 0
    )


def test_keys_and_commands_are_compared_as_they_are_filled_in() -> None:
    project = Project()
    params = {"day": {"type": "string"}}
    for day, ran in (("mon", 1), ("tue", 1), ("mon", 0)):
        assert project.run(step(key="${{ params.day }}"), params=params, given={"day": day}) == ran
    follows = step("use ${{ steps.a.output }}", ident="b", depends_on=["a"])
    assert project.run(step(key="mon"), follows) == 1, "b has something new to do it with"
    assert project.run(step(key="mon"), follows) == 0
    assert project.run({"id": "a", "command": "work"}, follows) == 2


def test_only_what_succeeded_is_kept() -> None:
    project = Project()
    assert project.run(step(), state=State.FAILED) == 1
    assert project.kept == {}
    assert project.run(step()) == 1


def test_not_when_it_is_too_old_for_the_one_that_kept_it_or_wants_it() -> None:
    project = Project()
    assert project.run(step()) == 1
    assert project.run(step(), now=DAY - 1) == 0
    hasty = step() | {"cache": {"key": "k", "ttl": "1h"}}
    assert project.run(hasty, now=DAY - 1) == 1
    assert project.run(step(), now=DAY + 3598) == 0, "that one is kept for an hour"
    assert project.run(step(), now=DAY + 3599) == 1


def test_not_of_other_projects() -> None:
    one, other = Project(), Project("q")
    assert one.run(step()) == 1
    other.kept = one.kept
    assert other.run(step()) == 1


def test_on_wish_everything_runs_and_is_kept_anew() -> None:
    project = Project()
    assert project.run(step()) == 1
    assert project.run(step(), reuse=False) == 1
    assert project.run(step()) == 0
    assert project.rows["a"].output == b"2"


def test_elements_of_a_fan_out_are_taken_one_by_one() -> None:
    project = Project()
    each = step("work on ${{ item }}", for_each=["x", "y"])
    assert project.run(each) == 2
    more = step("work on ${{ item }}", for_each=["x", "z", "y"])
    assert project.run(more, output="${{ steps.a.output }}") == 1
    assert project.rows["a"].output == b"[1,3,2]"


def test_what_a_function_gave_and_nobody_can_hand_on_is_not_kept() -> None:
    project = Project()
    spec = compiled(Given({"steps": [step()]}), Rules(0.0))
    run = Run(Workflow(id=1, uuid="u", project="p", user="ann", spec=spec, submitted_at=0.0))
    run.begin(0.0)
    run.start_next(1, 0.0)
    run.task_ended("a", TaskEnd(State.SUCCEEDED, result_digest="0" * 64), 1.0)
    project.take(run)
    assert project.kept == {}


def test_another_leader_keeps_it_under_the_key_that_it_began_with() -> None:
    project = Project()
    spec = compiled(Given({"steps": [step()]}), Rules(0.0))
    run = Run(Workflow(id=1, uuid="u", project="p", user="ann", spec=spec, submitted_at=0.0))
    run.begin(0.0)
    run.start_next(9, 0.0)
    rows = [msgspec.msgpack.decode(msgspec.msgpack.encode(row), type=Step) for row in run.take().rows.values()]
    following = Run(run.workflow, rows)
    following.begin(1.0)
    following.task_ended("a", TaskEnd(State.SUCCEEDED, output=b"5"), 2.0)
    project.take(following)
    assert project.run(step()) == 0
    assert project.rows["a"].output == b"5"


def test_a_key_that_cannot_be_worked_out_fails_the_step() -> None:
    project = Project()
    given = [{"id": "a", "command": "x"}, step(key="${{ steps.a.output.day }}", ident="b", depends_on=["a"])]
    spec = compiled(Given({"steps": given}), Rules(0.0))
    run = Run(Workflow(id=1, uuid="u", project="p", user="ann", spec=spec, submitted_at=0.0))
    run.begin(0.0)
    run.start_next(1, 0.0)
    run.task_ended("a", TaskEnd(State.SUCCEEDED, output=b"5"), 1.0)
    assert run.next_key(1.0) == ""
    assert run.start_next(2, 1.0) is None
    project.take(run)
    assert project.rows["b"].state is State.FAILED
    assert "day" in project.rows["b"].reason
