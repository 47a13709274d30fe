"""The physical bound of process tasks: bare `posix_spawn` of `true` with a session and an output file, as many at once as
there are workers. Mode `isolated`: each in a control group of its own with a limit of memory, made before and removed after.
"""

# ruff: noqa: PTH102, PTH106, PTH110, PTH120

from __future__ import annotations

import os
import shutil
import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "JARVIS_TASK_ID": "1", "JARVIS_ATTEMPT": "1"}


class Groups:
    """A control group for each task: of version 1 one in each hierarchy that a limit of memory needs, entered by us for the spawn,
    because to move one thread is cheap there; of version 2 one, which the child is moved into."""

    def __init__(self) -> None:
        from jarvis.worker.supervisor.cgroups import open_pool

        pool = open_pool(f"bench-{os.getpid()}")
        assert pool is not None, "no control groups can be made here"
        self.pool, self.moves_us = pool, pool.version == 1
        self.bases = [base for name, base in pool.bases.items() if name in ("memory", "freezer", "unified")]
        self.limit = "memory.limit_in_bytes" if self.moves_us else "memory.max"
        self.of: dict[int, int] = {}

    def make(self, number: int) -> None:
        for base in self.bases:
            os.mkdir(f"{base}/{number}")
            if os.path.exists(f"{base}/{number}/{self.limit}"):
                _write(f"{base}/{number}/{self.limit}", "67108864")
            if self.moves_us:
                _write(f"{base}/{number}/tasks", "0")

    def started(self, number: int, pid: int) -> None:
        self.of[pid] = number
        for base in self.bases:
            if self.moves_us:
                _write(f"{os.path.dirname(base)}/tasks", "0")
            else:
                _write(f"{base}/{number}/cgroup.procs", str(pid))

    def ended(self, pid: int) -> None:
        number = self.of.pop(pid)
        for base in self.bases:
            os.rmdir(f"{base}/{number}")


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    except ProcessLookupError:  # it is over by now
        pass
    finally:
        os.close(fd)


def bare(folder: Path, tasks: int, width: int, groups: Groups | None = None) -> float:
    """Tasks a second without anything around them."""
    path = shutil.which("true") or "/bin/true"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    began = time.monotonic()
    running = 0

    def one_ends() -> None:
        pid, _ = os.wait()
        if groups is not None:
            groups.ended(pid)

    for number in range(tasks):
        actions = [(os.POSIX_SPAWN_OPEN, 1, f"{folder}/{number}", flags, 0o644), (os.POSIX_SPAWN_DUP2, 1, 2)]
        if groups is not None:
            groups.make(number)
        pid = os.posix_spawn(path, ["true"], ENV, file_actions=actions, setsid=True, setsigdef=[signal.SIGPIPE])
        if groups is not None:
            groups.started(number, pid)
        running += 1
        if running == width:
            one_ends()
            running -= 1
    while running:
        one_ends()
        running -= 1
    return tasks / (time.monotonic() - began)


if __name__ == "__main__":
    from protocol import arguments, tell, timed

    mode, count, workers, directory = arguments()
    groups = Groups() if mode == "isolated" else None
    found = timed(lambda: bare(directory / "out", count, workers, groups), count)
    if groups is not None:
        groups.pool.close()
    tell(found)
