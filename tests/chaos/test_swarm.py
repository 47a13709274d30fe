"""Very many agents, each with a socket and an id of its own: what their heartbeats cost, how soon all are back after a restart."""

import os
import time
from pathlib import Path

import pytest
from tests.chaos.pool import Pool
from tests.e2e.cluster.harness import home, wait_for

SOAK = bool(os.environ.get("JARVIS_SOAK"))
AGENTS = int(os.environ.get("JARVIS_AGENTS") or (1000 if SOAK else 20))
TASKS_EACH = 10 if SOAK else 2
MEASURED_S = 30.0 if SOAK else 1.0
BACK_S = 60.0
HEARTBEATS_SHARE = 0.3
"""Of a core, for 1,000 agents."""
pytestmark = pytest.mark.timeout(900 if SOAK else 180)


def cpu_s(pid: int) -> float:
    """Seconds of processor that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_heartbeats_tasks_and_a_restart() -> None:
    with home() as made:
        made.jarvis("up", "--cpus", "1")
        idle = cpu_s(made.server.pid)
        time.sleep(MEASURED_S)
        idle = (cpu_s(made.server.pid) - idle) / MEASURED_S
        agents = Pool([made.directory], AGENTS)
        try:
            agents.until(AGENTS, 120)
            before = cpu_s(made.server.pid)
            time.sleep(MEASURED_S)
            share = (cpu_s(made.server.pid) - before) / MEASURED_S - idle
            with made.client() as client:
                # Two at once fill a node, so that all get as many.
                spec = {"command": ["sleep", "1"], "resources": {"cpu": 1}, "cwd": "/", "balancer": "least_loaded"}
                count = 2 * AGENTS * TASKS_EACH
                array = client.submit(**spec, array=f"0-{count - 1}")
                begun = time.monotonic()
                state = client.wait(array.id, 600)["state"]
                took = time.monotonic() - begun
            wait_for(lambda: agents.figures["ended"] >= 1, "it is counted")
            figures = dict(agents.figures)
            made.kill_server()
            wait_for(lambda: agents.figures["connected"] == 0, "all are cut off")
            begun = time.monotonic()
            made.jarvis("up", *made.up_with)
            agents.until(AGENTS, 2 * BACK_S)
            back = time.monotonic() - begun
        finally:
            agents.end()
    print(  # noqa: T201 - the figure is the point
        f"\nS8: agents={AGENTS} ids={figures['ids']} heartbeats={share * 100:.1f}% of a core (idle {idle * 100:.1f}%) "
        f"tasks={figures['ended']} fewest={figures['fewest']} doubled={figures['doubled']} in {took:.1f}s "
        f"all back after {back:.1f}s (promised {BACK_S:g}s)"
    )
    assert state == "succeeded"
    assert figures["ids"] == AGENTS
    assert figures["doubled"] == 0
    assert back <= BACK_S
