"""S9: what a newcomer meets: ``python -m benchmarks.first_contact DIRECTORY``, one line of JSON.

Seconds until ``jarvis up`` says that it is ready, until the first task is done after that, of ``jarvis --help`` and of ``import
jarvis``; memory of all processes; the share of a core that they take when there is nothing to do, and how often a second one of
their threads wakes up then; the size of the base install, of Jarvis with all that it requires.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import MARK, cpu_seconds, members, resident_bytes, wake_ups
from packaging.requirements import Requirement

import jarvis as package

if TYPE_CHECKING:
    from collections.abc import Callable

IDLE_S, TRIES = 10.0, 7
NAME = "jarvis-cluster"


def jarvis(directory: Path, *words: str) -> float:
    """Seconds that a command takes."""
    env = {**os.environ, "JARVIS_HOME": str(directory)}
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", "jarvis.cli", *words], env=env, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def import_s() -> float:
    """Of the interpreter with the package, less the interpreter alone."""

    def seconds(code: str) -> float:
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - begin

    return _median(lambda: seconds("import jarvis") - seconds("pass"))


def _median(measure: Callable[[], float]) -> float:
    return statistics.median(measure() for _ in range(TRIES))


def required(name: str, found: set[str]) -> None:
    """Add the distributions that one requires here, with no extra, to those that are found."""
    for text in distribution(name).requires or ():
        requirement = Requirement(text)
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if wanted and requirement.name not in found:
            found.add(requirement.name)
            required(requirement.name, found)


def install_bytes() -> tuple[int, int]:
    """Of the source of the package and all that it requires, as it lies on the disk; and how many distributions that are."""
    others: set[str] = set()
    required(NAME, others)
    paths = [Path(str(file.locate())) for name in others for file in distribution(name).files or ()]
    paths += Path(package.__file__).parent.rglob("*.py")
    return sum(path.stat().st_size for path in paths if path.is_file()), 1 + len(others)


def main() -> None:
    directory, mark = Path(sys.argv[1]), os.environ[MARK]
    found = {"help_s": _median(lambda: jarvis(directory, "--help")), "import_s": import_s()}
    found["install_bytes"], found["install_packages"] = install_bytes()
    found["up_s"] = jarvis(directory, "up")
    try:
        found["first_task_s"] = jarvis(directory, "submit", "--wait", "--", "true")
        others = [pid for pid in members(mark) if pid not in (os.getpid(), os.getppid())]
        found["memory_mb"] = resident_bytes(others) / 1e6
        before, woken = cpu_seconds(others), wake_ups(others)
        time.sleep(IDLE_S)
        found["idle_core_share"] = (cpu_seconds(others) - before) / IDLE_S
        found["idle_wake_ups"] = (wake_ups(others) - woken) / IDLE_S
    finally:
        jarvis(directory, "down")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
