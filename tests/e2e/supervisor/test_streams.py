"""Input, terminals, auxiliary processes."""

from __future__ import annotations

import socket
import sys
from typing import Any

from tests.e2e.supervisor.harness import Agent, Node, alive, wait_for


def attach(node: Node, **which: Any) -> socket.socket:
    """A connection that carries raw bytes from now on."""
    agent = Agent(node.socket, hello=False)
    agent.send(op="attach", **which)
    node.agents.append(agent)
    return agent.sock


def read_until(sock: socket.socket, text: bytes) -> bytes:
    data = b""
    while text not in data:
        part = sock.recv(4096)
        assert part, f"closed before {text!r}: {data!r}"
        data += part
    return data


def read_all(sock: socket.socket) -> bytes:
    data = b""
    while part := sock.recv(65536):
        data += part
    return data


def test_stdin_bytes_arrive_and_half_close_ends_them(node: Node, agent: Agent) -> None:
    node.start(agent, 1, "sh", "-c", "wc -c; echo done", stdin="pipe")
    agent.expect("started", 1)
    sock = attach(node, number=1)
    sock.sendall(b"x" * 1_000_000)
    sock.shutdown(socket.SHUT_WR)
    assert read_all(sock) == b""
    agent.expect("ended", 1)
    assert node.output(1).split() == ["1000000", "done"]


def test_a_lost_connection_does_not_end_the_input(node: Node, agent: Agent) -> None:
    node.start(agent, 1, "cat", stdin="pipe")
    agent.expect("started", 1)
    first = attach(node, number=1)
    first.sendall(b"one\n")
    node.wait_output(1, "one")
    first.close()
    second = attach(node, number=1)
    second.sendall(b"two\n")
    second.shutdown(socket.SHUT_WR)
    agent.expect("ended", 1)
    assert node.output(1) == "one\ntwo\n"


def test_stdin_may_be_a_file_or_nothing(node: Node, agent: Agent) -> None:
    given = node.root / "input"
    given.write_text("from a file")
    node.run(agent, 1, "cat", stdin=str(given))
    assert node.output(1) == "from a file"
    node.run(agent, 2, "cat")
    assert node.output(2) == ""


def test_attach_to_what_is_not_there_is_closed(node: Node, agent: Agent) -> None:
    assert read_all(attach(node, number=99)) == b""
    assert read_all(attach(node, channel="none")) == b""


def test_a_terminal_is_one_and_writes_its_file(node: Node, agent: Agent) -> None:
    script = "test -t 0 && test -t 1 && echo tty; stty size; read line; echo got $line; stty size"
    node.start(agent, 1, "sh", "-c", script, pty=[30, 100])
    agent.expect("started", 1)
    sock = attach(node, number=1)
    node.wait_output(1, "30 100")
    agent.send(op="resize", number=1, rows=50, cols=150)
    agent.send(op="resize", number=1, rows=40, cols=120)
    agent.send(op="signal", number=99, signum=1)
    agent.expect("error", 99)  # so the resize is through
    sock.sendall(b"hello\n")
    seen = read_all(sock)
    assert b"got hello" in seen
    assert b"40 120" in seen
    end = agent.expect("ended", 1)
    assert "tty" in node.output(1)
    assert "40 120" in node.output(1)
    assert end["out_bytes"] == (node.out / "1.out").stat().st_size


def test_a_terminal_without_viewer_is_not_held_up(node: Node, agent: Agent) -> None:
    end = node.run(agent, 1, "seq", "200000", pty=[24, 80])
    assert end["exit_code"] == 0
    assert node.output(1).split()[-1] == "200000"


def test_interrupt_and_end_of_input_work_on_a_terminal(node: Node, agent: Agent) -> None:
    node.start(agent, 1, "cat", pty=[24, 80])
    agent.expect("started", 1)
    sock = attach(node, number=1)
    sock.sendall(b"\x03")
    assert agent.expect("ended", 1)["signal"] == 2
    node.start(agent, 2, "cat", pty=[24, 80], no_new_privs=True)
    agent.expect("started", 2)
    sock = attach(node, number=2)
    sock.shutdown(socket.SHUT_WR)
    end = agent.expect("ended", 2)
    assert end["exit_code"] == 0, end


