"""S9: what a newcomer meets: ``python -m benchmarks.first_contact DIRECTORY``, one line of JSON.

Seconds until ``jarvis up`` says that it is ready, until the first task is done after that, of ``jarvis --help``; memory of
all processes; the share of a core that they take when there is nothing to do.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.measure import MARK, cpu_seconds, members, resident_bytes

IDLE_S = 10.0


def jarvis(directory: Path, *words: str) -> float:
    """Seconds that a command takes."""
    env = {**os.environ, "JARVIS_HOME": str(directory)}
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", "jarvis.cli", *words], env=env, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def main() -> None:
    directory, mark = Path(sys.argv[1]), os.environ[MARK]
    found = {"help_s": statistics.median(jarvis(directory, "--help") for _ in range(7))}
    found["up_s"] = jarvis(directory, "up")
    try:
        found["first_task_s"] = jarvis(directory, "submit", "--wait", "--", "true")
        others = [pid for pid in members(mark) if pid not in (os.getpid(), os.getppid())]
        found["memory_mb"] = resident_bytes(others) / 1e6
        before = cpu_seconds(others)
        time.sleep(IDLE_S)
        found["idle_core_share"] = (cpu_seconds(others) - before) / IDLE_S
    finally:
        jarvis(directory, "down")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
