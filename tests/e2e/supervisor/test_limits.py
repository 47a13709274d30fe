"""Ending what must end, completely, and saying why."""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path

import pytest
from tests.e2e.supervisor.harness import Agent, Node, alive, marked, wait_for

PYTHON = sys.executable
TRAP = "trap 'echo soft' TERM; echo ready; while :; do sleep 0.05; done"
HOG = "x = []\nwhile True: x.append(bytearray(b'x' * (1 << 20)))"
FORKS = """
import os, time
n = 0
try:
    while n < 50:
        if os.fork() == 0:
            time.sleep(1000)
        n += 1
except OSError:
    pass
print(n)
"""
DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.close(1); os.close(2)
        open(sys.argv[1], "w").write(str(os.getpid()))
        time.sleep(1000)
    os._exit(0)
os.wait()
while not os.path.exists(sys.argv[1]) or not open(sys.argv[1]).read(): time.sleep(0.01)
"""


@pytest.fixture(params=["auto", "off"])
def either(request: pytest.FixtureRequest, node: Node) -> Agent:
    """An agent, with and without control groups."""
    node.up("--cgroups", request.param)
    return node.agent()


@pytest.fixture
def ungrouped(node: Node) -> Agent:
    """An agent of a supervisor without control groups."""
    node.up("--cgroups", "off")
    return node.agent()


def test_a_time_limit_is_soft_first_then_hard(node: Node, agent: Agent) -> None:
    node.start(agent, 1, "sh", "-c", TRAP, time_limit_s=0.4, grace_s=0.4)
    end = agent.expect("ended", 1)
    assert "soft" in node.output(1)
    assert (end["signal"], end["cause"]) == (9, "timeout")
    assert 0.8 <= end["wall_s"] < 5


def test_a_task_that_obeys_the_time_limit_still_timed_out(node: Node, agent: Agent) -> None:
    end = node.run(agent, 1, "sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.05; done", time_limit_s=0.3)
    assert (end["exit_code"], end["cause"]) == (3, "timeout")


def test_a_soft_limit_only_warns(node: Node, agent: Agent) -> None:
    script = "trap 'echo warned; exit 0' USR1; while :; do sleep 0.05; done"
    end = node.run(agent, 1, "sh", "-c", script, soft_limit_s=0.3, soft_signal=int(signal.SIGUSR1), time_limit_s=60)
    assert (end["exit_code"], end["cause"]) == (0, "exit")
    assert "warned" in node.output(1)


def test_kill_ends_one_that_ignores_sigterm(node: Node, agent: Agent) -> None:
    node.start(agent, 1, "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done")
    node.wait_output(1, "ready")
    agent.send(op="kill", number=1, grace_s=0.3, cause="cancelled by ann")
    end = agent.expect("ended", 1)
    assert (end["signal"], end["cause"], end["kill_cause"]) == (9, "killed", "cancelled by ann")


def test_a_later_kill_may_shorten_the_grace(node: Node, agent: Agent) -> None:
    node.start(agent, 1, "sh", "-c", TRAP)
    node.wait_output(1, "ready")
    agent.send(op="kill", number=1, grace_s=600, cause="first")
    node.wait_output(1, "soft")
    agent.send(op="kill", number=1, grace_s=0, cause="second")
    assert agent.expect("ended", 1)["kill_cause"] == "first"


def test_kill_ends_a_stopped_task(node: Node, agent: Agent) -> None:
    node.start(agent, 1, "sh", "-c", "echo ready; kill -STOP $$; echo never")
    node.wait_output(1, "ready")
    agent.send(op="kill", number=1, grace_s=60, cause="x")
    assert agent.expect("ended", 1)["signal"] == 15


def test_a_signal_reaches_every_group_of_the_session(node: Node, agent: Agent) -> None:
    script = "trap 'echo parent' USR1; set -m; "
    script += "sh -c \"trap 'echo child; exit' USR1; echo ready; while :; do sleep 0.02; done\" & wait; wait"
    node.start(agent, 1, "sh", "-c", script)
    node.wait_output(1, "ready")
    agent.send(op="signal", number=1, signum=int(signal.SIGUSR1))
    agent.expect("ended", 1)
    assert {"parent", "child"} <= set(node.output(1).split())


def test_a_daemon_dies_with_its_attempt(node: Node, either: Agent, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    limits = {"pids_max": None, "memory_bytes": 256 << 20}
    end = node.run(either, 1, PYTHON, "-I", "-S", "-c", DAEMON, str(note), **limits)
    assert (end["exit_code"], end["cause"]) == (0, "exit")
    assert not alive(int(note.read_text()))


def test_a_daemon_without_mark_dies_too(node: Node, ungrouped: Agent, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    clean = ["env", "-i", PYTHON, "-I", "-S", "-c", DAEMON, str(note)]
    node.run(ungrouped, 1, *clean)
    assert not alive(int(note.read_text()))


def test_a_running_attempts_daemon_is_left_alone(node: Node, agent: Agent, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    node.start(agent, 1, "sh", "-c", f"{PYTHON} -I -S -c '{DAEMON}' {note}; echo ready; read x", stdin="pipe")
    node.wait_output(1, "ready")
    assert node.run(agent, 2, "true")["exit_code"] == 0
    assert alive(int(note.read_text()))
    agent.send(op="kill", number=1, grace_s=1, cause="x")
    agent.expect("ended", 1)
    assert not alive(int(note.read_text()))


def test_a_killed_attempts_daemons_die_although_main_lives(node: Node, either: Agent, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    script = f"trap '' TERM; {PYTHON} -I -S -c '{DAEMON}' {note}; echo ready; while :; do sleep 1; done"
    node.start(either, 1, "sh", "-c", script)
    node.wait_output(1, "ready")
    either.send(op="kill", number=1, grace_s=0, cause="x")
    either.expect("ended", 1)
    assert not alive(int(note.read_text()))
    assert not marked(f"TEST={node.name}")


def test_too_much_memory_is_oom(node: Node, either: Agent) -> None:
    end = node.run(either, 1, PYTHON, "-I", "-S", "-c", HOG, memory_bytes=96 << 20)
    assert (end["signal"], end["cause"]) == (9, "oom")


def test_little_memory_goes_through_the_trampoline(node: Node, agent: Agent) -> None:
    end = node.run(agent, 1, PYTHON, "-I", "-S", "-c", HOG, memory_bytes=24 << 20)
    assert end["cause"] == "oom"
    assert node.run(agent, 2, "echo", "fine", memory_bytes=24 << 20)["cause"] == "exit"


def test_a_child_over_memory_takes_its_attempt_along(node: Node, either: Agent) -> None:
    script = f"{PYTHON} -I -S -c {shlex.quote(HOG)}; sleep 1000"
    assert node.run(either, 1, "sh", "-c", script, memory_bytes=96 << 20)["cause"] == "oom"


def test_groups_are_reused_and_their_limits_follow(node: Node, agent: Agent) -> None:
    read = "cat /proc/self/cgroup; "
    read += "cat /sys/fs/cgroup/memory$(sed -n 's/.*:memory://p' /proc/self/cgroup)/memory.limit_in_bytes"
    seen = set()
    for number, size in enumerate([128 << 20, 64 << 20, 256 << 20, 256 << 20]):
        node.run(agent, number, "sh", "-c", read, memory_bytes=size)
        assert node.output(number).split()[-1] == str(size)
        seen |= {line for line in node.output(number).splitlines() if ":memory:" in line}
    assert len(seen) == 1
    assert "jarvis-" in seen.pop()


def test_the_supervisor_never_stays_in_a_group(node: Node, agent: Agent) -> None:
    before = Path(f"/proc/{node.processes[0].pid}/cgroup").read_text()
    node.run(agent, 1, "true", memory_bytes=128 << 20, cpu_milli=500, pids_max=10)
    assert Path(f"/proc/{node.processes[0].pid}/cgroup").read_text() == before
    assert "jarvis-" not in before


def test_groups_are_removed_at_the_end(node: Node, agent: Agent) -> None:
    node.run(agent, 1, "cat", "/proc/self/cgroup", memory_bytes=128 << 20)
    line = next(line for line in node.output(1).splitlines() if ":memory:" in line)
    group = Path("/sys/fs/cgroup/memory" + line.split(":")[2])
    assert group.is_dir()
    node.processes[0].send_signal(signal.SIGTERM)
    assert node.processes[0].wait(20) == 0
    assert not group.parent.exists()


@pytest.mark.parametrize("limit", [1, 8])
def test_the_number_of_processes_is_limited(node: Node, agent: Agent, limit: int) -> None:
    node.run(agent, 1, PYTHON, "-I", "-S", "-c", FORKS, pids_max=limit)
    assert node.output(1).strip() == str(limit - 1)


def test_a_process_limit_that_cannot_be_kept_is_refused(node: Node, ungrouped: Agent) -> None:
    node.start(ungrouped, 1, "true", pids_max=5)
    assert "pids" in ungrouped.expect("start_failed", 1)["error"]


def test_too_much_output_ends_the_attempt(node: Node, agent: Agent) -> None:
    end = node.run(agent, 1, "yes", output_limit=100_000)
    assert end["cause"] == "output_limit"
    assert end["out_bytes"] > 100_000


def test_fork_bombs_are_ended(node: Node, agent: Agent) -> None:
    script = "echo ready; while :; do sh -c 'sleep 100 & sleep 100' & done"
    node.start(agent, 1, "sh", "-c", script, pids_max=60)
    node.wait_output(1, "ready")
    agent.send(op="kill", number=1, grace_s=0, cause="x")
    agent.expect("ended", 1)
    assert not marked(f"TEST={node.name}")


def test_orphans_are_reaped(node: Node, agent: Agent) -> None:
    node.run(agent, 1, "sh", "-c", "for i in 1 2 3 4 5; do (true &) ; done; (sleep 1000 &)")
    supervisor = node.processes[0].pid
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children")
    wait_for(lambda: not children.read_text().split(), "no children left")
    assert Path(f"/proc/{supervisor}").exists()
