"""Restarts of agent and supervisor, duplicates, upgrades, full disks, and who may connect."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.e2e.supervisor.harness import MAIN, Agent, Node, alive, can_connect, connect, marked, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

PYTHON = sys.executable


def count(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def states(agent: Agent) -> dict[int, tuple[str, Any]]:
    return {one["number"]: (one["state"], (one["end"] or {}).get("cause")) for one in agent.welcome["attempts"]}


def kill_9(node: Node) -> None:
    node.processes[-1].kill()
    node.processes[-1].wait()


def test_a_number_runs_once_however_often_it_is_sent(node: Node, agent: Agent) -> None:
    lines = node.root / "lines"
    for _ in range(5):
        node.start(agent, 1, "sh", "-c", f"echo x >> {lines}; read x", stdin="pipe")
    for _ in range(5):
        agent.expect("started", 1)
    wait_for(lambda: count(lines) == 1, "its first line")
    agent.send(op="signal", number=1, signum=15)
    first = agent.expect("ended", 1)
    node.start(agent, 1, "sh", "-c", f"echo x >> {lines}")
    assert agent.expect("ended", 1) == first
    assert count(lines) == 1
    agent.send(op="ack", numbers=[1], floor=None)
    node.start(agent, 1, "sh", "-c", f"echo x >> {lines}")
    assert agent.expect("refused", 1)["reason"] == "acked"
    agent.send(op="ack", numbers=[], floor=10)
    node.start(agent, 9, "sh", "-c", f"echo x >> {lines}")
    assert agent.expect("refused", 9)["reason"] == "below_floor"
    assert count(lines) == 1


def test_a_new_agent_finds_running_and_unacknowledged_attempts(node: Node, agent: Agent) -> None:
    node.start(agent, 1, "sleep", "1000")
    pid = agent.expect("started", 1)["pid"]
    node.run(agent, 2, "false")
    node.run(agent, 3, "true")
    node.start(agent, 4, "no-such-program")
    agent.expect("start_failed", 4)
    agent.send(op="ack", numbers=[3], floor=None)
    agent.close()
    second = node.agent()
    assert states(second) == {1: ("running", None), 2: ("ended", "exit"), 4: ("ended", None)}
    listed = {one["number"]: one for one in second.welcome["attempts"]}
    assert (listed[1]["pid"], listed[1]["tag"]) == (pid, "t1")
    assert listed[2]["end"]["exit_code"] == 1
    assert listed[4]["end"]["code"] == 127
    second.send(op="kill", number=1, grace_s=1, cause="x")
    assert second.expect("ended", 1)["signal"] == 15


def test_an_end_without_an_agent_is_told_to_the_next(node: Node, agent: Agent) -> None:
    node.start(agent, 1, "sh", "-c", "read x; exit 5", stdin="pipe")
    pid = agent.expect("started", 1)["pid"]
    agent.close()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), "reaped")
    wait_for(lambda: states(node.agent()).get(1) == ("ended", "signal"), "the end is listed")


def test_a_new_connection_replaces_the_old_one(node: Node, agent: Agent) -> None:
    node.agent().send(op="ack", numbers=[], floor=None)
    with pytest.raises((EOFError, ConnectionError)):
        agent.receive()


def test_what_is_no_frame_ends_the_connection(node: Node, agent: Agent) -> None:
    agent.sock.sendall(b"\xff\xff\xff\xff")
    with pytest.raises((EOFError, ConnectionError)):
        agent.receive()
    assert node.agent().welcome["version"] == 2


def test_unknown_and_broken_messages_are_answered(node: Node, agent: Agent) -> None:
    agent.send(op="dance")
    assert agent.expect("error", of="dance")
    agent.send(op="signal", number=5)
    assert "signum" in agent.expect("error", of="signal")["error"]
    broken: list[dict[str, Any]] = [{}, {"common": {"env": {}}, "each": [1]}, {"common": {}, "each": []}]
    for fields in (*broken, {"common": {"env": 1}, "each": [{"env": {}}]}):
        agent.send(op="starts", **fields)
        assert agent.expect("error", of="starts")
    assert node.run(agent, 1, "true")["exit_code"] == 0


def test_many_agents_reports_survive_a_slow_reader(node: Node, agent: Agent) -> None:
    long = "t" * 20_000
    for number in range(300):
        agent.send(**{**node.order(number, "no-such"), "argv": ["/no/" + long[:200]], "tag": long})
    for number in range(300):
        agent.expect("start_failed", number)


def test_the_successor_ends_leftovers_and_reports_them_lost(node: Node, agent: Agent, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    daemon = f"(setsid sh -c 'echo $$ > {note}; trap \"\" TERM; while :; do sleep 1; done' &)"
    node.start(agent, 1, "sh", "-c", f"{daemon}; echo ready; sleep 1000", memory_bytes=128 << 20)
    node.start(agent, 2, "env", "-i", "sleep", "1000")
    node.run(agent, 3, "sh", "-c", "exit 4")
    node.wait_output(1, "ready")
    pids = [agent.expect("started", number)["pid"] for number in (1, 2)]
    wait_for(lambda: note.exists() and note.read_text(), "the daemon runs")
    kill_9(node)
    assert all(map(alive, pids))
    node.up()
    second = node.agent()
    assert states(second) == {1: ("ended", "supervisor_lost"), 2: ("ended", "supervisor_lost"), 3: ("ended", "exit")}
    assert not any(map(alive, [*pids, int(note.read_text())]))
    node.start(second, 1, "true")
    assert second.expect("ended", 1)["cause"] == "supervisor_lost"
    second.send(op="ack", numbers=[1, 2, 3], floor=4)
    second.send(op="hello", version=1)
    second.expect("error", of="hello")
    kill_9(node)
    node.up()
    third = node.agent()
    assert states(third) == {}
    node.start(third, 3, "true")
    assert third.expect("refused", 3)["reason"] == "below_floor"


def line(record: dict[str, Any]) -> bytes:
    body = json.dumps(record).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def test_short_attempts_beside_a_long_one_are_never_too_many(node: Node) -> None:
    """What is over above the oldest that lives is remembered as ranges: their number says nothing."""
    node.state.mkdir(mode=0o700)
    numbers = [number for number in range(1, 120_000) if number % 1000]
    life = {"t": "life", "id": "abc", "boot": "another", "floor": 0, "acked": numbers}
    node.journal.write_bytes(line(life))
    node.up()
    agent = node.agent()
    node.start(agent, 77_001, "true")
    assert agent.expect("refused", 77_001)["reason"] == "acked"
    assert node.run(agent, 5000, "true")["exit_code"] == 0
    assert node.run(agent, 120_000, "true")["exit_code"] == 0


def test_an_attempt_of_another_boot_is_lost_but_nothing_is_killed(node: Node) -> None:
    bystander = subprocess.Popen(["sleep", "1000"])
    try:
        node.state.mkdir(mode=0o700)
        life = {"t": "life", "id": "abc", "boot": "another", "floor": 3, "acked": []}
        start, pid = (
            {"t": "start", "n": 7, "tag": "seven", "at": 1.0},
            {"t": "pid", "n": 7, "pid": bystander.pid, "at": 1.0},
        )
        node.journal.write_bytes(line(life) + line(start) + line(pid))
        node.up()
        agent = node.agent()
        assert states(agent) == {7: ("ended", "node_lost")}
        assert alive(bystander.pid)
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize("damage", [b"0000", b'deadbeef {"t":"start","n":9}', b"\x00\xff\xfe"])
def test_a_torn_tail_is_tolerated(node: Node, agent: Agent, damage: bytes) -> None:
    node.run(agent, 1, "sh", "-c", "exit 3")
    kill_9(node)
    with node.journal.open("ab") as file:
        file.write(damage)
    node.up()
    second = node.agent()
    assert states(second) == {1: ("ended", "exit")}
    node.run(second, 2, "true")
    kill_9(node)
    node.up()
    assert states(node.agent()) == {1: ("ended", "exit"), 2: ("ended", "exit")}


def test_damage_in_the_middle_costs_one_record(node: Node, agent: Agent) -> None:
    for number in (1, 2, 3):
        node.run(agent, number, "true")
    kill_9(node)
    lines = node.journal.read_bytes().splitlines(keepends=True)
    at = next(i for i, text in enumerate(lines) if b'"end"' in text and b'"n":2' in text)
    lines[at] = lines[at].replace(b"exit", b"EXIT")
    node.journal.write_bytes(b"".join(lines))
    node.up()
    assert states(node.agent()) == {1: ("ended", "exit"), 2: ("ended", "supervisor_lost"), 3: ("ended", "exit")}


def test_the_journal_is_compacted(node: Node, agent: Agent) -> None:
    tag = "x" * 60_000
    node.start(agent, 1, "sleep", "1000")
    for number in range(2, 60):
        node.run(agent, number, "true", tag=tag)
        agent.send(op="ack", numbers=[number], floor=None)
    agent.send(op="ack", numbers=[], floor=50)
    node.run(agent, 60, "true")
    assert node.journal.stat().st_size < 2 << 20
    kill_9(node)
    node.up()
    second = node.agent()
    assert states(second) == {1: ("ended", "supervisor_lost"), 60: ("ended", "exit")}
    node.start(second, 55, "true")
    assert second.expect("refused", 55)["reason"] == "below_floor", "all that touches the floor is below it"


def test_a_second_supervisor_refuses_the_directory(node: Node, agent: Agent) -> None:
    command = [PYTHON, "-I", "-S", str(MAIN), "--dir", str(node.state)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 3
    assert str(node.processes[0].pid) in done.stderr
    assert node.run(agent, 1, "true")["exit_code"] == 0


def test_it_runs_as_a_module_too(node: Node) -> None:
    source = str(MAIN.parents[3])
    command = [PYTHON, "-m", "jarvis.worker.supervisor", "--dir", str(node.state)]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": source})
    node.processes.append(process)
    wait_for(lambda: can_connect(node.socket), "it listens")
    assert node.run(node.agent(), 1, "true")["exit_code"] == 0


def test_an_upgrade_keeps_everything(node: Node, agent: Agent) -> None:
    script = "echo ready; read x; echo got $x; exit 6"
    node.start(agent, 1, "sh", "-c", script, stdin="pipe", memory_bytes=128 << 20)
    node.start(agent, 2, "sh", "-c", script, pty=[24, 80])
    node.start(agent, 3, "sleep", "1000", slot="lane", time_limit_s=4, grace_s=0.1)
    node.start(agent, 4, "echo", "after", slot="lane")
    node.run(agent, 5, "false")
    started = {number: agent.expect("started", number)["pid"] for number in (1, 2, 3)}
    node.wait_output(1, "ready")
    node.wait_output(2, "ready")
    viewer = Agent(node.socket, hello=False)
    viewer.send(op="attach", number=2)
    node.agents.append(viewer)
    agent.send(
        op="exec", number=3, channel="e", argv=["cat"], env={"PATH": "/bin", "TEST": node.name}, cwd="/", pty=None
    )
    agent.expect("exec_started", 3)
    agent.send(op="upgrade")
    node.start(agent, 6, "echo", "sent meanwhile")
    assert agent.expect("upgraded")["pid"] == node.processes[0].pid
    assert all(map(alive, started.values()))
    assert agent.expect("ended", 6)["exit_code"] == 0
    viewer.sock.sendall(b"typed\n")
    end = agent.expect("ended", 2)
    assert (end["exit_code"], end["out_bytes"]) == (6, len(node.output(2).encode()) + node.output(2).count("\n"))
    assert "got typed" in node.output(2)
    writer = Agent(node.socket, hello=False)
    writer.send(op="attach", number=1)
    writer.sock.sendall(b"piped\n")
    assert agent.expect("ended", 1)["exit_code"] == 6
    writer.close()
    reader = Agent(node.socket, hello=False)
    reader.send(op="attach", channel="e")
    reader.sock.sendall(b"still here")
    assert reader.sock.recv(100) == b"still here"
    reader.close()
    assert agent.expect("ended", 3)["cause"] == "timeout"
    assert agent.expect("ended", 4)["exit_code"] == 0
    agent.send(op="upgrade")
    agent.expect("upgraded")
    agent.close()
    assert sorted(states(node.agent())) == [1, 2, 3, 4, 5, 6]


def test_after_an_upgrade_a_child_gets_the_same_limits(node: Node) -> None:
    node.up(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (300, 600)))
    agent = node.agent()
    for number in (1, 2):
        node.run(agent, number, "sh", "-c", "echo $(ulimit -Sn) $(ulimit -Hn)")
        agent.send(op="upgrade")
        agent.expect("upgraded")
    assert [node.output(number) for number in (1, 2)] == ["300 600\n", "300 600\n"]


def test_an_upgrade_that_cannot_start_is_refused(node: Node, agent: Agent) -> None:
    node.start(agent, 1, "sleep", "1000")
    agent.expect("started", 1)
    for command in (["/bin/false"], ["/no/such"]):
        agent.send(op="upgrade", command=command)
        assert agent.expect("error", of="upgrade")
    assert node.run(agent, 2, "true")["exit_code"] == 0


def test_the_end_of_its_owner_ends_everything(node: Node) -> None:
    ours, theirs = socket.socketpair()
    node.up("--owner-fd", str(theirs.fileno()), pass_fds=[theirs.fileno()])
    theirs.close()
    agent = node.agent()
    node.start(agent, 1, "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done")
    node.wait_output(1, "ready")
    ours.close()
    assert node.processes[0].wait(20) == 0
    assert not marked(f"TEST={node.name}")


def test_sigterm_is_a_clean_stop_that_the_next_one_can_report(node: Node, agent: Agent) -> None:
    node.start(agent, 1, "sleep", "1000")
    node.start(agent, 2, "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done", grace_s=0.2)
    node.wait_output(2, "ready")
    node.processes[0].send_signal(signal.SIGTERM)
    assert node.processes[0].wait(20) == 0
    assert agent.expect("ended", 1)["kill_cause"] == "shutdown"
    assert agent.expect("ended", 2)["signal"] == 9
    node.up()
    assert states(node.agent()) == {1: ("ended", "killed"), 2: ("ended", "killed")}


def test_shutdown_may_leave_tasks_to_the_successor(node: Node, agent: Agent) -> None:
    node.start(agent, 1, "sleep", "1000")
    pid = agent.expect("started", 1)["pid"]
    agent.send(op="shutdown", kill=False)
    assert node.processes[0].wait(20) == 0
    assert alive(pid)
    node.up()
    assert states(node.agent()) == {1: ("ended", "supervisor_lost")}
    assert not alive(pid)


def test_the_agent_is_kept_running(node: Node) -> None:
    births = node.root / "births"
    script = "import os, time; "
    script += f"open({str(births)!r}, 'a').write(f'{{os.getpid()}}\\n'); print('hello', flush=True); time.sleep(1000)"
    node.up("--agent", json.dumps([PYTHON, "-I", "-S", "-c", script]), env={**os.environ, "TEST": node.name})
    wait_for(lambda: count(births) == 1, "the agent starts")
    first = int(births.read_text().split()[0])
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: count(births) == 2, "it starts again")
    second = int(births.read_text().split()[1])
    wait_for(lambda: (node.state / "agent.log").read_text().count("hello") == 2, "the log has both")
    kill_9(node)
    assert alive(second)
    node.up("--agent", json.dumps([PYTHON, "-I", "-S", "-c", script]), env={**os.environ, "TEST": node.name})
    wait_for(lambda: count(births) == 3, "the successor starts one")
    assert not alive(second)
    node.agent().send(op="upgrade")
    third = int(births.read_text().split()[2])
    wait_for(lambda: b"--resume" in Path(f"/proc/{node.processes[-1].pid}/cmdline").read_bytes(), "the upgrade")
    assert node.agent().welcome["pid"] == node.processes[-1].pid
    assert alive(third)
    assert count(births) == 3


def test_another_user_may_not_connect(node: Node, agent: Agent) -> None:
    node.state.chmod(0o755)
    node.socket.chmod(0o777)
    for parent in list(node.state.parents)[:-2]:
        parent.chmod(parent.stat().st_mode | 0o711)
    child = os.fork()
    if child == 0:  # the interpreter's own place may be closed to other users, so no new one is started
        os.setgroups([])
        os.setresuid(65534, 65534, 65534)
        try:
            Agent(node.socket)
        except (EOFError, ConnectionError):
            os._exit(7)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert node.run(agent, 1, "true")["exit_code"] == 0


def test_the_socket_and_directory_are_private(node: Node, agent: Agent) -> None:
    assert node.state.stat().st_mode & 0o777 == 0o700
    assert node.socket.stat().st_mode & 0o777 == 0o600
    with connect(node.socket) as connection:
        assert connection.fileno() >= 0


def fill_up(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 512)


@pytest.fixture
def small_disk(node: Node) -> Iterator[Node]:
    """A node whose state directory is a tiny file system."""
    node.state.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "none", str(node.state)], check=True)
    try:
        yield node
    finally:
        node.down()
        node.processes.clear()
        subprocess.run(["umount", str(node.state)], check=True)


def test_a_full_disk_refuses_starts_and_loses_nothing(small_disk: Node) -> None:
    node = small_disk
    node.up()
    agent = node.agent()
    node.start(agent, 1, "sh", "-c", "read x; exit 9", stdin="pipe")
    agent.expect("started", 1)
    fill = node.state / "fill"
    fill_up(fill)
    number, failed = 2, None
    while failed is None:  # what is left of the journal's last page still takes some
        node.start(agent, number, "true", tag="t" * 500)
        message = agent.receive()
        failed = message if message["op"] == "start_failed" else None
        number += 1
    assert failed["code"] == 125
    assert "No space" in failed["error"]
    assert failed["recorded"] is False
    agent.send(op="signal", number=1, signum=15)
    assert agent.expect("ended", 1)["signal"] == 15
    fill.unlink()
    assert node.run(agent, 1000, "true")["exit_code"] == 0
    kill_9(node)
    node.up()
    assert states(node.agent())[1] == ("ended", "signal")
