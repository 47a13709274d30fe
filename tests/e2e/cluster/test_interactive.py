"""Input, terminals and commands beside a task, as a user has them."""

import hashlib
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.e2e.cluster.harness import PATIENCE, Home, wait_for

from jarvis.sdk.errors import Unreachable
from jarvis.sdk.streams import TaskStream

pytestmark = pytest.mark.timeout(180)


def typed(home: Home, *args: str, keys: bytes, until: bytes) -> tuple[int, bytes]:
    """Run the command line in a terminal: type when ``until`` has appeared; (exit code, what was on the screen)."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "jarvis.cli", *args]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=home.env, start_new_session=True)
    os.close(slave)
    screen, sent, deadline = b"", False, time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if until in screen and not sent:
            os.write(master, keys)
            sent = True
        if select.select([master], [], [], 0.05)[0]:
            try:
                screen += os.read(master, 4096)
            except OSError:
                break
        elif process.poll() is not None:
            break
    code = process.wait(PATIENCE)
    os.close(master)
    return code, screen


def test_input_is_the_commands(up: Home) -> None:
    assert up.jarvis("run", "--", "cat", input="one\ntwo\n").stdout == "one\ntwo\n"


def test_much_input_waits_for_a_slow_reader(up: Home, tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * 24
    (tmp_path / "data").write_bytes(data)
    with (tmp_path / "data").open("rb") as file:
        done = up.jarvis("run", "--", "sh", "-c", "sleep 1; sha256sum", stdin=file)
    assert done.stdout.split()[0] == hashlib.sha256(data).hexdigest()


def test_a_command_that_reads_nothing_ends_without_its_input(up: Home) -> None:
    assert up.jarvis("run", "--", "echo", "done", input="x" * 1_000_000).stdout == "done\n"
    assert up.jarvis("run", "--no-stdin", "--", "cat", input="x").stdout == ""


def test_much_output_arrives_whole(up: Home) -> None:
    script = "import sys; [sys.stdout.write('%08d\\n' % i) for i in range(1_000_000)]"
    done = up.jarvis("run", "--", sys.executable, "-c", script)
    assert done.stdout == "".join(f"{i:08d}\n" for i in range(1_000_000))


def test_a_terminal(up: Home) -> None:
    script = "test -t 0 && echo ready; read line; echo got $line; stty size; exit 5"
    code, screen = typed(up, "run", "--pty", "--", "sh", "-c", script, keys=b"words\n", until=b"ready")
    assert code == 5
    assert b"ready" in screen
    assert b"got words" in screen


def test_a_terminal_of_a_command_that_is_over_at_once(up: Home) -> None:
    for _ in range(5):
        code, screen = typed(up, "run", "--pty", "--", "echo", "hello", keys=b"", until=b"never")
        assert (code, screen) == (0, b"hello\r\n")


def test_interrupt_in_a_terminal_is_a_key(up: Home) -> None:
    script = 'trap "echo caught; exit 9" INT; echo ready; while :; do sleep 0.05; done'
    code, screen = typed(up, "run", "--pty", "--", "sh", "-c", script, keys=b"\x03", until=b"ready")
    assert code == 9
    assert b"caught" in screen


def test_exec_beside_a_task(up: Home) -> None:
    ident = up.jarvis("submit", "-q", "--env", "MINE=7", "--", "sleep", "300").stdout.strip()
    with up.client() as client:
        wait_for(lambda: client.show(ident)["state"] == "running", "it runs")
        done = up.jarvis(
            "exec", ident, "--", "sh", "-c", "echo $MINE $JARVIS_TASK_ID; cat; exit 3", input="in\n", code=3
        )
        assert done.stdout == f"7 {ident}\nin\n"
        assert "no-such-program" in up.jarvis("exec", ident, "--", "no-such-program", code=127, input="").stderr
        code, screen = typed(
            up, "exec", ident, "--", "sh", "-c", "tty; read x; exit $x", keys=b"4\n", until=b"/dev/pts"
        )
        assert code == 4, screen
        client.act(ident, "cancel", grace=0)
    assert "not running" in wait_for(
        lambda: up.jarvis("exec", ident, "--", "true", code=None, input="").stderr, "it says why not"
    )


def test_exec_waits_for_what_is_on_its_way_to_a_node(fresh: Home) -> None:
    """As between two lines of a script; what waits for room is told to be queued."""
    fresh.env["JARVIS_WORKER__PROLOG"] = "sleep 2"
    fresh.jarvis("up", "--cpus", "1")
    ident = fresh.jarvis("submit", "-q", "--", "sleep", "300").stdout.strip()
    queued = fresh.jarvis("submit", "-q", "--", "sleep", "300").stdout.strip()
    with fresh.client() as client:
        wait_for(lambda: client.show(ident)["state"] != "queued", "it is on its way")
        assert client.show(ident)["state"] == "assigned"
        assert fresh.jarvis("exec", ident, "--", "echo", "beside").stdout == "beside\n"
        assert f"task {queued} is queued, not running" in fresh.jarvis("exec", queued, "--", "true", code=5).stderr
        client.act(ident, "cancel", grace=0)


def test_a_command_beside_a_task_may_be_over_before_its_input_ends(up: Home) -> None:
    with up.client() as client:
        ident = client.submit(command=["sleep", "300"]).id
        wait_for(lambda: client.show(ident)["state"] == "running", "it runs")
        with TaskStream(client.connection, f"/tasks/{ident}/exec", argv=["sh", "-c", "echo over; exit 3"]) as stream:
            wait_for(lambda: not takes_input(stream), "the server has said all")
            stream.end()
            assert (b"".join(stream), stream.code, stream.error) == (b"over\n", 3, "")
        client.act(ident, "cancel", grace=0)


def test_a_command_beside_a_task_may_leave_its_input_unread(up: Home) -> None:
    ident = up.jarvis("submit", "-q", "--", "sleep", "300").stdout.strip()
    with up.client() as client:
        wait_for(lambda: client.show(ident)["state"] == "running", "it runs")
        for _ in range(5):
            done = up.jarvis("exec", ident, "--", "sh", "-c", "seq 5; exit 3", input="line\n" * 1_000_000, code=3)
            assert (done.stdout, done.stderr) == ("1\n2\n3\n4\n5\n", "")
        client.act(ident, "cancel", grace=0)


def test_a_command_beside_a_task_may_answer_each_line(up: Home) -> None:
    """More than all buffers on the way hold, both ways at once: nobody waits for the other to read."""
    ident = up.jarvis("submit", "-q", "--", "sleep", "300").stdout.strip()
    with up.client() as client:
        wait_for(lambda: client.show(ident)["state"] == "running", "it runs")
        lines = "".join(f"{i:09d}\n" for i in range(3_000_000))
        assert up.jarvis("exec", ident, "--", "cat", input=lines).stdout == lines
        client.act(ident, "cancel", grace=0)


def takes_input(stream: TaskStream) -> bool:
    try:
        stream.send(b"more")
    except Unreachable:
        return False
    return True


def test_the_last_lines_of_a_log(up: Home) -> None:
    ident = up.jarvis("submit", "-q", "--wait", "--", "seq", "100000").stdout.split()[0]
    assert up.jarvis("logs", "--tail", "3", ident).stdout == "99998\n99999\n100000\n"
    assert up.jarvis("logs", "--tail", "2", "-f", ident).stdout == "99999\n100000\n"
    assert up.jarvis("logs", "--tail", "0", ident).stdout == ""
