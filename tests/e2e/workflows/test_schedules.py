"""Schedules on a real cluster: runs at their times, once each, also over a leader that is killed."""

from collections import Counter
from pathlib import Path

from tests.e2e.cluster.harness import Home, wait_for

from jarvis.sdk.client import Client


def nominal_times(ledger: Path) -> list[int]:
    return [int(line) for line in ledger.read_text().split()] if ledger.exists() else []


def test_a_command_runs_at_every_nominal_time_once_whoever_leads(up: Home, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    script = f"echo $JARVIS_NOMINAL_TIME >> {ledger}"
    said = up.jarvis("cron", "add", "--every", "1", "--catch-up", "all", "tick", "--", "sh", "-c", script)
    assert "runs first at" in said.stdout
    wait_for(lambda: len(nominal_times(ledger)) >= 2, "it runs")
    up.kill_server()
    up.jarvis("up", "--cpus", "4")
    before = len(nominal_times(ledger))
    wait_for(lambda: len(nominal_times(ledger)) >= before + 3, "it runs again")
    up.jarvis("cron", "pause", "tick")
    with up.client() as client:
        wait_for(lambda: client.connection.get("/schedules/tick")["paused"], "it is paused")
        wait_for(lambda: not list(client.tasks(state="active")), "what ran is over")
        runs = client.connection.get("/schedules/tick")["runs"]
    found = sorted(nominal_times(ledger))
    assert set(Counter(found).values()) == {1}, "once"
    assert len(found) == runs
    assert found == list(range(found[0], found[-1] + 1)), "and none is left out"
    up.jarvis("cron", "rm", "tick")
    wait_for(lambda: "tick" not in up.jarvis("cron", "ls").stdout, "it is gone")
    up.jarvis("cron", "show", "tick", code=3)


def test_a_workflow_is_made_by_hand_and_for_what_has_passed(up: Home, client: Client, tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text("name: nightly\nparams: {word: none}\nsteps: [{id: a, command: 'test ${{ params.word }} = x'}]\n")
    up.jarvis(
        "cron",
        "add",
        "--cron",
        "0 3 * * *",
        "--zone",
        "Europe/Berlin",
        "--workflow",
        str(file),
        "-P",
        "word=x",
        "nightly",
    )
    up.jarvis("cron", "trigger", "nightly")
    wait_for(lambda: client.connection.get("/schedules/nightly")["runs"] == 1, "it ran")
    made = client.connection.get("/schedules/nightly")["last_run"]
    assert client.workflow(made).wait(60)["state"] == "succeeded"
    up.jarvis("cron", "backfill", "nightly", "--from", "2026-03-28T00:00:00Z", "--until", "2026-03-31T00:00:00Z")
    wait_for(lambda: client.connection.get("/schedules/nightly")["runs"] == 4, "three nights")
    shown = up.jarvis("cron", "show", "nightly").stdout
    assert "Europe/Berlin" in shown and "upcoming" in shown


def test_bad_schedules_are_refused_and_nothing_is_kept(up: Home, client: Client, tmp_path: Path) -> None:
    before = [s["id"] for s in client.connection.get("/schedules")["items"]]
    for words in (
        ("--cron", "0 0 31 2 *", "x", "--", "true"), ("--cron", "0 0 * * *", "--zone", "Mars/One", "x", "--", "true"),
        ("--every", "soon", "x", "--", "true"), ("--every", "0.1", "x", "--", "true"),
    ):  # fmt: skip
        up.jarvis("cron", "add", *words, code=1)
    up.jarvis("cron", "add", "x", "--", "true", code=2)
    up.jarvis("cron", "add", "--every", "5m", "x", code=2)
    bad = tmp_path / "bad.yaml"
    bad.write_text("steps: [{id: a}]\n")
    up.jarvis("cron", "add", "--every", "5m", "--workflow", str(bad), "x", code=1)
    up.jarvis("cron", "pause", "nothing", code=3)
    assert [s["id"] for s in client.connection.get("/schedules")["items"]] == before
