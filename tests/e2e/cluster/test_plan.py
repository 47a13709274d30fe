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
    first, second = up.jarvis("plan", str(specs), code=2).stdout.splitlines()
    assert first.startswith("1: it") and "starts now on" in first
    assert second.startswith("2: ") and "no node has 100" in second


def test_what_cannot_be_meant_is_refused_as_at_submission(up: Home) -> None:
    refused = up.jarvis("plan", "--mem", "much", "true", code=None)
    assert refused.returncode
    assert "mem" in refused.stderr


def test_what_its_runs_used_is_recommended(up: Home) -> None:
    few = up.jarvis("recommend", "--name", "made-up", code=1)
    assert "not enough runs: 0 of made-up" in few.stdout
    ids = [up.jarvis("submit", "-q", "-n", "measured", "-c", "2", "sleep", "0.3").stdout.strip() for _ in range(5)]
    up.jarvis("wait", *ids)
    told = json.loads(up.jarvis("recommend", ids[0], "-o", "json").stdout)
    assert (told["enough"], told["runs"], told["asked"]["cpu"], told["time_limit"]) == (True, 5, "2", 60)
    assert told == {**json.loads(up.jarvis("recommend", "-n", "measured", "-o", "json").stdout), "asked": told["asked"]} | {
        "like": "runs of its command", "summary": told["summary"],
    }  # fmt: skip
    assert float(told["cpu"]) < 1
    table = up.jarvis("recommend", ids[0]).stdout
    assert "RECOMMENDED" in table
    for words in ((), (ids[0], "--name", "both"), (ids[0], "--user", "ann")):
        assert up.jarvis("recommend", *words, code=2).stderr
    assert up.jarvis("recommend", "999999", code=3).stderr


def test_what_ran_is_known_after_a_restart(fresh: Home) -> None:
    fresh.jarvis("up", "--cpus", "4")
    array = fresh.jarvis("submit", "-q", "-n", "row", "-a", "0-2", "true").stdout.strip()
    alone = [fresh.jarvis("submit", "-q", "-n", "row", "true").stdout.strip() for _ in range(2)]
    fresh.jarvis("wait", array, *alone)
    fresh.jarvis("down", "--keep")
    fresh.jarvis("up", "--cpus", "4")

    def runs() -> int:
        """It is read page by page, and beside other work."""
        found = fresh.jarvis("recommend", "-n", "row", "-o", "json", code=None)
        return 0 if found.returncode else int(json.loads(found.stdout)["runs"])

    wait_for(lambda: runs() == 5, "the history is read")


def test_what_is_predicted_of_one_that_waits(up: Home) -> None:
    array = up.jarvis("submit", "-q", "-n", "quick", "-a", "0-11", "true").stdout.strip()
    up.jarvis("wait", array)
    running = up.jarvis("submit", "-q", "-n", "quick", "-c", "3", "-t", "10:00", "sleep", "60").stdout.strip()
    wait_for(lambda: json.loads(up.jarvis("show", running, "-o", "json").stdout)["state"] == "running", "it runs")
    waiting = up.jarvis("submit", "-q", "-n", "quick", "-c", "3", "true").stdout.strip()
    told = json.loads(up.jarvis("why", waiting, "-o", "json").stdout)
    assert told["run"]["runs"] == 12
    assert 0 <= told["run"]["low_s"] <= told["run"]["seconds"] <= told["run"]["high_s"]
    assert told["predicted"]["earliest_s"] <= told["predicted"]["start_s"] <= told["predicted"]["latest_s"]
    said = up.jarvis("why", waiting).stdout
    assert "predicted to start in " in said
    assert "as 12 runs of its command did" in said or "as 12 tasks of its name did" in said
    up.jarvis("cancel", waiting, running)


def test_how_the_reasons_changed(up: Home) -> None:
    ident = up.jarvis("submit", "-q", "--hold", "-c", "1", "--", "true").stdout.strip()
    up.jarvis("release", ident)
    up.jarvis("wait", ident)
    page = up.jarvis("why", ident, "--history").stdout
    rows = [line.split() for line in page[page.index("SINCE") :].splitlines()[1:]]
    states = [word for row in rows for word in row if word in ("held", "queued")]
    assert states == ["held", "queued"] and "JobHeldUser" in page
    assert "leave out --at" in up.jarvis("why", ident, "--history", "--at", "-1m", code=2).stderr
