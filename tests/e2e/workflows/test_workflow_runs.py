"""Workflows on a real cluster: what steps hand on, what decides, what a person decides, and how they end."""

import json
from pathlib import Path
from typing import Any

from tests.e2e.cluster.harness import Home, wait_for

from jarvis.sdk.client import Client
from jarvis.sdk.workflow_handle import WorkflowHandle

PATIENCE = 60.0


def states(handle: WorkflowHandle) -> dict[str, str]:
    return {step["path"]: step["state"] for step in handle.steps()}


def sh(ident: str, script: str, **more: Any) -> dict[str, Any]:
    return {"id": ident, "command": ["sh", "-c", script], **more}


def test_outputs_are_handed_on_and_gathered(client: Client) -> None:
    handle = client.submit_workflow(
        """
        name: sums
        params: {factor: {type: integer, default: 10}}
        steps:
          - id: numbers
            command: echo '[1, 2, 3]' > $JARVIS_OUTPUT
          - id: each
            depends_on: [numbers]
            for_each: steps.numbers.output
            command: [sh, -c, 'echo $((${{ item }} * ${{ params.factor }})) > $JARVIS_OUTPUT']
          - id: sum
            depends_on: each
            command: echo '{"total":' ${{ sum(steps.each.output) }}'}' > $JARVIS_OUTPUT
        output: {total: "${{ steps.sum.output.total }}"}
        """,
        {"factor": 7},
    )
    assert handle.result(PATIENCE) == {"total": 42}
    assert states(handle)["each[2]"] == "succeeded"


def test_conditions_choose_what_runs(client: Client) -> None:
    document = {
        "steps": [
            sh("good", "true"),
            sh("bad", "exit 3"),
            sh("after_bad", "true", depends_on=[{"step": "bad", "on": "failure"}]),
            sh("not_now", "true", depends_on=["good"], when="steps.good.state == 'failed'"),
            sh("never", "true", depends_on=["bad"]),
            sh("anyway", "true", depends_on=["never", "good"], trigger="none_failed"),
            sh("one_is_enough", "true", depends_on=["never", "good"], trigger="any"),
            {
                "id": "which",
                "switch": "'b'",
                "cases": {"a": {"steps": [sh("x", "false")]}, "b": {"steps": [sh("x", "true")]}},
            },
        ]
    }
    handle = client.submit_workflow(document)
    assert handle.wait(PATIENCE)["state"] == "succeeded", "whoever waits for a failure has expected it"
    assert states(handle) == {
        "good": "succeeded", "bad": "failed", "after_bad": "succeeded", "not_now": "skipped", "never": "upstream_failed",
        "anyway": "upstream_failed", "one_is_enough": "succeeded", "which": "succeeded", "which/b/x": "succeeded",
    }  # fmt: skip
    assert handle.step("bad") is not None
    assert (handle.step("bad") or {})["reason"] == "exit code 3"


def test_a_loop_goes_on_until_it_is_done(client: Client) -> None:
    script = 'echo "{\\"n\\": $((JARVIS_ITERATION + 1))}" > $JARVIS_OUTPUT'
    handle = client.submit_workflow(
        {"steps": [sh("poll", script, until="last.n >= 3")], "output": "${{ steps.poll.output.n }}"}
    )
    assert handle.result(PATIENCE) == 3
    assert sorted(states(handle)) == ["poll", "poll[0]", "poll[1]", "poll[2]"]


