"""The model of workflows: its tables, and how it is walked."""

import pytest

from jarvis.core.errors import InvalidTransition
from jarvis.core.states import State
from jarvis.core.task import TaskSpec
from jarvis.core.workflow import (
    Approval,
    Block,
    Case,
    Step,
    StepSpec,
    Workflow,
    WorkflowSpec,
    check_step_transition,
    check_workflow_transition,
    walk,
)

TASK = StepSpec(id="t", task=TaskSpec(name="t"))


def test_kinds_and_the_steps_within_steps() -> None:
    group = StepSpec(id="g", block=Block((TASK,), on_failure=(StepSpec(id="f", sleep=1),)))
    switch = StepSpec(id="s", switch="1", cases=(Case("a", "a", Block((TASK,))),), default=Block((TASK,)))
    ask = StepSpec(id="q", approval=Approval())
    block = Block((group, switch), finally_=(ask,))
    assert [step.kind for step in (TASK, group, switch, ask, group.block.on_failure[0])] == [  # type: ignore[union-attr]
        "task", "block", "switch", "approval", "sleep",
    ]  # fmt: skip
    assert [step.id for step in walk(block)] == ["g", "t", "f", "s", "t", "t", "q"]
    assert [label for label, _ in switch.blocks] == ["a/", "default/"]


def test_what_ended_never_changes() -> None:
    step = Step(workflow=1, path="a", state=State.RUNNING)
    check_step_transition(step, State.SUCCEEDED)
    step.state = State.SUCCEEDED
    with pytest.raises(InvalidTransition, match="step a of workflow 1"):
        check_step_transition(step, State.RUNNING)


def test_a_workflow_goes_by_its_table() -> None:
    workflow = Workflow(
        id=1, uuid="u", project="p", user="u", spec=WorkflowSpec(name="w", block=Block(())), submitted_at=0
    )
    check_workflow_transition(workflow, State.SUBMITTED)
    check_workflow_transition(workflow, State.RUNNING)
    with pytest.raises(InvalidTransition, match="workflow 1"):
        check_workflow_transition(workflow, State.SKIPPED)
