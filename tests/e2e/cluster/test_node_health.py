"""A node that is not fit takes no new work and says why; it comes back by itself, and only from what it did itself."""

import json
from pathlib import Path
from typing import Any

from tests.e2e.cluster.harness import Home, home, wait_for


def node(made: Home) -> dict[str, Any]:
    return dict(json.loads(made.jarvis("node", "ls", "-o", "json").stdout)[0])


def test_an_unfit_node_is_passed_over_until_it_is_fit(tmp_path: Path) -> None:
    fault = tmp_path / "fault"
    with home() as made:
        made.env |= {
            "JARVIS_WORKER__HEALTH_CHECK": f"test ! -e {fault} || {{ echo bad memory; exit 1; }}",
            "JARVIS_WORKER__HEALTH_INTERVAL_S": "1",
        }
        made.jarvis("up", "--node-name", "only", "--cpus", "2")
        assert made.jarvis("run", "--", "echo", "fit").stdout == "fit\n"
        fault.touch()
        wait_for(lambda: node(made)["unfit"], "it is noticed")
        found = node(made)
        assert (found["schedulable"], found["draining"]) == (False, False)
        assert found["unfit"] == "health check exited with 1: bad memory"
        assert "bad memory" in made.jarvis("node", "ls").stdout
        task = made.jarvis("submit", "-q", "--", "true").stdout.strip()
        wait_for(lambda: "bad memory" in made.jarvis("why", task).stdout, "it waits for that")
        made.jarvis("node", "drain", "only", "--reason", "by hand")
        fault.unlink()
        wait_for(lambda: not node(made)["unfit"], "it is fit")
        assert (node(made)["draining"], node(made)["reason"]) == (True, "by hand"), "a person's drain stays"
        made.jarvis("node", "resume", "only")
        made.jarvis("wait", task)


def test_a_prolog_that_fails_drains_the_node_and_costs_no_try(tmp_path: Path) -> None:
    fault = tmp_path / "fault"
    fault.touch()
    with home() as made:
        made.env["JARVIS_WORKER__PROLOG"] = f"test ! -e {fault} || {{ echo no mount; exit 1; }}"
        made.jarvis("up", "--node-name", "only", "--cpus", "2")
        task = made.jarvis("submit", "-q", "--", "true").stdout.strip()
        wait_for(lambda: node(made)["draining"], "it is drained")
        assert node(made)["reason"] == "prolog exited with 1: no mount"
        fault.unlink()
        made.jarvis("node", "resume", "only")
        made.jarvis("wait", task)
        shown = json.loads(made.jarvis("show", task, "-o", "json").stdout)
        assert shown["state"] == "succeeded"
        assert shown["attempts"][0]["cause"] == "recalled"