def test_what_fails_is_handled_and_cleaned_up(client: Client, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    document = {
        "steps": [sh("fails", "exit 1", retry={"max_attempts": 2, "backoff_base": 0.01})],
        "on_failure": [sh("handle", f"echo handled ${{{{ steps.fails.reason }}}} >> {ledger}")],
        "finally": [sh("clean", f"echo clean >> {ledger}")],
    }
    handle = client.submit_workflow(document)
    assert handle.wait(PATIENCE)["state"] == "failed"
    assert ledger.read_text().splitlines() == ["handled exit code 1", "clean"]
    task = (handle.step("fails") or {})["task"]
    assert client.show(task)["failures"] == 2


def test_a_person_lets_it_go_on(client: Client, up: Home) -> None:
    document = {"steps": [{"id": "ask", "approval": "really?"}, sh("go", "true", depends_on=["ask"])]}
    yes, no = client.submit_workflow(document), client.submit_workflow(document)
    for handle in (yes, no):
        wait_for(lambda h=handle: states(h).get("ask") == "held", "it asks")  # type: ignore[misc]
    up.jarvis("workflow", "approve", str(yes.id), "ask")
    up.jarvis("workflow", "reject", str(no.id), "ask")
    assert yes.wait(PATIENCE)["state"] == "succeeded"
    assert no.wait(PATIENCE)["state"] == "failed"
    assert states(no) == {"ask": "failed", "go": "upstream_failed"}
    up.jarvis("workflow", "approve", str(yes.id), "ask", code=5)


def test_the_first_of_a_race_ends_the_others(client: Client) -> None:
    document = {"steps": [{"id": "first", "race": [sh("slow", "sleep 100"), sh("fast", "echo 5 > $JARVIS_OUTPUT")]}]}
    handle = client.submit_workflow(document | {"output": "${{ steps.first.output }}"})
    assert handle.result(PATIENCE) == {"winner": "fast", "output": 5}
    assert states(handle)["first/slow"] == "cancelled"


def test_cancelled_it_stops_what_runs_and_still_cleans_up(client: Client, tmp_path: Path) -> None:
    begun, cleaned = tmp_path / "begun", tmp_path / "cleaned"
    document = {
        "steps": [sh("long", f"touch {begun}; sleep 100"), sh("later", "true", depends_on=["long"])],
        "finally": [sh("clean", f"touch {cleaned}")],
    }
    handle = client.submit_workflow(document)
    wait_for(begun.exists, "it runs")
    handle.cancel()
    assert handle.wait(PATIENCE)["state"] == "cancelled"
    assert states(handle) == {"long": "cancelled", "later": "cancelled", "clean": "succeeded"}
    assert cleaned.exists()


def test_paused_it_begins_nothing_until_resumed(client: Client, tmp_path: Path) -> None:
    go = tmp_path / "go"
    document = {"steps": [sh("one", f"until [ -e {go} ]; do sleep 0.05; done"), sh("two", "true", depends_on=["one"])]}
    handle = client.submit_workflow(document)
    wait_for(lambda: states(handle).get("one") == "running", "it runs")
    handle.act("pause")
    wait_for(lambda: handle.show()["state"] == "suspended", "it is paused")
    go.touch()
    wait_for(lambda: states(handle).get("one") == "succeeded", "what ran goes on")
    assert "two" not in states(handle)
    handle.act("resume")
    assert handle.wait(PATIENCE)["state"] == "succeeded"


def test_time_runs_out_for_a_step_and_for_all(client: Client) -> None:
    step = client.submit_workflow({"steps": [sh("slow", "sleep 100", timeout=0.3, grace=0.1)]})
    whole = client.submit_workflow({"steps": [sh("slow", "sleep 100", grace=0.1)], "timeout": 0.3})
    assert step.wait(PATIENCE)["state"] == "failed"
    assert states(step) == {"slow": "timeout"}
    assert whole.wait(PATIENCE)["state"] == "timeout"


def test_rising_numbers_are_one_task_with_an_array(client: Client) -> None:
    handle = client.submit_workflow(
        {"steps": [sh("fan", "test $JARVIS_ARRAY_INDEX -lt 50", for_each="range(50)", concurrency=4)]}
    )
    assert handle.wait(PATIENCE)["state"] == "succeeded"
    (only,) = handle.steps()
    assert client.show(only["task"])["counts"] == {"succeeded": 50}


def test_the_same_key_gives_the_same_workflow(up: Home, tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text("steps: [{id: a, command: 'true'}]")
    first = up.jarvis("workflow", "run", "-q", "--idempotency-key", "once", str(file)).stdout
    assert up.jarvis("workflow", "run", "-q", "--idempotency-key", "once", str(file)).stdout == first
    file.write_text("steps: [{id: b, command: 'true'}]")
    up.jarvis("workflow", "run", "-q", "--idempotency-key", "once", str(file), code=5)


def test_the_command_line_tells_how_it_went(up: Home, tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text("name: told\nsteps:\n  - {id: a, command: 'true'}\n  - {id: b, command: exit 7, depends_on: [a]}\n")
    assert "2 steps in 2 levels" in up.jarvis("workflow", "validate", str(file)).stdout
    assert up.jarvis("workflow", "plan", str(file)).stdout.split() == ["1", "a", "2", "b"]
    done = up.jarvis("workflow", "run", str(file), code=1)
    assert "failed" in done.stderr
    ident = done.stdout.split()[-1]
    shown = up.jarvis("workflow", "show", ident).stdout
    assert "exit code 7" in shown and "after a" in shown
    assert json.loads(up.jarvis("workflow", "show", ident, "-o", "json").stdout)["state"] == "failed"
    assert "told" in up.jarvis("workflow", "ls", "--all").stdout
    assert up.jarvis("workflow", "steps", ident, "--failed").stdout.splitlines()[1].split()[:2] == ["b", "failed"]
    up.jarvis("workflow", "show", "999999", code=3)


def test_others_neither_see_nor_touch_it(up: Home, client: Client) -> None:
    handle = client.submit_workflow({"steps": [{"id": "ask", "approval": True}]})
    token = client.connection.post("/tokens", {"role": "user", "user": "eve", "projects": ["blue"]})["token"]
    up.env["JARVIS_TOKEN"] = token
    try:
        for words in (("show", str(handle.id)), ("cancel", str(handle.id)), ("approve", str(handle.id), "ask")):
            up.jarvis("workflow", *words, code=3)
        assert str(handle.id) not in up.jarvis("workflow", "ls", "--all").stdout
    finally:
        del up.env["JARVIS_TOKEN"]
    handle.cancel()
    assert handle.wait(PATIENCE)["state"] == "cancelled"


def test_a_rerun_takes_over_what_went_well(client: Client, up: Home, tmp_path: Path) -> None:
    ledger, mended = tmp_path / "ledger", tmp_path / "mended"
    note = f"echo $JARVIS_WORKFLOW_STEP >> {ledger}"
    document = {
        "steps": [
            sh("load", f"{note}; echo '[1, 2, 3]' > $JARVIS_OUTPUT"),
            {
                "id": "each", "depends_on": ["load"], "for_each": "steps.load.output",
                "steps": [sh("part", note), sh("risk", f"{note}; test ${{{{ item }}}} != 2 -o -e {mended}", depends_on=["part"])],
            },
            sh("sum", note, depends_on=["each"]),
        ]
    }  # fmt: skip
    first = client.submit_workflow(document)
    assert first.wait(PATIENCE)["state"] == "failed"
    mended.touch()
    ledger.write_text("")
    done = up.jarvis("workflow", "retry", "-q", str(first.id))
    again = client.workflow(int(done.stdout))
    assert again.show()["rerun_of"] == first.id
    assert sorted(ledger.read_text().split()) == ["each[1]/risk", "sum"], "only what failed, and what follows"
    assert (again.step("load") or {})["reused"] == first.id
    up.jarvis("workflow", "retry", str(again.id), code=5)
    ledger.write_text("")
    assert again.retry("each").wait(PATIENCE)["state"] == "succeeded"
    assert len(ledger.read_text().split()) == 7


def test_what_a_step_gave_is_taken_by_the_next_workflow(up: Home, client: Client, tmp_path: Path) -> None:
    ledger, file = tmp_path / "ledger", tmp_path / "w.yaml"
    file.write_text(
        f"""
        name: cached
        params: {{day: mon}}
        steps:
          - id: load
            command: echo ran >> {ledger}; echo '{{"rows":3}}' > $JARVIS_OUTPUT
            cache: {{key: "${{{{ params.day }}}}", ttl: 1h}}
          - {{id: use, depends_on: [load], command: "test ${{{{ steps.load.output.rows }}}} = 3"}}
        """
    )

    def run(*words: str) -> str:
        return up.jarvis("workflow", "run", "-q", *words, str(file)).stdout.strip()

    def ran() -> int:
        return len(ledger.read_text().split())

    first, second = run(), run()
    assert ran() == 1
    assert (client.workflow(int(second)).step("load") or {})["reused"] == int(first)
    shown = up.jarvis("workflow", "show", second).stdout
    assert f"reused from workflow {first}" in shown
    assert '"load (reused)"' in up.jarvis("workflow", "graph", second).stdout
    run("-P", "day=tue")
    run("--no-cache")
    assert ran() == 3
    up.jarvis("workflow", "retry", "-q", second, "--from", "load")
    assert ran() == 4, "what is to run again does"
    up.kill_server()
    up.jarvis("up", "--cpus", "4")
    run()
    assert ran() == 4, "it is kept"


def test_outputs_of_a_fan_out_over_numbers_are_gathered_where_they_are_read(client: Client) -> None:
    """It is one task with an array only where nobody reads what its elements give."""
    each = sh("each", "echo $((JARVIS_ARRAY_INDEX * 10)) > $JARVIS_OUTPUT", for_each="range(2, 8, 2)")
    inner = {
        "id": "inner",
        "depends_on": ["each"],
        "steps": [sh("sum", "echo ${{ sum(steps['each'].output) }} > $JARVIS_OUTPUT")],
    }
    inner["output"] = "${{ steps.sum.output }}"
    handle = client.submit_workflow({"steps": [each, inner], "output": "${{ steps.inner.output }}"})
    assert handle.result(PATIENCE) == 120
    assert (handle.step("each") or {})["output"] == [20, 40, 60]
    handle = client.submit_workflow({"steps": [each, sh("last", "true", depends_on=["each"])]})
    assert handle.wait(PATIENCE)["state"] == "succeeded"
    assert client.show((handle.step("each") or {})["task"])["size"] == 3
