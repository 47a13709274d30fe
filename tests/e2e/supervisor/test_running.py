"""Starting, output, environment, how things end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jarvis.worker.supervisor.system import NICENESS

if TYPE_CHECKING:
    from tests.e2e.supervisor.harness import Agent, Node

PYTHON = sys.executable


@pytest.mark.parametrize("code", [0, 1, 75, 255])
def test_an_exit_code_is_reported(node: Node, agent: Agent, code: int) -> None:
    end = node.run(agent, 1, "sh", "-c", f"exit {code}")
    assert (end["exit_code"], end["signal"], end["cause"]) == (code, None, "exit")


def test_orders_given_together_share_what_is_not_their_own(node: Node, agent: Agent) -> None:
    common = node.order(1, "sh", "-c", "echo $SHARED$OWN", extra_env={"SHARED": "all", "OWN": "0"})
    own = [{"number": n, "env": {"OWN": str(n)}, "stdout": f"{node.out}/{n}.out"} for n in (2, 3)]
    agent.send(op="starts", common=common, each=[{}, *own])
    for number in (1, 2, 3):
        assert agent.expect("ended", number)["exit_code"] == 0
    assert [(node.out / f"{n}.out").read_text() for n in (1, 2, 3)] == ["all0\n", "all2\n", "all3\n"]


def test_started_comes_before_ended_and_usage_is_counted(node: Node, agent: Agent) -> None:
    node.start(agent, 1, PYTHON, "-I", "-c", "sum(range(3_000_000)); print('x' * 5000)")
    started = agent.expect("started", 1)
    end = agent.expect("ended", 1)
    assert started["pid"] > 1
    assert end["out_bytes"] == 5001
    assert end["wall_s"] > 0
    assert end["usage"]["cpu_user_s"] > 0.01
    assert end["usage"]["max_rss_bytes"] > 1 << 20


def test_a_death_by_signal_is_told_from_an_exit(node: Node, agent: Agent) -> None:
    end = node.run(agent, 1, "sh", "-c", "kill -SEGV $$")
    assert (end["exit_code"], end["signal"], end["cause"]) == (None, 11, "signal")


@pytest.mark.parametrize("trampoline", [False, True])
@pytest.mark.parametrize(
    ("argv", "code", "word"),
    [
        (["no-such-program"], 127, "no-such-program"),
        (["/no/such/program"], 127, "/no/such/program"),
        (["/etc/passwd"], 126, "ermission"),
        (["/"], 126, "ermission"),
    ],
)
def test_what_cannot_start_says_why(
    node: Node, agent: Agent, argv: list[str], code: int, word: str, *, trampoline: bool
) -> None:
    node.start(agent, 1, *argv, no_new_privs=trampoline)
    failed = agent.expect("start_failed", 1)
    assert failed["code"] == code
    assert word in failed["error"]


@pytest.mark.parametrize("trampoline", [False, True])
def test_a_missing_directory_is_named(node: Node, agent: Agent, trampoline: bool) -> None:
    node.start(agent, 1, "true", cwd="/no/such/place", no_new_privs=trampoline)
    failed = agent.expect("start_failed", 1)
    assert failed["code"] == 125
    assert "/no/such/place" in failed["error"]


def test_an_output_that_cannot_be_opened_is_named(node: Node, agent: Agent) -> None:
    node.start(agent, 1, "true", stdout="/no/such/file")
    failed = agent.expect("start_failed", 1)
    assert failed["code"] == 125
    assert "/no/such/file" in failed["error"]


def test_a_missing_interpreter_is_told(node: Node, agent: Agent, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    node.start(agent, 1, str(script))
    failed = agent.expect("start_failed", 1)
    assert failed["code"] == 127
    assert "interpreter" in failed["error"]


@pytest.mark.parametrize("trampoline", [False, True])
def test_stderr_joins_stdout_in_order(node: Node, agent: Agent, trampoline: bool) -> None:
    script = "echo one; echo two >&2; echo three"
    end = node.run(agent, 1, "sh", "-c", script, no_new_privs=trampoline)
    assert node.output(1) == "one\ntwo\nthree\n"
    assert (end["out_bytes"], end["err_bytes"]) == (14, 0)


def test_stderr_may_have_its_own_file(node: Node, agent: Agent) -> None:
    err = node.out / "1.err"
    end = node.run(agent, 1, "sh", "-c", "echo out; echo error >&2", stderr=str(err))
    assert (node.output(1), err.read_text()) == ("out\n", "error\n")
    assert (end["out_bytes"], end["err_bytes"]) == (4, 6)


def test_append_keeps_and_otherwise_a_file_starts_empty(node: Node, agent: Agent) -> None:
    path = str(node.out / "shared")
    node.run(agent, 1, "echo", "first", stdout=path)
    end = node.run(agent, 2, "echo", "second", stdout=path, append=True)
    assert Path(path).read_text() == "first\nsecond\n"
    assert end["out_bytes"] == 7
    node.run(agent, 3, "echo", "third", stdout=path)
    assert Path(path).read_text() == "third\n"


@pytest.mark.parametrize("trampoline", [False, True])
def test_the_environment_is_as_given_plus_the_mark(node: Node, agent: Agent, trampoline: bool) -> None:
    given = {"ONE": "1", "EMPTY": "", "ODD": "a=b\nc ü", "TEST": node.name}
    script = "import json, os; print(json.dumps(dict(os.environ)))"
    node.run(agent, 1, PYTHON, "-I", "-S", "-c", script, env=given, no_new_privs=trampoline)
    seen = json.loads(node.output(1))
    mark = seen.pop("JARVIS_SUPERVISED")
    seen.pop("LC_CTYPE", None)  # Python's own doing
    assert seen == given
    assert mark.endswith(".1")


@pytest.mark.parametrize("trampoline", [False, True])
def test_directory_umask_session_and_fds_are_clean(node: Node, agent: Agent, trampoline: bool, tmp_path: Path) -> None:
    script = (
        "import os, json, signal, resource; m = os.umask(0)\n"
        "print(json.dumps([os.getcwd(), m, os.getsid(0) == os.getpid(),"
        "sorted(int(f) for f in os.listdir('/proc/self/fd'))[:-1], resource.getrlimit(resource.RLIMIT_NOFILE)[0],"
        "[l.split()[1] for l in open('/proc/self/status') if l.startswith(('SigBlk', 'SigIgn'))]]))"
    )
    node.run(agent, 1, PYTHON, "-I", "-S", "-c", script, cwd=str(tmp_path), umask=0o027, no_new_privs=trampoline)
    cwd, umask, leads, fds, files, masks = json.loads(node.output(1))
    assert (cwd, umask, leads, fds) == (str(tmp_path), 0o027, True, [0, 1, 2])
    import resource

    assert files == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert int(masks[0], 16) == 0
    python_ignores = (1 << 12) | (1 << 24)  # SIGPIPE and SIGXFSZ, by the task's own interpreter
    assert int(masks[1], 16) & 0x7FFFFFFF & ~python_ignores == 0


def test_argv0_is_found_on_the_tasks_own_path(node: Node, agent: Agent, tmp_path: Path) -> None:
    program = tmp_path / "mine"
    program.write_text("#!/bin/sh\necho found $0\n")
    program.chmod(0o755)
    node.run(agent, 1, "mine", extra_env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert node.output(1) == f"found {program}\n"
    node.run(agent, 2, "./mine", cwd=str(tmp_path))
    assert node.output(2).startswith("found")


def test_the_user_is_dropped_with_no_new_privileges(node: Node, agent: Agent) -> None:
    node.out.chmod(0o777)
    for parent in [node.out, *list(node.out.parents)[:-2]]:
        parent.chmod(parent.stat().st_mode | 0o711)
    user = {"uid": 65534, "gid": 65534, "groups": [65534, 12345]}
    end = node.run(agent, 1, "cat", "/proc/self/status", user=user, no_new_privs=True)
    assert end["exit_code"] == 0
    status = dict(line.split(":\t", 1) for line in node.output(1).splitlines() if ":\t" in line)
    assert status["Uid"].split() == ["65534"] * 4
    assert status["Gid"].split() == ["65534"] * 4
    assert set(status["Groups"].split()) == {"65534", "12345"}
    assert status["NoNewPrivs"] == "1"
    assert (node.out / "1.out").stat().st_uid == 65534


def test_a_user_cannot_have_outputs_opened_with_our_rights(node: Node, agent: Agent) -> None:
    node.start(
        agent, 1, "echo", "mine", stdout="/etc/jarvis-must-not-exist", user={"uid": 65534, "gid": 65534, "groups": []}
    )
    failed = agent.expect("start_failed", 1)
    assert failed["code"] == 125
    assert not Path("/etc/jarvis-must-not-exist").exists()


def test_a_malformed_start_is_refused_and_may_be_repaired(node: Node, agent: Agent) -> None:
    agent.send(**{**node.order(1, "true"), "argv": "true"})
    assert agent.expect("start_failed", 1)["recorded"] is False
    agent.send(**{**node.order(1, "true"), "listen_fd_path": "/x"})
    assert "not supported" in agent.expect("start_failed", 1)["error"]
    assert node.run(agent, 1, "true")["exit_code"] == 0


def test_a_lane_runs_one_after_another_and_gives_back_what_waits(node: Node, agent: Agent) -> None:
    shared = str(node.out / "lane")
    node.start(agent, 1, "sh", "-c", f"echo 1 >> {shared}; read x; echo 1 >> {shared}", slot=0, stdin="pipe")
    for number in (2, 3, 4):
        node.start(agent, number, "sh", "-c", f"echo {number} >> {shared}", slot=0)
    agent.expect("started", 1)
    agent.send(op="recall", numbers=[1, 3])
    assert agent.expect("recalled")["numbers"] == [3]
    agent.send(op="signal", number=1, signum=15)
    for number in (1, 2, 4):
        agent.expect("ended", number)
    assert Path(shared).read_text() == "1\n2\n4\n"
    assert node.run(agent, 3, "true")["exit_code"] == 0


def expected_niceness(own: int) -> int:
    allowed = (
        subprocess.run([PYTHON, "-c", "import os; os.nice(-10)"], stderr=subprocess.DEVNULL, check=False).returncode
        == 0
    )
    return NICENESS if own == 0 and allowed else own


@pytest.mark.parametrize("trampoline", [False, True])
def test_it_goes_before_its_tasks_where_it_may(node: Node, trampoline: bool) -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    supervisor = node.up()
    agent = node.agent()
    for number in (1, 2):
        node.run(agent, number, "nice", no_new_privs=trampoline)
        assert os.getpriority(os.PRIO_PROCESS, supervisor.pid) == expected_niceness(own)
        agent.send(op="upgrade")
        agent.expect("upgraded")
    assert [node.output(number) for number in (1, 2)] == [f"{own}\n"] * 2


def test_it_stays_where_it_was_put(node: Node) -> None:
    supervisor = node.up(preexec_fn=lambda: os.nice(5))
    node.run(node.agent(), 1, "nice")
    niceness = os.getpriority(os.PRIO_PROCESS, supervisor.pid)
    assert niceness == min(os.getpriority(os.PRIO_PROCESS, 0) + 5, 19)
    assert node.output(1) == f"{niceness}\n"
