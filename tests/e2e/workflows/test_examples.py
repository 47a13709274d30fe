"""The examples run, and what the one with real data gives is what awk says of the same file."""

import os
import subprocess
import sys
from pathlib import Path

from tests.e2e.cluster.harness import Home

EXAMPLES = Path(__file__).parents[3] / "examples" / "workflows"


def test_the_shells_of_this_machine_are_counted_as_awk_counts_them(up: Home, tmp_path: Path) -> None:
    into = tmp_path / "it's here.csv"
    up.jarvis("workflow", "run", str(EXAMPLES / "passwd.yaml"), "-P", f"into={into}", "-P", "parts=4")
    program = '{count[$7]++} END {for (shell in count) print shell "," count[shell]}'
    said = subprocess.run(["awk", "-F:", program, "/etc/passwd"], capture_output=True, text=True, check=True).stdout
    assert into.read_text().splitlines() == sorted(said.splitlines())


def test_the_first_things_that_everybody_tries_work(up: Home) -> None:
    env = os.environ | up.env
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "companions.py")],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    said = {name: text.rpartition("  (")[0] for name, text in told.items()}
    assert said["one_task"] == "succeeded" and said["many_tasks"] == "10" and said["retries"] == "3"
    assert said["failures"] == "failed: 3" and said["dag"] == "30" and "'nodes': ['ready']" in said["monitoring"]
