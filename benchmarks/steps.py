"""What being a step costs: workflows as large as they may be, beside the same number of tasks that nobody waits for.

``make bench-steps``. Printed are the seconds that a submission takes (validation and the commit included), and
what each finished step costs over a plain task: the whole time of both by their count, in the same cluster.
"""

import argparse
import os
import sys
import time
from typing import Any

from benchmarks.measure import MARK, cpu_seconds, members

import jarvis
from jarvis.sdk.client import Client

WIDTH = 100
"""Steps of a layer; each waits for two of the layer before."""
SUBMITTED_S, STEP_MS = 2.0, 2.0
"""What is to be reached."""
PATIENCE_S = 1800.0
BATCH, LOOK_S = 1000, 0.1
TASK = {"command": ["true"], "resources": {"cpu": 0.1}}


def layered(count: int, work: dict[str, Any]) -> dict[str, Any]:
    """So many steps that do the same, in layers."""
    steps = []
    for at in range(count):
        above = {at - WIDTH, (at // WIDTH - 1) * WIDTH + (at * 7 + 1) % WIDTH} if at >= WIDTH else set()
        steps.append({"id": f"s{at}", **work, "depends_on": [f"s{other}" for other in sorted(above)]})
    return {"name": "layers", "steps": steps}


def workflow(client: Client, document: dict[str, Any]) -> tuple[float, float]:
    """Seconds until it was durable, and from then until its end."""
    begun = time.perf_counter()
    handle = client.submit_workflow(document)
    submitted = time.perf_counter()
    found = handle.wait(PATIENCE_S)
    if found["state"] != "succeeded":
        raise RuntimeError(f"the workflow ended {found['state']}: {found['reason']}")
    return submitted - begun, time.perf_counter() - submitted


def tasks(client: Client, count: int) -> float:
    """Seconds that so many tasks take that depend on nothing, submitted in batches."""
    begun = time.perf_counter()
    for at in range(0, count, BATCH):
        client.submit_many([TASK] * min(BATCH, count - at))
    while next(client.tasks(limit=1, state="active"), None) is not None:
        time.sleep(LOOK_S)
    return time.perf_counter() - begun


def used(mark: str) -> float:
    """Processor seconds of all processes of the cluster, tasks that have ended included."""
    return cpu_seconds([pid for pid in members(mark) if pid != os.getpid()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000)
    count = parser.parse_args().steps
    os.environ[MARK] = mark = str(os.getpid())
    with jarvis.local() as client:
        tasks(client, min(count, 200))  # everything is warm
        submitted, slept = workflow(client, layered(count, {"sleep": 0}))
        _say(f"{count:,} steps submitted in {submitted:.2f} s (to reach {SUBMITTED_S:g} s)")
        _say(f"steps that do nothing: {slept:.1f} s, {1000 * slept / count:.2f} ms each (to reach {STEP_MS:g} ms)")
        at = [used(mark)]
        plain = tasks(client, count)
        at.append(used(mark))
        _, took = workflow(client, layered(count, TASK))
        at.append(used(mark))
        for what, seconds, cpu in (
            ("tasks in batches", plain, at[1] - at[0]),
            ("the same as steps", took, at[2] - at[1]),
        ):
            _say(f"{what}: {seconds:.1f} s, {1000 * seconds / count:.2f} ms each, {1000 * cpu / count:.2f} ms of CPU")
        more, cpu = 1000 * (took - plain) / count, 1000 * (at[2] - 2 * at[1] + at[0]) / count
        _say(f"over a plain task: {more:+.2f} ms a finished step (to reach {STEP_MS:g} ms), {cpu:+.2f} ms of CPU")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
