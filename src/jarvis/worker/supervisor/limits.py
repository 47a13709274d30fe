"""Ending what must end: deadlines, kills and signals by request, memory and output limits."""

from __future__ import annotations

import os
import signal

from .attempts import QUEUED, RUNNING, STARTING, SWEEPING, Attempt, size_of
from .loop import NEVER
from .processes import Table, kill_exactly
from .system import now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .children import Children

CHECK_EVERY = 0.25
RETRY_KILL = 0.1


class Limits:
    """Acts on the attempts of `children`. A pass over the living is made only when something is due."""

    def __init__(self, children: Children) -> None:
        self.children = children
        self.check_at = NEVER
        children.on_watched = self.plan_check

    @property
    def due(self) -> float:
        """The next deadline of any attempt, or the next look at memory and output."""
        return min(self.children.due, self.check_at)

    def on_due(self, moment: float) -> None:
        """Handle what is due and find out what is next."""
        if self.children.due <= moment:
            self._pass_deadlines(moment)
        if self.check_at <= moment:
            self._check_use()

    def plan_check(self) -> None:
        """Look at memory and output soon; this goes on at intervals while a living attempt has a limit on them."""
        if self.check_at == NEVER:
            self.check_at = now() + CHECK_EVERY

    def _pass_deadlines(self, moment: float) -> None:
        swept = False
        for attempt in self.children.living():
            if attempt.due <= moment:
                swept = swept or attempt.state == SWEEPING
                self._deadline(attempt, moment)
        if swept:
            self.children.sweep()
        self.children.due = min((attempt.due for attempt in self.children.living()), default=NEVER)

    def _deadline(self, attempt: Attempt, moment: float) -> None:
        if attempt.state == SWEEPING:
            attempt.kill_at = moment + RETRY_KILL
        elif attempt.kill_at <= moment:
            self.kill_hard(attempt)
        elif attempt.deadline <= moment:
            self.end(attempt, "timeout", None, attempt.grace)
        elif attempt.soft_deadline <= moment:
            attempt.soft_deadline = NEVER
            self.signal_session(attempt, attempt.soft_signal)

    def end(self, attempt: Attempt, doom: str, kill_cause: str | None, grace: float) -> None:
        """Ask it to stop, and make it stop after `grace`. The first reason stays; a later, shorter grace counts."""
        first = not attempt.doom
        if first:
            attempt.doom, attempt.kill_cause = doom, kill_cause
        attempt.kill_at = min(attempt.kill_at, now() + grace)
        if grace <= 0:
            self.kill_hard(attempt)
        elif first:
            self.signal_session(attempt, signal.SIGTERM)
            self.signal_session(attempt, signal.SIGCONT)  # a stopped process cannot obey
        self.children.due = min(self.children.due, attempt.kill_at)

    def kill(self, number: int, cause: str, grace: float) -> bool:
        """End an attempt by request. False when there is nothing (left) to kill."""
        attempt = self.children.attempts.get(number)
        if attempt is None or attempt.state not in (STARTING, RUNNING):
            return False
        self.end(attempt, "killed", cause, grace)
        return True

    def signal(self, number: int, signum: int) -> bool:
        """Send a signal to the whole session of an attempt."""
        attempt = self.children.attempts.get(number)
        if attempt is None or attempt.state != RUNNING:
            return False
        self.signal_session(attempt, signum)
        return True

    def signal_session(self, attempt: Attempt, signum: int) -> None:
        """Signal the main process's group, and other groups of its session (a shell with jobs has many)."""
        try:
            os.killpg(attempt.pid, signum)
        except OSError:  # no group yet: the trampoline is before setsid
            os.kill(attempt.pid, signum)
        table = self.children.tables.get()
        for pid in table.session(attempt.pid):
            if _group(pid) not in (attempt.pid, None):
                kill_exactly(table.all[pid], signum)

    def kill_hard(self, attempt: Attempt) -> None:
        """SIGKILL to everything that belongs to it, wherever it hid. Repeated until the main process is reaped."""
        if attempt.slot is not None:
            attempt.slot.kill()
        table = self.children.tables.get()
        for pid in self._members(attempt, table):
            kill_exactly(table.all[pid])
        try:
            os.kill(attempt.pid, signal.SIGKILL)
        except OSError:
            pass
        attempt.kill_at = now() + RETRY_KILL

    def _members(self, attempt: Attempt, table: Table) -> set[int]:
        mark = f"{self.children.identity}.{attempt.number}"
        marked = {pid for pid, rest in table.marked(mark).items() if not rest}
        owned = {pid for pid, owner in self.children.owners.items() if owner == attempt.number}
        helpers = {pid for pid, helper in self.children.helpers.items() if helper.owner == attempt.number}
        roots = {attempt.pid} | table.session(attempt.pid) | marked | owned | helpers
        return table.descendants(roots)

    def kill_all(self, cause: str, grace: float | None) -> None:
        """End every attempt; `grace` None means each one's own."""
        for attempt in list(self.children.attempts.values()):
            if attempt.state == QUEUED:
                self.children.recall([attempt.number])
        for attempt in list(self.children.mains.values()):
            self.end(attempt, "killed", cause, attempt.grace if grace is None else grace)

    def _check_use(self) -> None:
        self.check_at = NEVER
        watched = [attempt for attempt in self.children.mains.values() if _watched(attempt) and not attempt.doom]
        hungry = [attempt for attempt in watched if attempt.memory and not _counted(attempt)]
        table = Table() if hungry else None
        for attempt in hungry:
            assert table is not None
            assert attempt.memory is not None
            if self._resident(attempt, table) > attempt.memory:
                self.end(attempt, "oom", f"used more than {attempt.memory} bytes of memory", 0)
        for attempt in watched:
            self._check_one(attempt)
        if watched:
            self.plan_check()

    def _resident(self, attempt: Attempt, table: Table) -> int:
        """Resident memory of the whole attempt; shared pages count for each that maps them."""
        owned = {pid for pid, owner in self.children.owners.items() if owner == attempt.number}
        members = table.descendants({attempt.pid} | table.session(attempt.pid) | owned)
        return sum(table.all[pid].rss for pid in members)

    def _check_one(self, attempt: Attempt) -> None:
        if attempt.slot is not None and attempt.slot.oom_seen():
            self.end(attempt, "oom", None, 0)
        limit = attempt.output_limit
        if limit is not None and _written(attempt) > limit:
            self.end(attempt, "output_limit", f"wrote more than {limit} bytes", attempt.grace)


def _counted(attempt: Attempt) -> bool:
    """Whether a control group enforces its memory."""
    return attempt.slot is not None and attempt.slot.counts_memory


def _watched(attempt: Attempt) -> bool:
    return attempt.memory is not None or attempt.output_limit is not None


def _written(attempt: Attempt) -> int:
    if attempt.terminal_bytes is not None:
        return attempt.terminal_bytes
    err = size_of(attempt.stderr) - attempt.err_base if attempt.stderr else 0
    return max(size_of(attempt.stdout) - attempt.out_base, err)


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except OSError:
        return None
