"""Reading /proc: who is alive, whose child it is, which attempt marked it."""

from __future__ import annotations

import os
import signal

from .system import now, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MARK = "JARVIS_SUPERVISED"
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Process:
    """One line of the process table."""

    __slots__ = ("parent", "pid", "rss", "session", "start", "state")

    def __init__(self, pid: int, stat: str) -> None:
        fields = stat[stat.rindex(")") + 2 :].split()
        self.pid = pid
        self.state = fields[0]
        self.parent = int(fields[1])
        self.session = int(fields[3])
        self.start = int(fields[19]) / TICKS  # seconds since boot, in steps of a tick
        self.rss = int(fields[21]) * PAGE

    @property
    def alive(self) -> bool:
        """Zombies hold nothing but a number."""
        return self.state not in "ZX"


def look(pid: int) -> Process | None:
    """One process, or None when it is gone."""
    stat = read_text(f"/proc/{pid}/stat")
    return Process(pid, stat) if stat else None


class Table:
    """All processes at one moment, and who descends from whom."""

    def __init__(self) -> None:
        self.taken = now()
        self.all: dict[int, Process] = {}
        self.children: dict[int, list[int]] = {}
        for name in os.listdir("/proc"):
            if name.isdigit() and (process := look(int(name))) is not None:
                self.all[process.pid] = process
                self.children.setdefault(process.parent, []).append(process.pid)

    def descendants(self, roots: Iterable[int]) -> set[int]:
        """The roots that exist and everything below them."""
        found: set[int] = set()
        waiting = [pid for pid in roots if pid in self.all]
        while waiting:
            pid = waiting.pop()
            if pid not in found:
                found.add(pid)
                waiting.extend(self.children.get(pid, ()))
        return found

    def session(self, leader: int) -> set[int]:
        """Members of a session, which may hold many process groups."""
        return {process.pid for process in self.all.values() if process.session == leader}

    def marked(self, mark: str) -> dict[int, str]:
        """Processes whose first environment carries a mark that starts with `mark`, with the rest of the mark."""
        found = {}
        for pid in self.all:
            rest = mark_of(pid, mark)
            if rest is not None:
                found[pid] = rest
        return found


class Tables:
    """Shares one scan among those who ask within a few milliseconds; a mass cancel would scan for each."""

    def __init__(self, fresh_for: float = 0.01) -> None:
        self.fresh_for = fresh_for
        self._table: Table | None = None

    def get(self) -> Table:
        """A table at most `fresh_for` seconds old."""
        if self._table is None or now() - self._table.taken > self.fresh_for:
            self._table = Table()
        return self._table


def mark_of(pid: int, prefix: str) -> str | None:
    """What follows `prefix` in the mark of a process; None without such a mark or when it may not be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            data = b"\0" + (file.read(1 << 20) or b"")
    except OSError:
        return None
    key = f"\0{MARK}={prefix}".encode()
    at = data.find(key)
    return None if at < 0 else data[at + len(key) :].split(b"\0", 1)[0].decode(errors="replace")


class OwnChildren:
    """Process ids of our children, adopted orphans and zombies included. The file stays open: every end reads it."""

    def __init__(self) -> None:
        me = os.getpid()
        try:
            self._fd = os.open(f"/proc/{me}/task/{me}/children", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # a kernel without this file
            self._fd = -1

    def read(self) -> list[int]:
        """All of them, now."""
        if self._fd < 0:
            return [process.pid for process in Table().all.values() if process.parent == os.getpid()]
        data = part = os.pread(self._fd, 4096, 0)
        while len(part) >= 4000:  # the kernel hands a long list out in pages
            part = os.pread(self._fd, 4096, len(data))
            data += part
        return [int(pid) for pid in data.split()]


def kill_exactly(process: Process, signum: int = signal.SIGKILL) -> bool:
    """Signal this very process, not another that got its number meanwhile. True when it was there."""
    try:
        fd = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        seen = look(process.pid)
        if seen is None or seen.start != process.start:
            return False
        signal.pidfd_send_signal(fd, signum)
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
