"""A fan-out as large as one may be, in a machine's corner: all processes together within one GiB, by a control group."""

import os
import time
from collections import Counter
from typing import Any

import pytest
from tests.chaos.memory_group import memory_group
from tests.e2e.cluster.harness import home

SOAK = bool(os.environ.get("JARVIS_SOAK"))
ELEMENTS = int(os.environ.get("JARVIS_ELEMENTS") or (100_000 if SOAK else 2_000))
MOST_BYTES = 1 << 30
PATIENCE = 3000.0 if SOAK else 300.0
pytestmark = pytest.mark.timeout(3600 if SOAK else 360)

EACH = {"id": "each", "for_each": "range(params.count)", "resources": {"cpu": 0.1}}
CASES: dict[str, dict[str, Any]] = {
    "a task each": EACH | {"command": ["true", "${{ item }}"]},
    "one array": EACH | {"command": ["true"]},
    "outputs": EACH | {"command": 'echo ${{ item }} > "$JARVIS_OUTPUT"'},
}


@pytest.mark.parametrize("case", CASES if SOAK else ["a task each", "one array"])
def test_a_fan_out_stays_small(case: str) -> None:
    reads = ["test", "${{ len(steps.each.output) }}", "-eq", str(ELEMENTS)] if case == "outputs" else ["true"]
    last = {"id": "last", "command": reads, "depends_on": ["each"]}
    document = {"params": {"count": ELEMENTS}, "steps": [CASES[case], last]}
    with memory_group(MOST_BYTES) as group, home() as made:
        made.within = group.within
        made.jarvis("up", "--cpus", "4")
        with made.client() as client:
            begun = time.monotonic()
            handle = client.submit_workflow(document)
            assert handle.wait(PATIENCE)["state"] == "succeeded"
            took = time.monotonic() - begun
            steps = Counter(step["state"] for step in handle.steps())
            task = (handle.step("each") or {})["task"]
            ran = client.show(task)["counts"]["succeeded"] if task else steps["succeeded"] - 2
            assert (task is not None) is (case == "one array")
        made.jarvis("down")
        told = f"{case}: {ran} elements in {took:.1f} s ({ran / took:.0f}/s), at most {group.peak / (1 << 20):.0f} MiB"
        print(f"{told}, killed={group.killed}")  # noqa: T201 - the figure
        assert (ran, group.killed) == (ELEMENTS, 0)
        assert group.peak <= MOST_BYTES
