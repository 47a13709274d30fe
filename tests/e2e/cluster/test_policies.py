"""The example's policies, installed from their folder and used by a real server; and what happens where they are not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e.cluster.harness import Home, wait_for

EXAMPLE = Path(__file__).parents[3] / "examples" / "policies"


@pytest.fixture
def others(tmp_path: Path) -> Path:
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(target), str(EXAMPLE)], check=True, capture_output=True, cwd=tmp_path)
    return target


def test_a_server_with_policies_of_another_package(fresh: Home, others: Path) -> None:
    settings = fresh.directory.parent / "others.yaml"
    scheduler = "scheduler: {order: {name: widest-first}, filters: [own-queue], balancer: newest-node}"
    settings.write_text(f"{scheduler}\nworker: {{labels: {{queue: urgent}}}}\n")
    fresh.env["JARVIS_CONFIG"] = str(settings)
    refused = fresh.jarvis("up", code=None)
    assert refused.returncode != 0
    assert "there is no order widest-first; there are fifo" in refused.stderr + refused.stdout + fresh.logs()
    fresh.env["PYTHONPATH"] = str(others)
    fresh.jarvis("up", "--cpus", "4")
    rows = json.loads(fresh.jarvis("policy", "ls", "-o", "json").stdout)
    assert {"policy": "own-queue", "kind": "filter", "package": "jarvis-example-policies", "version": "1.0"} in rows
    assert fresh.jarvis("policy", "check", "widest-first").stdout.endswith("nothing found\n")
    waiting = fresh.jarvis("submit", "-q", "true").stdout.strip()
    told = wait_for(lambda: json.loads(fresh.jarvis("why", waiting, "-o", "json").stdout), "it is known")
    assert told["reasons"][0]["text"] == "1 of 1 nodes: own-queue: takes the queue urgent alone, not default", told
    fresh.jarvis("wait", fresh.jarvis("submit", "-q", "-p", "urgent", "true").stdout.strip())
    fresh.jarvis("cancel", waiting)
    fresh.jarvis("down", "--keep")
    assert "all the same" in fresh.jarvis("replay").stdout
    del fresh.env["PYTHONPATH"]
    missed = fresh.jarvis("replay", code=1)
    assert "jarvis-example-policies 1.0, which is not usable here" in missed.stderr
    assert "install jarvis-example-policies 1.0" in missed.stderr
