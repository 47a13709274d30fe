"""The cases that everybody tries first, as examples: each runs as its reader would run it, and says what it should."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).parents[3] / "examples" / "cases"


def said(name: str) -> list[str]:
    """The lines that an example prints."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("JARVIS")}
    done = subprocess.run(
        [sys.executable, str(CASES / f"{name}.py")], env=env, capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    return done.stdout.splitlines()


def test_every_example_has_its_test() -> None:
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert {path.stem for path in CASES.glob("*.py")} <= tested


def test_one_task() -> None:
    assert said("one_task") == ["task 1 succeeded with exit code 0", "it printed: hello from a task"]


def test_ten_tasks() -> None:
    first, *where = said("ten_tasks")
    assert first == "10 of 10 succeeded"
    counts = {node: int(count) for node, count in (line.split(" ran ") for line in where)}
    assert set(counts) == {"node-1", "node-2", "node-3"}
    assert sum(counts.values()) == 10 and max(counts.values()) <= 5


def test_priority() -> None:
    assert said("priority") == ["submitted: low normal high critical", "ran: critical high normal low"]


def test_retry() -> None:
    assert said("retry") == [
        "attempt 1: failed, exit code 1",
        "attempt 2: failed, exit code 1",
        "attempt 3: succeeded, exit code 0",
        "succeeded after 2 failures",
    ]


def test_node_failure() -> None:
    runs, lost, ended, moved, stayed = said("node_failure")
    assert runs == "6 tasks run, 2 of them on node-2" and lost == "node-2 is lost"
    assert ended == "6 of 6 succeeded" and stayed == "stayed: True"
    assert set(re.findall(r"(\S+) -> (\S+)", moved)) <= {("node-2", "node-1"), ("node-2", "node-3")}
    assert "->" in moved


def test_dag() -> None:
    assert said("dag") == ["result: 30", "order: numbers square total", "elements: 5"]


def test_monitoring() -> None:
    health, *nodes, failed, succeeded_metric, failed_metric = sorted_metrics(said("monitoring"))
    assert health == "health: ok; nodes: 3 of 3 nodes connected and heard of"
    assert nodes == [f"node-{n}: ready, 2 processors" for n in (1, 2, 3)]
    assert re.fullmatch(r"task \d+ failed with exit code 1", failed)
    assert succeeded_metric == 'jarvis_task_finished_total{state="succeeded"} 5.0'
    assert failed_metric == 'jarvis_task_finished_total{state="failed"} 1.0'


def sorted_metrics(lines: list[str]) -> list[str]:
    return lines[:-2] + sorted(lines[-2:], reverse=True)


def test_a_local_cluster_without_nodes_is_refused() -> None:
    import jarvis

    with pytest.raises(ValueError, match="nodes is 0"), jarvis.local(nodes=0):
        pass
