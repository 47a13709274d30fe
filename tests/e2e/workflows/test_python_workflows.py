"""Workflows written in Python: calls of tasks inside a ``@workflow``, and the explicit builder."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.cluster.harness import Home

import jarvis
from jarvis.sdk.client import Client
from jarvis.sdk.workflow import WorkflowBuilder
from jarvis.sdk.workflow_handle import WorkflowFailed

PATIENCE = 60.0


@jarvis.task(cpus=0.5)
def numbers(count: int) -> list[int]:
    return list(range(count))


@jarvis.task(cpus=0.5)
def third(n: int) -> Fraction:
    """What JSON cannot say travels as it is."""
    return Fraction(n, 3)


@jarvis.task(cpus=0.5)
def total(parts: list[Fraction], extra: dict[str, Any]) -> str:
    return str(sum(parts) + extra["more"][0])


@jarvis.task(retries=1)
def breaks() -> None:
    raise LookupError("not there")


@jarvis.workflow(concurrency=3)
def thirds(count: int, more: int) -> Any:
    found = numbers(count)
    return {"sum": total(third.map(found), {"more": [more]})}


def test_calls_become_steps_and_results_travel_between_them(client: Client) -> None:
    builder = thirds.build(5, 7)
    steps = {step["id"]: step for step in builder.document()["steps"]}
    assert list(steps) == ["numbers", "third", "total"]
    assert steps["total"]["depends_on"] == [{"step": "third"}]
    handle = builder.submit(client)
    assert handle.result(PATIENCE) == {"sum": "31/3"}
    assert {s["path"] for s in handle.steps()} == {"numbers", "third", "total", *(f"third[{n}]" for n in range(5))}


def test_a_decorated_workflow_is_called_like_a_function(up: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JARVIS_HOME", str(up.directory))
    assert thirds(2, 1) == {"sum": "4/3"}


def test_outside_a_workflow_a_task_is_just_called() -> None:
    assert third(1) == Fraction(1, 3)


def test_the_builder_mixes_commands_functions_and_conditions(client: Client) -> None:
    wf = WorkflowBuilder("mixed")
    with wf:
        listed = numbers(4)
        counted = wf.command(
            "count", f"echo '{{\"n\": ${{{{ len({'steps.numbers.output'}) }}}}}}' > $JARVIS_OUTPUT", after=[listed]
        )
        doubled = third.map(range(2))
        wf.command("never", "false", when="len(steps.numbers.output) > 9", after=[listed])
        handled = wf.command("handled", "true", after=[(breaks(), "failure"), doubled])
    wf.returns({"n": counted["n"], "last": listed[-1]})
    handle = wf.submit(client)
    assert handle.result(PATIENCE) == {"n": 4, "last": 3}
    assert (handle.step("breaks") or {})["reason"] == "LookupError: not there"
    assert (handle.step(handled.id) or {})["state"] == "succeeded"


@jarvis.task(cpus=0.5)
def large(size: int) -> bytes:
    """More than a row of the store takes, and nothing that JSON can say."""
    return bytes([size % 251]) * (size * 100_000)


@jarvis.task(cpus=0.5)
def sizes(one: bytes, several: list[bytes]) -> list[list[int]]:
    return [[sum(part[:1]), len(part)] for part in (one, *several)]


def test_results_too_large_for_a_row_travel_by_reference(client: Client) -> None:
    with WorkflowBuilder("large") as wf:
        wf.returns(sizes(large(20), large.map([3, 0, 10])))
    handle = wf.submit(client)
    assert handle.result(PATIENCE) == [[20, 2_000_000], [3, 300_000], [0, 0], [10, 1_000_000]]
    step = handle.step("large") or {}
    assert step["output"] is None


@jarvis.task(cpus=0.5)
def needs(file: str, data: bytes) -> int:
    with Path(file).open():
        return len(data)


def test_a_rerun_is_given_the_large_results_of_the_first_run(client: Client, tmp_path: Path) -> None:
    with WorkflowBuilder("again") as wf:
        wf.returns(needs(str(tmp_path / "there"), large(5)))
    first = wf.submit(client)
    assert first.wait(PATIENCE)["state"] == "failed"
    (tmp_path / "there").touch()
    second = client.workflow(int(client.connection.post(f"/workflows/{first.id}/retry", {"again": []})["id"]))
    assert second.result(PATIENCE) == 500_000
    assert (second.step("large") or {})["task"] == (first.step("large") or {})["task"]


def test_an_expression_that_needs_a_large_result_is_told_so(client: Client) -> None:
    with WorkflowBuilder("seen") as wf:
        wf.command("look", "echo ${{ len(steps.large.output) }}", after=[large(2)])
    handle = wf.submit(client)
    assert handle.wait(PATIENCE)["state"] == "failed"
    reason = (handle.step("look") or {})["reason"]
    assert "the result of large is no JSON of at most 65536 bytes: functions alone can take it" in reason


def test_what_fails_is_raised_with_the_names_of_its_steps(client: Client) -> None:
    with WorkflowBuilder("bad") as wf:
        breaks()
    with pytest.raises(WorkflowFailed, match=r"failed \(breaks\)"):
        wf.submit(client).result(PATIENCE)


def test_what_functions_gave_is_taken_by_the_next_workflow(client: Client) -> None:
    """Pickled, as it was given: a fraction is one again."""

    def run() -> Any:
        builder = thirds.build(4, 2)
        for step in builder.document()["steps"]:
            step["cache"] = {"key": "thirds", "ttl": "1h"}
        handle = builder.submit(client)
        assert handle.result(PATIENCE) == {"sum": "4"}
        return handle

    first, second = run(), run()
    paths = {"numbers", "total", *(f"third[{n}]" for n in range(4))}
    assert {s["path"]: s["reused"] for s in second.steps() if s["path"] in paths} == dict.fromkeys(paths, first.id)


@jarvis.task(cpus=0.5, push=["in.txt"], pull="made/*")
def makes(name: str) -> str:
    Path("made").mkdir()
    Path("made", name).write_text(Path("in.txt").read_text())
    return name


def test_files_go_from_step_to_step(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in.txt").write_text("so")
    monkeypatch.chdir(tmp_path)
    with WorkflowBuilder("files") as wf:
        first = makes("one")
        second = wf.command("read", "printf '\"%s\"' $(cat made/one) > $JARVIS_OUTPUT", push=[first.artifacts])
        wf.returns(second)
    (read,) = [step for step in wf.document()["steps"] if step["id"] == "read"]
    assert read["depends_on"] == [{"step": "makes"}]
    assert wf.submit(client).result(PATIENCE) == "so"
    assert wf.document()["steps"][0]["push"] == ["in.txt"], "the document stays as it was written"
