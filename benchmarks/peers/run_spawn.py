"""The physical bound of process tasks: bare `posix_spawn` of `true` with a session and an output file, as many at once as
there are workers."""

from __future__ import annotations

import os
import shutil
import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "JARVIS_TASK_ID": "1", "JARVIS_ATTEMPT": "1"}


def bare(folder: Path, tasks: int, width: int) -> float:
    """Tasks a second without anything around them."""
    path = shutil.which("true") or "/bin/true"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    began = time.monotonic()
    running = 0
    for number in range(tasks):
        actions = [(os.POSIX_SPAWN_OPEN, 1, f"{folder}/{number}", flags, 0o644), (os.POSIX_SPAWN_DUP2, 1, 2)]
        os.posix_spawn(path, ["true"], ENV, file_actions=actions, setsid=True, setsigdef=[signal.SIGPIPE])
        running += 1
        if running == width:
            os.wait()
            running -= 1
    while running:
        os.wait()
        running -= 1
    return tasks / (time.monotonic() - began)


if __name__ == "__main__":
    from protocol import arguments, tell, timed

    _, count, workers, directory = arguments()
    tell(timed(lambda: bare(directory / "out", count, workers), count))
