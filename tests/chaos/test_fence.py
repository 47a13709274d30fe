"""Under ``on_lost=fence`` a task never runs beside itself: nodes are frozen and cut off with shortened windows, and a file
that the task writes, outside of Jarvis, is the judge.
"""

import json
import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.chaos.hosts import Host, hosts, needs_hosts
from tests.e2e.cluster.harness import Home, home, wait_for

SOAK = bool(os.environ.get("JARVIS_SOAK"))
CYCLES = int(os.environ.get("JARVIS_CYCLES") or (100 if SOAK else 2))
pytestmark = pytest.mark.timeout(240 + 120 * CYCLES)
WINDOWS = {"HEARTBEAT_S": "0.5", "SUSPECT_S": "2", "LOST_S": "3", "FENCE_S": "6"}
TICKS = """
trap '' TERM
while :; do read now rest < /proc/uptime; echo $JARVIS_ATTEMPT $JARVIS_NODE $now; sleep 0.03; done >> FILE
"""


class Machine(Home):
    """A node on a host of its own."""

    host: Host

    def freeze(self) -> None:
        """Its agent stands still; the rest goes on."""
        os.kill(self.agent() or 0, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def cut(self) -> None:
        self.host.cut()

    def heal(self) -> None:
        self.host.heal()


@contextmanager
def cluster() -> Iterator[tuple[Home, dict[str, Machine]]]:
    """A server, and two nodes that have joined it, on three hosts."""
    needs_hosts()
    with ExitStack() as stack:
        where = dict(zip(("server", "na", "nb"), stack.enter_context(hosts("server", "na", "nb")), strict=True))
        server = stack.enter_context(home())
        server.within = where["server"].argv()
        server.env |= {f"JARVIS_SCHEDULER__{name}": value for name, value in WINDOWS.items()}
        server.jarvis("up", "--listen", f"{where['server'].address}:7600", "--cpus", "1")
        machines = {}
        for name in ("na", "nb"):
            machines[name] = machine = Machine(stack.enter_context(home()).directory)
            machine.host, machine.within = where[name], where[name].argv()
            line = server.jarvis("token", "create", "--join").stdout.split()
            machine.jarvis(*line[1:], "--name", name, "--cpus", "4")
        try:
            yield server, machines
        finally:
            for machine in machines.values():
                machine.heal()
                machine.thaw()
                machine.jarvis("down", code=None)


def runs(path: Path) -> dict[int, tuple[str, float, float]]:
    """Attempt → node, first and last tick, in seconds since the machine started."""
    found: dict[int, tuple[str, float, float]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        attempt, node, at = line.split()
        first = found.get(int(attempt), ("", float(at), 0.0))[1]
        found[int(attempt)] = (node, first, float(at))
    return found


def runs_now(path: Path, attempt: int) -> None:
    wait_for(lambda: attempt in runs(path), f"attempt {attempt} runs", 60)


def attempts(server: Home, task: str) -> list[dict[str, Any]]:
    return list(json.loads(server.jarvis("show", task, "-o", "json").stdout)["attempts"])


FAULTS: list[tuple[Callable[[Machine], None], Callable[[Machine], None]]] = [
    (Machine.freeze, Machine.thaw),
    (Machine.cut, Machine.heal),
]


def test_a_fenced_task_never_runs_beside_itself(tmp_path: Path) -> None:
    ticks, seed, gaps = tmp_path / "ticks", random.randrange(1 << 32), []
    rng = random.Random(seed)
    script = TICKS.replace("FILE", str(ticks))
    with cluster() as (server, machines):
        task = server.jarvis("submit", "-q", "-c", "4", "--on-lost", "fence", "--", "sh", "-c", script).stdout.strip()
        for cycle in range(1, CYCLES + 1):
            runs_now(ticks, cycle)
            begin, end = FAULTS[cycle % 2] if cycle <= 2 else rng.choice(FAULTS)
            machine = machines[runs(ticks)[cycle][0]]
            begin(machine)
            runs_now(ticks, cycle + 1)
            end(machine)
            wait_for(lambda: len(ready(server)) == 3, "the node is back", 60)
            gaps.append(runs(ticks)[cycle + 1][1] - runs(ticks)[cycle][2])
        server.jarvis("cancel", task)
        server.jarvis("wait", task, code=1)
        made = runs(ticks)
        print(f"seed={seed} cycles={CYCLES} gaps {min(gaps):.2f} to {max(gaps):.2f} s")  # noqa: T201 - the figure is the point
        assert len(made) == CYCLES + 1
        assert all(made[n][2] < made[n + 1][1] for n in range(1, CYCLES + 1)), made
        causes = [attempt["cause"] for attempt in attempts(server, task)]
        assert causes == ["node_lost"] * CYCLES + ["cancelled"]


def test_without_a_fence_it_does(tmp_path: Path) -> None:
    """So that the test above would notice: the same task, the same fault."""
    ticks = tmp_path / "ticks"
    script = TICKS.replace("FILE", str(ticks))
    with cluster() as (server, machines):
        task = server.jarvis("submit", "-q", "-c", "4", "--on-lost", "rerun", "--", "sh", "-c", script).stdout.strip()
        wait_for(lambda: 1 in runs(ticks), "it runs")
        machine = machines[runs(ticks)[1][0]]
        machine.cut()
        wait_for(lambda: 2 in runs(ticks) and runs(ticks)[1][2] > runs(ticks)[2][1], "both run")
        machine.heal()
        wait_for(lambda: len(ready(server)) == 3, "the node is back", 60)
        server.jarvis("cancel", task)
        server.jarvis("wait", task, code=1)


def ready(server: Home) -> list[str]:
    nodes = json.loads(server.jarvis("node", "ls", "-o", "json").stdout)
    return [node["name"] for node in nodes if node["state"] == "ready"]
