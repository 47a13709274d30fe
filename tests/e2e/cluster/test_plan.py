"""What would become of a task, asked before anybody submits it; and what is said of one that waits."""

import json

from tests.e2e.cluster.harness import Home, wait_for


def test_now_wait_and_never(up: Home) -> None:
    assert "starts now on" in up.jarvis("plan", "-c", "2", "true").stdout
    assert "no node has 100" in up.jarvis("plan", "-c", "100", "true", code=2).stdout
    running = up.jarvis("submit", "-q", "-c", "3", "-t", "10:00", "sleep", "60").stdout.strip()
    wait_for(lambda: json.loads(up.jarvis("show", running, "-o", "json").stdout)["state"] == "running", "it runs")
    told = json.loads(up.jarvis("plan", "--json", "-c", "2", "true", code=1).stdout)
    assert told["verdict"] == "wait"
    assert told["reasons"][0]["reason"] == "Resources"
    assert told["changes"][0].startswith("1 cpu instead of 2 starts now on")
    assert told["earliest"] is not None
    waiting = up.jarvis("submit", "-q", "-c", "2", "true").stdout.strip()
    why = up.jarvis("why", waiting).stdout
    assert "1 cpu instead of 2 starts now on" in why
    assert "expected to start in" in why
    listed = {task["id"] for task in json.loads(up.jarvis("ls", "-o", "json").stdout)}
    assert len(listed) == 2, "a plan submits nothing"
    up.jarvis("cancel", waiting, running)


def test_a_file_of_several_ends_with_the_worst(up: Home) -> None:
    specs = up.directory.parent / "specs.json"
    specs.write_text(
        json.dumps([{"command": ["true"]}, {"command": ["true"], "resources": {"cpu": 100}}]), encoding="utf-8"
    )
    up.jarvis("plan", str(specs), code=2)


def test_what_cannot_be_meant_is_refused_as_at_submission(up: Home) -> None:
    refused = up.jarvis("plan", "--mem", "much", "true", code=None)
    assert refused.returncode
    assert "mem" in refused.stderr
