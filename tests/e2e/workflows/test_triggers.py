"""Schedules that wait for events, on a real cluster: one run for each, also over a leader that is killed."""

import os
import signal
from pathlib import Path

from tests.e2e.cluster.harness import Home, wait_for

from jarvis.sdk.client import Client


def lines(ledger: Path) -> list[str]:
    return ledger.read_text().splitlines() if ledger.exists() else []


def test_a_chain_of_workflows_each_after_the_one_before(up: Home, client: Client, tmp_path: Path) -> None:
    ledger, first, second = tmp_path / "ledger", tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text(
        "name: load\nsteps: [{id: a, command: 'echo 7 > $JARVIS_OUTPUT'}]\noutput: '${{ steps.a.output }}'\n"
    )
    second.write_text(
        "name: clean\nparams: {event: {type: object, default: {}}}\n"
        f"steps: [{{id: a, command: 'echo clean ${{{{ params.event.output }}}} >> {ledger}'}}]\n"
    )
    said = up.jarvis("cron", "add", "--on-workflow", "load", "--workflow", str(second), "cleaning")
    assert "when that happens" in said.stdout
    up.jarvis(
        "cron", "add", "--on-workflow", "clean:any", "telling", "--", "sh", "-c", f'echo "$JARVIS_EVENT" >> {ledger}'
    )
    ident = up.jarvis("workflow", "run", "-q", str(first)).stdout.strip()
    wait_for(lambda: len(lines(ledger)) == 2, "both followed")
    assert lines(ledger)[0] == "clean 7"
    assert '"name":"clean","state":"succeeded"' in lines(ledger)[1]
    assert "on workflow load succeeded" in up.jarvis("cron", "ls").stdout
    shown = up.jarvis("cron", "show", "telling").stdout
    assert "on workflow clean any" in shown
    assert int(ident) < client.connection.get("/schedules/cleaning")["last_run"]
    refused = up.jarvis("cron", "add", "--on-workflow", "clean", "--workflow", str(first), "round", code=1)
    assert "clean → load → clean" in refused.stderr
    for name in ("cleaning", "telling"):
        up.jarvis("cron", "rm", name)


def test_a_leader_that_is_killed_about_the_end_makes_one_run(up: Home, client: Client, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    up.jarvis("cron", "add", "--on-workflow", "ending", "once", "--", "sh", "-c", f"echo ran >> {ledger}")
    for number in range(1, 4):
        with up.client() as asking:
            begun, go = tmp_path / f"begun{number}", tmp_path / f"go{number}"
            script = f"touch {begun}; until [ -e {go} ]; do sleep 0.01; done"
            ident = asking.submit_workflow({"name": "ending", "steps": [{"id": "a", "command": script}]}).id
            wait_for(begun.exists, "it runs")
        go.touch()
        if number > 1:  # once at any moment before or after, and twice near the end
            with up.client() as asking:
                wait_for(lambda i=ident, c=asking: c.connection.get(f"/workflows/{i}")["ended"], "it ended")  # type: ignore[misc]
        os.kill(up.server.pid, signal.SIGKILL)
        up.jarvis("up", "--cpus", "4")
        with up.client() as asking:
            wait_for(lambda i=ident, c=asking: c.connection.get(f"/workflows/{i}")["ended"], "it ended")  # type: ignore[misc]
            wait_for(lambda n=number, c=asking: c.connection.get("/schedules/once")["runs"] == n, "it is followed")  # type: ignore[misc]
            wait_for(lambda c=asking: not list(c.tasks(state="active")), "what ran is over")  # type: ignore[misc]
        assert lines(ledger) == ["ran"] * number
    up.jarvis("cron", "rm", "once")
