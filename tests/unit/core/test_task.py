"""What a task says about itself."""

from jarvis.core.task import ArraySpec, FunctionCall, StepInput, TaskSpec


def test_bodies_are_named_by_their_fields() -> None:
    assert TaskSpec(name="t", command=("true",)).bodies == {}
    called = TaskSpec(name="t", function=FunctionCall(code="c", python="3.11"))
    assert called.bodies == {"function.code": "c"}
    called = TaskSpec(name="t", function=FunctionCall(code="c", python="3.11", args_digest="a"))
    assert called.bodies == {"function.code": "c", "function.args_digest": "a"}
    given = {"x": StepInput("t", pickled=(b"", b"p"), many=True, digests=("d", "")), "y": StepInput("t", json=b"1")}
    called = TaskSpec(name="t", function=FunctionCall(code="c", python="3.11", inputs=given))
    assert called.bodies == {"function.code": "c", "function.inputs.x.0": "d"}
    scripted = TaskSpec(name="t", command=("sh",), script="s", array=ArraySpec(((0, 1, 1),), entries="e"))
    assert scripted.bodies == {"script": "s", "entries": "e"}
    pushed = TaskSpec(name="t", command=("sh",), push=("m", "${{ steps.a.artifacts }}", "n"))
    assert pushed.bodies == {"push.0": "m", "push.2": "n"}, "what a step will read of another is not known yet"


def test_who_has_a_directory_of_its_own() -> None:
    assert not TaskSpec(name="t", command=("true",)).own_directory
    assert TaskSpec(name="t", command=("true",), push=("m",)).own_directory
    assert TaskSpec(name="t", command=("true",), artifacts=("*",)).own_directory
