"""Keeps the agent running: starts it, writes its log, starts it again after a pause when it dies."""

from __future__ import annotations

import os
import signal

from .children import AGENT, Children, Helper
from .loop import NEVER
from .processes import MARK
from .spawn import DEFAULTED_SIGNALS
from .system import log, now

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
LIVED_WELL = 10.0
LOG_LIMIT = 10 << 20
LOG_CHECK = 10.0


class AgentProcess:
    """One agent at a time. Stopping it is final."""

    def __init__(self, children: Children, argv: list[str], directory: str) -> None:
        self.children, self.argv, self.directory = children, argv, directory
        self.log_path = f"{directory}/agent.log"
        self.pid = 0
        self.began = 0.0
        self.pause = FIRST_PAUSE
        self.stopping = False
        self.due = now()

    def on_due(self, moment: float) -> None:
        """Start it, or look after its log."""
        if self.stopping:
            self.due = NEVER
        elif self.pid == 0:
            self._start()
        else:
            self._rotate()
            self.due = moment + LOG_CHECK

    def _start(self) -> None:
        self._rotate()
        self.began = now()
        try:
            self.pid = self._spawn()
        except OSError as error:
            log(f"agent: {self.argv[0]}: {error}")
            self._pause()
            return
        self.adopt(self.pid)
        self.due = now() + LOG_CHECK

    def _spawn(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        env = {**os.environ, MARK: f"{self.children.identity}.{AGENT}"}
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, self.log_path, flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        return os.posix_spawnp(
            self.argv[0], self.argv, env, file_actions=actions, setsid=True, setsigdef=DEFAULTED_SIGNALS, setsigmask=()
        )

    def adopt(self, pid: int) -> None:
        """Watch over this process as the agent (an upgrade keeps it)."""
        self.pid = pid
        self.children.helpers[pid] = Helper(AGENT, self._ended)

    def _ended(self, status: int) -> None:
        log(f"agent {self.pid} ended: {os.waitstatus_to_exitcode(status)}")
        self.pid = 0
        if now() - self.began > LIVED_WELL:
            self.pause = FIRST_PAUSE
        self._pause()

    def _pause(self) -> None:
        self.due = now() + self.pause
        self.pause = min(2 * self.pause, LONGEST_PAUSE)

    def stop(self, signum: int = signal.SIGTERM) -> None:
        """Ask it to end and do not start another."""
        self.stopping = True
        if self.pid:
            try:
                os.kill(self.pid, signum)
            except OSError:
                pass

    def _rotate(self) -> None:
        """Keep one old log. The agent appends through an fd of its own, so a running one's log is copied, then cut."""
        try:
            if os.stat(self.log_path).st_size > LOG_LIMIT:
                _copy_tail(self.log_path, self.log_path + ".1")
                os.truncate(self.log_path, 0)
        except OSError:
            pass


def _copy_tail(source: str, target: str) -> None:
    with open(source, "rb") as old, open(target, "wb") as new:
        old.seek(-LOG_LIMIT, os.SEEK_END)
        while data := old.read(1 << 20):
            new.write(data)
