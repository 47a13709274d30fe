"""A workflow that is watched on a terminal: its tree while it runs, and how far it is."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

from tests.e2e.cluster.harness import Home, wait_for

DOCUMENT = """
name: seen
steps:
  - {{id: first, command: 'true'}}
  - {{id: each, depends_on: first, for_each: [1, 2], command: 'until [ -e {gate} ]; do sleep 0.02; done; echo ${{{{ item }}}}'}}
  - {{id: bad, depends_on: each, command: 'false', allow_failure: true}}
"""


def test_a_terminal_shows_the_tree_while_it_runs(up: Home, tmp_path: Path) -> None:
    gate, file = tmp_path / "gate", tmp_path / "seen.yaml"
    file.write_text(DOCUMENT.format(gate=gate))
    ours, theirs = pty.openpty()
    env = {**up.env, "TERM": "xterm", "COLUMNS": "120"}
    command = [sys.executable, "-m", "jarvis.cli", "workflow", "run", str(file)]
    running = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, cwd=tmp_path)
    os.close(theirs)
    os.set_blocking(ours, False)
    said = ""

    def shown(pattern: str) -> bool:
        nonlocal said
        try:
            said += os.read(ours, 65536).decode(errors="replace")
        except (BlockingIOError, OSError):  # nothing new, or they are gone
            pass
        return re.search(pattern, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said)) is not None

    try:
        wait_for(lambda: shown(r"✓ first .*succeeded"), "the first step is over")
        wait_for(lambda: shown(r"▶ each \* .*running"), "the fan-out runs")
        wait_for(lambda: shown(r"· bad .*waiting"), "the last one waits")
        wait_for(lambda: shown(r"\[█+░+\] 1/3 steps"), "how far it is")
        gate.touch()
        wait_for(lambda: shown(r"\[█+\] 3/3 steps"), "all are over")
        wait_for(lambda: shown(r"✗ bad .*failed"), "how the last one ended")
        assert running.wait(30) == 0
        wait_for(lambda: shown(r"Workflow \d+ succeeded"), "the last line")
    finally:
        running.kill()
        running.wait()
        os.close(ours)
