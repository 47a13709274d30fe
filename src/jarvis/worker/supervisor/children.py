"""The parent of all tasks: starts attempts, reaps everything, and lets no process outlive its attempt."""

from __future__ import annotations

import os
from collections import deque

from . import attempts as records
from .attempts import ENDED, QUEUED, RUNNING, STARTING, SWEEPING, Attempt, start_message
from .journal import end_record, life
from .loop import NEVER, READ, guarded
from .orders import Order
from .processes import OwnChildren, Tables, look, mark_of
from .protocol import QUEUED_LIMIT, UNACKED_LIMIT, encode
from .spawn import Files, NoDescriptors, Spawned, SpawnError, lacks_descriptors, open_files, spawn
from .streams import Stream, Viewers
from .system import close, now

TYPE_CHECKING = False
if TYPE_CHECKING:
    import resource
    from collections.abc import Callable, Iterable

    from .cgroups import Pool
    from .journal import Journal, Past, Record
    from .loop import Loop
    from .protocol import Message

SWEEP_EVERY = 0.02
SWEEP_FOR = 5.0
AGENT = "agent"


class Helper:
    """A child that is not an attempt's main process: an `exec` inside an attempt, or the agent."""

    def __init__(self, owner: int | str, ended: Callable[[int], None]) -> None:
        self.owner = owner
        self.ended = ended


