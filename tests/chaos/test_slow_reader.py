"""Whoever does not read for a while holds up the other end of that stream, and nothing is lost or broken off."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from tests.e2e.cluster.harness import Home, home, wait_for

PAUSE_S = 75 if os.environ.get("JARVIS_SOAK") else 12
"""Longer than everything on the way is patient with who seems to be gone; the longest of it is a minute."""
SIZE = 30_000_000
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def up() -> Iterator[Home]:
    with home() as made:
        made.jarvis("up", "--cpus", "4")
        yield made


def test_a_task_reads_its_input_late(up: Home) -> None:
    done = up.jarvis("run", "--", "sh", "-c", f"sleep {PAUSE_S}; wc -c", input="x" * SIZE)
    assert (done.stdout.strip(), done.stderr) == (str(SIZE), "")


def test_a_user_reads_late_what_a_command_beside_a_task_writes(up: Home) -> None:
    with up.client() as client:
        ident = client.submit(command=["sleep", "300"]).id
        wait_for(lambda: client.show(ident)["state"] == "running", "it runs")
        command = [sys.executable, "-m", "jarvis.cli", "exec", str(ident), "--", "head", "-c", str(SIZE), "/dev/zero"]
        with subprocess.Popen(command, env=up.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
            time.sleep(PAUSE_S)
            out, err = running.communicate(timeout=60)
        assert (len(out), err, running.returncode) == (SIZE, b"", 0)
        client.act(ident, "cancel", grace=0)


def test_a_user_reads_late_what_a_terminal_shows(up: Home) -> None:
    """The task itself goes on meanwhile: what was not shown comes from its log."""
    command = [sys.executable, "-m", "jarvis.cli", "run", "--pty", "--", "sh", "-c", "seq 1000000; sleep 1"]
    with subprocess.Popen(
        command, env=up.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        time.sleep(PAUSE_S)
        out, err = running.communicate(timeout=60)
    assert (out.split(), err, running.returncode) == ([b"%d" % i for i in range(1, 1_000_001)], b"", 0)
