"""A control group of memory: what all processes take that are started in it, and those that they start."""

import contextlib
import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path("/sys/fs/cgroup")
LOOK_S = 0.2


class MemoryGroup:
    """``within`` begins the command of what is to run in it. ``peak``: bytes of the processes' own memory, the most that was
    seen; pages that the kernel keeps of files are not in it, which go when somebody needs the memory."""

    def __init__(self, path: Path) -> None:
        self.path, self.peak = path, 0
        self.within = ["sh", "-c", f'echo $$ > {path}/cgroup.procs; exec "$@"', "sh"]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(LOOK_S):
            self.peak = max(self.peak, self._own())

    def _own(self) -> int:
        stat = dict(line.split() for line in (self.path / "memory.stat").read_text().splitlines())
        if "total_rss" in stat:
            return int(stat["total_rss"]) + int(stat["total_shmem"])
        return int(stat["anon"]) + int(stat["shmem"])

    @property
    def killed(self) -> int:
        """How many processes the kernel ended because the group was full."""
        file = self.path / ("memory.oom_control" if (self.path / "memory.oom_control").exists() else "memory.events")
        return int(dict(line.split() for line in file.read_text().splitlines())["oom_kill"])

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        for inner in sorted(self.path.glob("**/"), key=lambda path: -len(path.parts)):
            with contextlib.suppress(OSError):
                inner.rmdir()


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[MemoryGroup]:
    """A fresh one with at most ``limit`` bytes, the kernel's pages of files included."""
    version_1 = (ROOT / "memory").is_dir()
    path = (ROOT / "memory" if version_1 else ROOT) / f"jvtest-{uuid.uuid4().hex[:12]}"
    try:
        path.mkdir()
        (path / ("memory.limit_in_bytes" if version_1 else "memory.max")).write_text(str(limit))
    except OSError as error:
        with contextlib.suppress(OSError):
            path.rmdir()
        if os.environ.get("CI"):
            pytest.fail(f"no control group of memory can be made: {error}")
        pytest.skip(f"no control group of memory can be made: {error}")
    made = MemoryGroup(path)
    try:
        yield made
    finally:
        made.close()