class Children:
    """All attempts by number, all processes by pid, lanes of queued ones."""

    def __init__(self, loop: Loop, journal: Journal, past: Past, pool: Pool | None) -> None:
        self.loop, self.journal, self.pool = loop, journal, pool
        self.identity, self.acked = past.life, past.acked
        self.attempts: dict[int, Attempt] = {}
        self.mains: dict[int, Attempt] = {}
        self.helpers: dict[int, Helper] = {}
        self.owners: dict[int, int | str | None] = {}  # adopted orphans and whose they are
        self.sweeping: set[int] = set()
        self.lanes: dict[str | int, deque[Attempt]] = {}
        self.lane_busy: dict[str | int, int] = {}
        self.advancing: set[str | int] = set()  # lanes whose next one is about to begin
        self.tables = Tables()
        self.own = OwnChildren()
        self.viewers = Viewers()
        self.report: Callable[[Message | str], None] = lambda message: None
        self.report_start: Callable[[Attempt], None] = lambda attempt: None
        self.report_end: Callable[[int, str], None] = lambda number, message: None
        self.on_watched: Callable[[], None] = lambda: None  # somebody's memory or output must be looked at
        self.fence_closed: Callable[[], bool] = lambda: False
        self.stopping = False
        self.due = NEVER

    # --- starting -----------------------------------------------------------------------------------------------------

    def start(self, message: Message) -> None:
        """Run it, unless this number was seen before: then say again what became of it."""
        number = message.get("number")
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            error = "number is not a natural number"
            self.report({"op": "refused", "number": number, "reason": "malformed", "error": error})
            return
        known = self.attempts.get(number)
        if known is not None:
            self._say_again(known)
            return
        reason = self._why_not(number)
        if reason:
            self.report({"op": "refused", "number": number, "reason": reason})
            return
        try:
            order = Order(message)
        except ValueError as error:
            self._fail_unrecorded(number, f"bad start: {error}")
            return
        self._admit(Attempt(number, order.tag), order)

    def _why_not(self, number: int) -> str:
        if number < self.acked.floor:
            return "below_floor"
        if number in self.acked:
            return "acked"
        if self.stopping:
            return "stopping"
        return "too_many_unacked" if len(self.attempts) + self.acked.ranges >= UNACKED_LIMIT else ""

    def _say_again(self, attempt: Attempt) -> None:
        if attempt.end is not None:
            self.report(end_message(attempt.number, attempt.end))
        elif attempt.state == QUEUED:
            self.report({"op": "queued", "number": attempt.number})
        elif attempt.state != STARTING:
            self.report(start_message(attempt))

    def _fail_unrecorded(self, number: int, error: str, **more: bool) -> None:
        report = {"op": "start_failed", "number": number, "code": 125, "error": error, "recorded": False}
        self.report({**report, **more})

    def _admit(self, attempt: Attempt, order: Order) -> None:
        attempt.prepare(order)
        if order.slot is None or order.slot not in self.lane_busy:
            self._begin(attempt, order)
            return
        lane = self.lanes.setdefault(order.slot, deque())
        if len(lane) >= QUEUED_LIMIT:
            self.report({"op": "refused", "number": attempt.number, "reason": "lane_full"})
            return
        attempt.order = order
        self.attempts[attempt.number] = attempt
        lane.append(attempt)

    def _begin(self, attempt: Attempt, order: Order) -> None:
        """Journal first, spawn second: after a crash in between, the number counts as lost, never as unknown."""
        if order.fence and self.fence_closed():
            self._give_back(attempt, "the leader was not heard of lately", fenced=True)
            return
        try:
            files = self._open(order)
        except NoDescriptors as error:
            self._give_back(attempt, str(error))
            return
        began = now()
        try:
            self.journal.write(start_record(attempt, began))
        except OSError as error:
            if isinstance(files, Files):
                files.close_all()
            self._give_back(attempt, f"journal: {error.strerror}")
            return
        self.attempts[attempt.number] = attempt
        if attempt.lane is not None:
            self.lane_busy[attempt.lane] = attempt.number
        try:
            if isinstance(files, SpawnError):
                raise files
            self._launch(attempt, order, files, began)
        except SpawnError as error:
            self._failed_to_start(attempt, error.code, str(error))

    def _open(self, order: Order) -> Files | SpawnError:
        """What the child gets. Why it gets nothing is its end, which follows its start; without a descriptor it has neither."""
        if order.holds_descriptors and lacks_descriptors():
            raise NoDescriptors
        try:
            return open_files(order)
        except NoDescriptors:
            raise
        except SpawnError as error:
            return error

    def _give_back(self, attempt: Attempt, error: str, **more: bool) -> None:
        """The order was good and nothing is known of the number, so it may be given once more."""
        self.attempts.pop(attempt.number, None)
        self._fail_unrecorded(attempt.number, error, again=True, **more)
        if attempt.lane is not None:
            self._next_in_lane(attempt.lane)

    def _launch(self, attempt: Attempt, order: Order, files: Files, began: float) -> None:
        attempt.out_base = self._base(files.child[1], order) if files.master < 0 else 0
        attempt.err_base = records.size_of(order.stderr) if order.append else 0
        try:
            self._take_slot(attempt, order)
            env = records.environment(order, self.identity, attempt.number)
            spawned = spawn(order, env, files, attempt.slot)
        except SpawnError:
            files.close_all()
            raise
        except OSError as error:
            files.close_all()
            raise SpawnError(125, f"limits: {error}") from None
        files.close_child_ends()
        self._running(attempt, order, files, spawned, began)

    def _running(self, attempt: Attempt, order: Order, files: Files, spawned: Spawned, began: float) -> None:
        attempt.pid, attempt.errors = pid, errors = spawned.pid, spawned.errors
        attempt.set_clocks(order)
        self.mains[pid] = attempt
        self.journal.note(f'{{"t":"pid","n":{attempt.number},"pid":{pid},"at":{began:.3f}}}')
        if attempt.memory is not None or attempt.output_limit is not None:
            self.on_watched()
        self.due = min(self.due, attempt.due)
        self._connect(attempt, order, files)
        if errors < 0:
            attempt.state = RUNNING
            self.report_start(attempt)
        else:
            attempt.state = STARTING
            self.watch_errors(attempt)

    def _take_slot(self, attempt: Attempt, order: Order) -> None:
        if not order.grouped:
            return
        if self.pool is not None:
            lacking = self.pool.lacks(order)
            attempt.slot = self.pool.take(order)
        else:
            lacking = ["pids"] if order.pids_max else []  # a share of CPU is a wish; memory has the watchdog
        if lacking:
            raise SpawnError(125, f"this node cannot limit {', '.join(lacking)}: no control groups")

    def _base(self, fd: int, order: Order) -> int:
        if not order.append:
            return 0
        return os.fstat(fd).st_size if fd >= 0 else records.size_of(order.stdout)

    def _connect(self, attempt: Attempt, order: Order, files: Files) -> None:
        if files.master >= 0:
            attempt.terminal_bytes = 0
            attempt.stream = Stream(self.loop, files.master, files.master, files.tee)
            attempt.stream.count = attempt.count_terminal
        elif files.stdin >= 0:
            attempt.stream = Stream(self.loop, files.stdin, -1)
        if attempt.stream is not None:
            self.viewers.add(attempt.stream)

    def watch_errors(self, attempt: Attempt) -> None:
        """Wait for the word of a trampoline without blocking: its directory may lie on a dead file server."""
        self.loop.watch(attempt.errors, READ, lambda mask: self._read_errors(attempt))

    def _read_errors(self, attempt: Attempt) -> None:
        """The trampoline reached exec (end of file), or says why it did not."""
        try:
            text = os.read(attempt.errors, 4096).decode(errors="replace")
        except BlockingIOError:
            return
        self.loop.forget(attempt.errors)
        close(attempt.errors)
        attempt.errors = -1
        if text:
            code, _, error = text.partition(" ")
            attempt.end = start_failure(int(code), error)
        elif attempt.state == STARTING:
            attempt.state = RUNNING
            self.report_start(attempt)

    def _failed_to_start(self, attempt: Attempt, code: int, error: str) -> None:
        attempt.end = start_failure(code, error)
        self._finish(attempt)

    # --- reaping ------------------------------------------------------------------------------------------------------

    def reap(self) -> None:
        """Take every exit there is, then see which attempts are over for good."""
        reaped = False
        while True:
            try:
                pid, status, used = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            reaped = True
            self._exited(pid, status, used)
        if reaped or self.sweeping:
            self.sweep()

    def _exited(self, pid: int, status: int, used: resource.struct_rusage) -> None:
        attempt = self.mains.pop(pid, None)
        helper = self.helpers.pop(pid, None)
        if attempt is not None:
            self._main_ended(attempt, status, used)
        elif helper is not None:
            guarded(helper.ended, status)
        else:
            self.owners.pop(pid, None)

    def _main_ended(self, attempt: Attempt, status: int, used: resource.struct_rusage) -> None:
        if attempt.errors >= 0:
            self._read_errors(attempt)
        moment = now()
        attempt.wall = moment - attempt.began
        attempt.status, attempt.usage = status, records.usage_of(used)
        attempt.state = SWEEPING
        attempt.sweep_until = moment + SWEEP_FOR
        attempt.kill_at = NEVER
        self.sweeping.add(attempt.number)

    def sweep(self) -> None:
        """End the attempts whose last process is gone; kill what remains of the others. What a dead process leaves is
        re-parented to us before we can reap it, so our own children are the only place to look besides the group."""
        if not self.sweeping:
            return
        remaining = self._remains()
        for number in sorted(self.sweeping):
            attempt = self.attempts[number]
            grouped = attempt.slot is not None and bool(attempt.slot.members())
            if not remaining.get(number) and not grouped:
                self._finish(attempt)
            elif now() > attempt.sweep_until:
                attempt.kill_cause = attempt.kill_cause or "processes left behind could not be killed"
                self._finish(attempt, empty=not grouped)
            else:
                self._kill_remains(attempt, remaining.get(number, ()))

    def _remains(self) -> dict[int, list[int]]:
        """Living processes by the sweeping attempt that they belong to."""
        found: dict[int, list[int]] = {}
        for pid in self.own.read():
            if pid in self.mains:
                continue
            helper = self.helpers.get(pid)
            owner = helper.owner if helper else self.owner_of(pid)
            if isinstance(owner, int) and owner in self.sweeping:
                found.setdefault(owner, []).append(pid)
        return found

    def owner_of(self, pid: int) -> int | str | None:
        """Whose an adopted orphan is: by its session, by its mark, else by when it was born."""
        owner = self.owners.get(pid)
        if owner is None:
            process = look(pid)
            if process is None or not process.alive:
                return None
            owner = self._by_session(process.session)
            if owner is None:
                owner = self._by_mark(pid)
            if owner is None:
                return self._by_birth(process.start)
            self.owners[pid] = owner
        return owner

    def _by_session(self, session: int) -> int | None:
        attempt = self.mains.get(session)
        if attempt is not None:
            return attempt.number
        return next((n for n in self.sweeping if self.attempts[n].pid == session), None)

    def _by_mark(self, pid: int) -> int | str | None:
        mark = mark_of(pid, f"{self.identity}.")
        if mark is None:
            return None
        return int(mark) if mark.isdigit() else mark

    def _by_birth(self, start: float) -> int | None:
        """A stray without mark or known session dies with the last attempt that can have made it."""
        makers = [n for n in self.sweeping if self.attempts[n].began <= start + 0.02]
        others = any(attempt.began <= start + 0.02 for attempt in self.mains.values())
        return min(makers) if makers and not others else None

    def _kill_remains(self, attempt: Attempt, pids: Iterable[int]) -> None:
        if attempt.slot is not None:
            attempt.slot.kill()
        for pid in pids:  # our own unreaped children: these numbers cannot have been reused
            try:
                os.kill(pid, 9)
            except OSError:
                pass
        attempt.kill_at = now() + SWEEP_EVERY
        self.due = min(self.due, attempt.kill_at)

    # --- ending -------------------------------------------------------------------------------------------------------

    def _finish(self, attempt: Attempt, empty: bool = True) -> None:
        """All is quiet: write the end down, give back what it held, start the next in its lane. `empty`: its group is."""
        self.sweeping.discard(attempt.number)
        if attempt.stream is not None:
            attempt.stream.close()
            attempt.stream = None
        if attempt.end is None:
            attempt.end = records.report_of(attempt)
        attempt.state = ENDED
        self.journal.note(end_record(attempt.number, attempt.end))
        if attempt.slot is not None and self.pool is not None:
            self.pool.give(attempt.slot, empty)
            attempt.slot = None
        self.report_end(attempt.number, end_message(attempt.number, attempt.end))
        if attempt.lane is not None:
            self._next_in_lane(attempt.lane)

    def _next_in_lane(self, lane: str | int) -> None:
        """Begin the next that waits there; when it cannot begin, the one after it."""
        self.lane_busy.pop(lane, None)
        if lane in self.advancing:  # it failed at once: the loop below goes on
            return
        self.advancing.add(lane)
        while lane not in self.lane_busy and self.lanes.get(lane):
            attempt = self.lanes[lane].popleft()
            order, attempt.order = attempt.order, None
            assert order is not None
            self._begin(attempt, order)
        self.advancing.discard(lane)
        if not self.lanes.get(lane):
            self.lanes.pop(lane, None)

    def recall(self, numbers: Iterable[int]) -> list[int]:
        """Take back those of `numbers` that wait in a lane; they never ran and leave no trace."""
        taken = []
        for number in numbers:
            attempt = self.attempts.get(number)
            if attempt is not None and attempt.state == QUEUED and attempt.lane is not None:
                self.lanes[attempt.lane].remove(attempt)
                del self.attempts[number]
                taken.append(number)
        return taken

    def ack(self, numbers: Iterable[int], floor: int | None) -> None:
        """Forget ends that the agent has safely handed on; refuse all below `floor` from now on."""
        ended = [n for n in numbers if n in self.attempts and self.attempts[n].state == ENDED]
        for number in ended:
            del self.attempts[number]
        self.acked.add(ended)
        if floor is not None:
            self.acked.raise_floor(floor)
        self.journal.note({"t": "ack", "ns": ended, "floor": floor})
        if self.journal.size > self.journal.compact_at:
            self.journal.rewrite(self.records())

    def records(self) -> Iterable[Record | str]:
        """What a compact journal holds."""
        yield life(self.identity, self.acked)
        for attempt in self.attempts.values():
            if attempt.state != QUEUED:
                yield start_record(attempt, attempt.began)
                if attempt.end is not None:
                    yield end_record(attempt.number, attempt.end)
                else:
                    yield {"t": "pid", "n": attempt.number, "pid": attempt.pid, "at": round(attempt.began, 3)}

    @property
    def busy(self) -> bool:
        """Whether tasks share the CPU with us now. Services sit there all day and do not count."""
        return bool(self.sweeping or self.lanes) or any(not attempt.service for attempt in self.mains.values())

    def living(self) -> list[Attempt]:
        """Attempts with processes."""
        return [*self.mains.values(), *(self.attempts[number] for number in self.sweeping)]


_START_FAILED = '{"start_failed":true,'


def start_failure(code: int, error: str) -> str:
    """The end of an attempt that never ran its program: its JSON."""
    return f'{_START_FAILED}"code":{code},"error":{encode(error)},"recorded":true}}'


def start_record(attempt: Attempt, moment: float) -> str:
    """The journal's line before a spawn; written by hand, as all that every attempt causes."""
    return f'{{"t":"start","n":{attempt.number},"tag":{encode(attempt.tag)},"at":{moment:.3f}}}'


def end_message(number: int, end: str) -> str:
    """How an end is reported; `end` is its JSON, which the journal got too."""
    op = "start_failed" if end.startswith(_START_FAILED) else "ended"
    return f'{{"op":"{op}","number":{number},{end[1:]}'
