"""Simulated agents in a process of their own, as tests see it."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.e2e.cluster.harness import wait_for

ROOT = Path(__file__).resolve().parents[2]


class Pool:
    """Agents of ``tests.chaos.swarm``, which join any server of some state directories; ``figures``: the last line that it printed.

    ``cpus`` of each; ``ledger``: where each attempt is written down; ``name``: what the names of the nodes begin with.
    """

    def __init__(
        self, directories: list[Path], count: int, *, cpus: int | None = None, ledger: Path | None = None, name: str = "sim"
    ) -> None:  # fmt: skip
        self.figures: dict[str, int] = {"connected": 0}
        words = ["-m", "tests.chaos.swarm", ":".join(map(str, directories)), str(count), "--name", name]
        words += [] if cpus is None else ["--cpus", str(cpus)]
        words += [] if ledger is None else ["--ledger", str(ledger)]
        self._process = subprocess.Popen(
            [sys.executable, *words], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.figures = json.loads(line)

    def until(self, connected: int, patience: float) -> float:
        """Seconds until so many are connected."""
        begun = time.monotonic()
        wait_for(lambda: self.figures["connected"] == connected, f"{connected} of {self.figures} connected", patience)
        return time.monotonic() - begun

    def kill(self) -> None:
        """All of its nodes at once, as when their power goes."""
        self._process.kill()
        self.end()

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        finally:
            self._process.kill()
            self._process.wait(30)
            self._thread.join(10)
            self._process.stdout.close()
