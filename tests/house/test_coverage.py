"""The pure core is covered by its own unit tests to the last branch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(300)
def test_every_branch_of_the_core_is_tested(tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith("COV")} | {"COVERAGE_FILE": str(tmp_path / "data")}
    run = [sys.executable, "-m", "coverage"]
    tests = [*run, "run", "--source=src/jarvis/core", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/unit/core"]
    done = subprocess.run(tests, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    subprocess.run([*run, "combine", "-q"], cwd=ROOT, env=env, check=True)
    report = [*run, "report", "--fail-under=100"]
    told = subprocess.run(report, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout
