"""Very many agents, each with a socket and an id of its own: what their heartbeats cost, how soon all are back after a restart."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.e2e.cluster.harness import home, wait_for

SOAK = bool(os.environ.get("JARVIS_SOAK"))
AGENTS = int(os.environ.get("JARVIS_AGENTS") or (1000 if SOAK else 20))
TASKS_EACH = 10 if SOAK else 2
MEASURED_S = 30.0 if SOAK else 1.0
BACK_S = 60.0
HEARTBEATS_SHARE = 0.3
"""Of a core, for 1,000 agents."""
ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(900 if SOAK else 180)


class Agents:
    """The process with all of them; ``figures`` is the last line that it printed."""

    def __init__(self, directory: Path) -> None:
        self.figures: dict[str, int] = {"connected": 0}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.swarm", str(directory), str(AGENTS)], cwd=ROOT,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.figures = json.loads(line)

    def until(self, connected: int, patience: float) -> float:
        begun = time.monotonic()
        wait_for(lambda: self.figures["connected"] == connected, f"{connected} of {self.figures} connected", patience)
        return time.monotonic() - begun

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        finally:
            self._process.kill()
            self._process.wait(30)
            self._thread.join(10)
            self._process.stdout.close()


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
        agents = Agents(made.directory)
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