def test_output_limit_counts_a_terminal(node: Node, agent: Agent) -> None:
    assert node.run(agent, 1, "yes", pty=[24, 80], output_limit=50_000)["cause"] == "output_limit"


def test_exec_runs_inside_the_attempt(node: Node, agent: Agent) -> None:
    node.start(agent, 1, "sleep", "1000", memory_bytes=128 << 20)
    agent.expect("started", 1)
    env = {"PATH": "/usr/bin:/bin", "TEST": node.name}
    agent.send(
        op="exec",
        number=1,
        channel="a",
        argv=["sh", "-c", "cat /proc/self/cgroup; cat; exit 7"],
        env=env,
        cwd="/tmp",
        pty=None,
    )
    agent.expect("exec_started", 1, channel="a")
    sock = attach(node, channel="a")
    sock.sendall(b"through")
    sock.shutdown(socket.SHUT_WR)
    seen = read_all(sock)
    assert seen.endswith(b"through")
    assert b"jarvis-" in seen
    assert agent.expect("exec_ended", 1, channel="a")["exit_code"] == 7
    agent.send(op="kill", number=1, grace_s=1, cause="x")
    agent.expect("ended", 1)


def test_the_output_of_a_quick_exec_waits_for_its_reader(node: Node, agent: Agent) -> None:
    node.start(agent, 1, "sleep", "1000")
    agent.expect("started", 1)
    agent.send(op="exec", number=1, channel="q", argv=["echo", "quick"], env={"TEST": node.name}, cwd="/", pty=None)
    agent.expect("exec_ended", 1, channel="q")
    assert read_all(attach(node, channel="q")) == b"quick\n"


def test_exec_with_a_terminal_dies_with_its_attempt(node: Node, agent: Agent) -> None:
    node.start(agent, 1, "sleep", "1000")
    agent.expect("started", 1)
    agent.send(
        op="exec", number=1, channel="b", argv=["cat"], env={"PATH": "/bin", "TEST": node.name}, cwd="/", pty=[24, 80]
    )
    pid = agent.expect("exec_started", 1, channel="b")["pid"]
    sock = attach(node, channel="b")
    sock.sendall(b"echo\n")
    read_until(sock, b"echo")
    agent.send(op="kill", number=1, grace_s=0, cause="x")
    agent.expect("ended", 1)
    wait_for(lambda: not alive(pid), "exec ends")
    agent.send(op="exec", number=1, channel="c", argv=["true"], env={}, cwd="/", pty=None)
    assert agent.expect("exec_failed", 1, channel="c")["code"] == 125


def test_exec_failures_tell_their_code(node: Node, agent: Agent) -> None:
    node.start(agent, 1, "sleep", "1000", no_new_privs=True)
    agent.expect("started", 1)
    for channel, argv, code in (("x", ["no-such"], 127), ("y", ["/etc/passwd"], 126)):
        agent.send(op="exec", number=1, channel=channel, argv=argv, env={"TEST": node.name}, cwd="/", pty=None)
        assert agent.expect("exec_failed", 1, channel=channel)["code"] == code


def test_a_viewer_that_does_not_read_gets_the_rest_later(node: Node, agent: Agent) -> None:
    script = "import sys; sys.stdin.readline(); sys.stdout.write('y' * 300000); print('END')"
    node.start(agent, 1, sys.executable, "-I", "-S", "-c", script, pty=[24, 80])
    agent.expect("started", 1)
    sock = attach(node, number=1)
    sock.sendall(b"go\n")
    assert b"END" in read_all(sock)
    agent.expect("ended", 1)


def test_a_program_that_closes_its_terminal_before_it_exits_is_not_hung_up(node: Node, agent: Agent) -> None:
    end = node.run(agent, 1, "sh", "-c", "exec 0<&- 1>&- 2>&-; sleep 0.5; exit 7", pty=[24, 80])
    assert (end["exit_code"], end["signal"]) == (7, None)
