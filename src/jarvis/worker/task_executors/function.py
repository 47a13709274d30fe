"""Functions: warm processes of one owner, environment and shape each, one call at a time; children of the supervisor."""

import asyncio
import contextlib
import time
from typing import Any

from jarvis.core.inputs import Ended
from jarvis.core.states import Cause
from jarvis.core.task import INLINE_LIMIT, FunctionCall
from jarvis.worker import function_protocol as protocol
from jarvis.worker import function_spool
from jarvis.worker.account import Accounts, NoSuchUser
from jarvis.worker.attempt_files import AttemptFiles
from jarvis.worker.call_ends import CallEnds
from jarvis.worker.function_bodies import NOTHING, Fetched, FunctionBodies
from jarvis.worker.function_ends import again, end_of_call, end_of_process, other_python, stub, work_of
from jarvis.worker.function_protocol import Call, Result, frame
from jarvis.worker.logs import INLINE, Shipper
from jarvis.worker.machine import Work, same_lane
from jarvis.worker.supervisor_client import SupervisorClient
from jarvis.worker.task_executor import FetchBlob, PutBlob, Reports, Spawn, cut, failed, lost
from jarvis.worker.warm import DEPTH, PYTHON, Launcher, Warm, remove_folder

IDLE_S = 120.0
IDLE_MOST = 32
STALLED_S = 0.1
"""Calls that waited this long behind another one are started elsewhere."""
ADOPT_S = 5.0
STOP_S = 0.3
REFILL = DEPTH // 2
"""Calls are handed ahead when no more than this are left: a few large pieces cost less than many small ones."""
CODES_EACH = 512
OVERHEAD_S = 20e-6


class FunctionExecutor:
    """See the port."""

    def __init__(
        self, supervisor: SupervisorClient, reports: Reports, shipper: Shipper, launcher: Launcher, accounts: Accounts,
        fetch: FetchBlob, put: PutBlob, spawn: Spawn, files: AttemptFiles,
    ) -> None:  # fmt: skip
        self._supervisor, self._reports, self._launcher, self._accounts = supervisor, reports, launcher, accounts
        self._bodies, self._spawn = FunctionBodies(fetch), spawn
        self._ends = CallEnds(launcher, accounts, shipper, put, files)
        self._warm: dict[int, Warm] = {}
        self._idle: list[Warm] = []
        self._by_call: dict[int, Warm] = {}
        self._unrecorded: dict[int, Warm] = {}
        self._acks: dict[int, tuple[Warm, list[int]]] = {}
        self._preparing: set[int] = set()
        self._stall_timer: asyncio.TimerHandle | None = None

    # ------------------------------------------------------------ starting

    def start(self, work: Work) -> None:
        call = work.spec.function
        assert call is not None
        if call.python != PYTHON:
            self._reports.finished(other_python(work, call, self._launcher.node))
        elif self._bodies.has(call) and not (work.spec.push or work.spec.artifacts):
            self._run(work, NOTHING)
        else:
            self._preparing.add(work.number)
            self._spawn(self._start_with_blobs(work, call), work)

    async def _start_with_blobs(self, work: Work, call: FunctionCall) -> None:
        try:
            fetched = await self._bodies.fetch(work.assignment.task, call)
            folder = await self._ends.begin(work)
        except (OSError, TimeoutError, NoSuchUser) as error:
            if work.number in self._preparing:
                self._preparing.discard(work.number)
                self._reports.finished(failed(work, f"code, arguments or files could not be fetched: {error}"))
            return
        if work.number in self._preparing:
            self._preparing.discard(work.number)
            self._run(work, fetched, folder)
        elif folder is not None:
            await self._ends.drop(folder)

    def _run(self, work: Work, fetched: Fetched, folder: str | None = None) -> None:
        try:
            warm = self._take(work, folder)
        except (NoSuchUser, OSError) as error:
            self._reports.finished(failed(work, f"node {self._launcher.node}: {error}"))
            return
        warm.like = warm.work = work
        self._give(warm, work, fetched)
        self._set_timer(warm)
        if warm.pace:
            self._fill(warm)
        warm.tell_soon(self._reports.started)

    def _take(self, work: Work, folder: str | None) -> Warm:
        """The last idle process of the same lane that holds the same GPUs, or a new one, in a ``folder`` that is there already."""
        for warm in reversed(self._idle) if folder is None else ():
            if warm.like is not None and warm.shares == work.shares and same_lane(warm.like, work):
                self._idle.remove(warm)
                return warm
        account = self._accounts.of(work.assignment.user)
        warm = self._launcher.launch(work, account, folder)
        self._warm[warm.number] = warm
        self._spawn(self._connect(warm))
        return warm

    def _give(self, warm: Warm, work: Work, fetched: Fetched) -> None:
        """Send a call after the stored results that it is given; the code of its function goes along the first time."""
        function = work.spec.function
        assert function is not None
        code = None
        if function.code not in warm.codes:
            code = self._bodies.code(function.code)
            warm.codes.add(function.code)
        warm.given += 1
        self._by_call[work.number] = warm
        warm.write(fetched.frames() + frame(protocol.CALL, Call(work.assignment, code, fetched.args)))

    def _fill(self, warm: Warm) -> None:
        """Hand calls ahead, as many as take a moment, so that the process never waits for the next."""
        function = warm.like.spec.function if warm.like else None
        if function is None or function.fresh or warm.work is None or warm.work.spec.push or warm.work.spec.artifacts:
            return
        room = min(DEPTH, int(0.05 / max(warm.pace, 1e-6))) - len(warm.queue)
        if function.max_calls is not None:
            room = min(room, function.max_calls - warm.given)
        if room <= 0 or len(warm.queue) > REFILL or len(warm.codes) > CODES_EACH or warm.killing is not None:
            return
        assert warm.like is not None
        refused = []
        for work in self._reports.ahead(warm.like, room):
            call = work.spec.function
            if call is not None and self._bodies.has(call):
                warm.queue[work.number] = work
                self._give(warm, work, NOTHING)
            else:
                refused.append(work)
        if refused:  # it needs bodies first: that is done when it starts by itself
            self._reports.withdrawn(refused)
        if warm.queue and self._stall_timer is None:
            self._watch_stalls()

    def _watch_stalls(self) -> None:
        self._stall_timer = asyncio.get_running_loop().call_later(STALLED_S / 2, self._check_stalls)

    def _check_stalls(self) -> None:
        self._stall_timer = None
        late = time.monotonic() - STALLED_S
        for warm in self._warm.values():
            if warm.queue and warm.heard < late:
                warm.pace = max(warm.pace, STALLED_S)
                warm.write(frame(protocol.WITHDRAW, list(warm.queue)))
        if any(warm.queue for warm in self._warm.values()):
            self._watch_stalls()

    def withdraw(self, work: Work) -> None:
        if (warm := self._by_call.get(work.number)) is not None:
            warm.write(frame(protocol.WITHDRAW, [work.number]))

    # ------------------------------------------------------------ talking to the process

    async def _connect(self, warm: Warm) -> None:
        try:
            await self._launcher.dial(warm, lambda data: self._received(warm, data), lambda: warm.number in self._warm)
        except TimeoutError:
            self._kill_process(warm, Cause.START_FAILED)
        except Exception:
            self._kill_process(warm, Cause.SUPERVISOR_LOST)  # nobody would hear it
            raise

    def _received(self, warm: Warm, data: bytes) -> None:
        results = []
        try:
            for kind, body in warm.frames.feed(data):
                if kind == protocol.RESULT:
                    results.append(protocol.decode_result(body))
                elif kind == protocol.WITHDRAWN:
                    self._withdrawn(warm, protocol.decode_numbers(body))
                elif kind == protocol.STATE:
                    self._state(warm, protocol.decode_state(body))
        except (protocol.FrameError, ValueError):  # the process belongs to a user: it may say anything
            self._kill_process(warm, Cause.EXIT)
            return
        if results:
            self._results(warm, results)

    def _results(self, warm: Warm, results: list[Result]) -> None:
        warm.heard = time.monotonic()
        some = False
        for result in results:
            if warm.replayed:
                self._replay(warm, result)
                continue
            cost = result.wall_s + OVERHEAD_S
            warm.pace = 0.8 * warm.pace + 0.2 * cost if warm.pace else cost
            some = self._result(warm, result) or some
        if some and warm.work is not None:
            self._fill(warm)
            warm.tell_soon(self._reports.started)

    def _withdrawn(self, warm: Warm, numbers: list[int]) -> None:
        works = [warm.queue.pop(number) for number in numbers if number in warm.queue]
        for work in works:
            warm.given -= 1
            self._by_call.pop(work.number, None)
        if warm.work is not None and warm.work.number in numbers:
            self._gave_back_current(warm, warm.work)
        if works:
            self._reports.withdrawn(works)

    def _gave_back_current(self, warm: Warm, work: Work) -> None:
        """It was given back between the end of the call before and its own begin."""
        warm.stop_timer()
        warm.given -= 1
        self._by_call.pop(work.number, None)
        heir = next(iter(warm.queue), None)
        warm.work = None if heir is None else warm.queue.pop(heir)
        if heir is None:
            self._rest(warm)
        self._reports.unbegun(work.number, heir)
        if heir is not None:
            self._set_timer(warm)

    # ------------------------------------------------------------ ends

    def _result(self, warm: Warm, result: Result) -> bool:
        """The process goes on with the next in its queue by itself, so that one holds the resources from now on."""
        work = warm.work
        if work is None or work.number != result.number or result.token != work.assignment.token:
            return False  # made up: the process belongs to a user
        warm.stop_timer()
        self._by_call.pop(work.number, None)
        heir = next(iter(warm.queue), None)
        warm.work = None if heir is None else warm.queue.pop(heir)
        if heir is None and warm.number in self._warm:
            self._rest(warm)  # before the end is told: what starts next may want this process
        self._settle(warm, work, result, heir)
        if warm.work is not None:
            self._set_timer(warm)
        return True

    def _settle(self, warm: Warm, work: Work, result: Result, heir: int | None) -> None:
        self._unrecorded[work.number] = warm
        warm.unrecorded.add(work.number)
        end = end_of_call(work, result)
        late = len(result.payload) > INLINE_LIMIT or result.log_end - result.log_start > INLINE
        if late or work.spec.artifacts:
            self._reports.vacated(work.number, heir)
            self._spawn(self._complete(warm, work, end, result), work)
        else:
            self._reports.finished(end, heir)

    async def _complete(self, warm: Warm, work: Work, end: Ended, result: Result | None) -> None:
        self._reports.finished(await self._ends.complete(warm, work, end, result))

    def _broke_off(self, warm: Warm, work: Work, report: dict[str, Any], found: function_spool.Found) -> None:
        """Its process ended in the middle of it; what it left by then is kept, too."""
        end = end_of_process(self._launcher.node, warm, work, report, found)
        if not self._ends.leaves_files(work, end):
            self._reports.finished(end)
            return
        self._unrecorded[work.number] = warm
        warm.unrecorded.add(work.number)
        self._reports.vacated(work.number, None)
        self._spawn(self._complete(warm, work, end, None), work)

    def _rest(self, warm: Warm) -> None:
        """Nothing to do: the process waits for the next call, unless it has had as many as it may."""
        assert warm.like is not None
        spec, function = warm.like.spec, warm.like.spec.function
        assert function is not None
        worn = function.max_calls is not None and warm.given >= function.max_calls
        if function.fresh or spec.push or spec.artifacts or worn or len(warm.codes) > CODES_EACH:
            self._kill_process(warm, None)
            return
        warm.idle_since = time.monotonic()
        self._idle.append(warm)
        if len(self._idle) > IDLE_MOST:
            self._kill_process(self._idle.pop(0), None)

    def end_idle(self) -> None:
        """Processes that nobody needed for a while make room."""
        for warm in [warm for warm in self._idle if time.monotonic() - warm.idle_since > IDLE_S]:
            self._idle.remove(warm)
            self._kill_process(warm, None)

    # ------------------------------------------------------------ killing

    def kill(self, work: Work, cause: Cause, grace_s: float) -> None:
        """The process is ended with the call in it; what it leaves is the end of that call alone. The process itself
        looks whether the call still runs: a kill from outside could hit the next one."""
        if work.number in self._preparing:
            self._preparing.discard(work.number)
            self._reports.finished(cut(work, cause, "stopped before it started"))
            return
        if (warm := self._by_call.get(work.number)) is None:
            return
        warm.killing = (work.number, cause)
        warm.write(frame(protocol.STOP, [work.number]))
        asyncio.get_running_loop().call_later(STOP_S, self._kill_if_still, warm, work, cause)

    def _kill_if_still(self, warm: Warm, work: Work, cause: Cause) -> None:
        if warm.work is work and warm.number in self._warm:
            self._kill_process(warm, cause)

    def broke(self, work: Work, message: str) -> None:
        """Where a process has it, or was about to, that one ends, and its end is that of the call."""
        self._preparing.discard(work.number)
        warm = next((warm for warm in self._warm.values() if warm.work is work), None)
        if warm is None:
            self._reports.finished(lost(work, message))
        else:
            self._kill_process(warm, Cause.SUPERVISOR_LOST)

    def _kill_process(self, warm: Warm, cause: Cause | None) -> None:
        if cause is not None and warm.work is not None and warm.killing is None:
            warm.killing = (warm.work.number, cause)
        self._supervisor.send({"op": "kill", "number": warm.number, "grace_s": 0.0, "cause": str(cause or "idle")})

    def _set_timer(self, warm: Warm) -> None:
        work = warm.work
        warm.heard = time.monotonic()
        if work is not None and work.spec.time_limit is not None:
            warm.timer = asyncio.get_running_loop().call_later(
                work.spec.time_limit, self.kill, work, Cause.TIMEOUT, 0.0
            )

    def signal(self, work: Work, signum: int) -> None:
        if (warm := self._by_call.get(work.number)) is not None and warm.work is work:
            self._supervisor.send({"op": "signal", "number": warm.number, "signum": signum})

    def output_of(self, work: Work, stream: str) -> tuple[str, int]:
        """The log of its process; where the call began in it is what the spool says."""
        if (warm := self._by_call.get(work.number)) is None or stream == "stderr":
            return "/dev/null", 0
        found = function_spool.read(f"{warm.folder}/spool")
        return warm.log, found.log_start if found.number == work.number else 0

    # ------------------------------------------------------------ the end of a process

    def service_ended(self, number: int, report: dict[str, Any]) -> None:
        """A warm process is over: what its spool holds counts, the current call ends with it, the others start elsewhere."""
        warm = self._warm.pop(number, None)
        if warm is None:
            self._supervisor.send({"op": "ack", "numbers": [number]})
            return
        if warm in self._idle:
            self._idle.remove(warm)
        found = function_spool.read(f"{warm.folder}/spool")
        while warm.work is not None and warm.work.number in found.results:
            before = warm.work.number
            if not self._result(warm, found.results[before]):
                break
        warm.stop_timer()
        warm.close()
        work, warm.work = warm.work, None
        queue, warm.queue = list(warm.queue.values()), {}
        for one in (*queue, *([work] if work else [])):
            self._by_call.pop(one.number, None)
        if queue:
            self._reports.withdrawn(queue)
        if work is not None:
            self._end_current(warm, work, report, found)
        warm.over = True
        self._clean(warm)

    def _end_current(self, warm: Warm, work: Work, report: dict[str, Any], found: function_spool.Found) -> None:
        stopped = warm.killing is not None and warm.killing[0] == work.number
        if report.get("fenced"):
            self._reports.unbegun(work.number, None)
        elif not stopped and warm.connected and "code" not in report and found.number != work.number:
            self.start(work)  # it never began there
        else:
            self._broke_off(warm, work, report, found)

    def holds(self, number: int) -> bool:
        return number in self._unrecorded

    def forget(self, number: int, work: Work | None) -> None:
        """Recorded: the process need not keep the result any longer. Acknowledgements gather for a turn of the loop."""
        warm = self._unrecorded.pop(number, None)
        if warm is None:
            return
        warm.unrecorded.discard(number)
        if not self._acks:
            asyncio.get_running_loop().call_soon(self._send_acks)
        self._acks.setdefault(warm.number, (warm, []))[1].append(number)

    def _send_acks(self) -> None:
        acks, self._acks = self._acks, {}
        for warm, numbers in acks.values():
            if not warm.over:
                warm.write(frame(protocol.ACK, numbers))
            self._clean(warm)

    def _clean(self, warm: Warm) -> None:
        """Of a process that is over, nothing is kept once all its results are recorded."""
        if warm.over and not warm.unrecorded:
            self._supervisor.send({"op": "ack", "numbers": [warm.number]})
            self._spawn(asyncio.to_thread(remove_folder, warm.folder))

    # ------------------------------------------------------------ after a restart of the agent

    async def adopt(self, attempts: list[dict[str, Any]]) -> None:
        """Learn from the warm processes of the agent before what they run, and from their spools what they did."""
        waits = []
        await asyncio.to_thread(self._launcher.sweep, [str(attempt["tag"]) for attempt in attempts])
        for attempt in attempts:
            warm = again(attempt, self._launcher.folder)
            if warm is None:
                self._supervisor.send({"op": "kill", "number": attempt["number"], "grace_s": 0.0, "cause": "unknown"})
                self._supervisor.send({"op": "ack", "numbers": [attempt["number"]]})
            elif attempt["state"] == "ended":
                self._adopt_ended(warm, attempt["end"])
            else:
                self._warm[warm.number] = warm
                warm.adopting = True
                waits.append(self._await_state(warm))
        await asyncio.gather(*waits)

    async def _await_state(self, warm: Warm) -> None:
        self._spawn(self._connect(warm))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ADOPT_S):
                await warm.stated.wait()
        if warm.adopting and not warm.stated.is_set():
            self._adopt_mute(warm)

    def _adopt_mute(self, warm: Warm) -> None:
        """It is deep in a call that lets no other thread run: its spool names the call, the rest comes when it speaks."""
        found = function_spool.read(f"{warm.folder}/spool")
        warm.adopting = False
        if found.number:
            self._adopt_current(warm, stub(found.number, found.token, warm.tag))

    def _state(self, warm: Warm, state: protocol.State) -> None:
        """First word of a process. For one that is known from its launch there is nothing new in it."""
        warm.replayed = state.unacked
        if warm.tag is not None and not warm.adopting:  # spoke late: what it was handed ahead is elsewhere by now
            warm.write(frame(protocol.WITHDRAW, [a.number for a in state.queued]))
        elif warm.adopting:
            self._adopt_state(warm, state)
        if not warm.replayed:
            self._stated(warm)

    def _adopt_state(self, warm: Warm, state: protocol.State) -> None:
        warm.given = state.calls + len(state.queued)
        current, queued = state.current, state.queued
        if current is None and queued:  # between two calls: the first is begun at once
            current, queued = queued[0], queued[1:]
        if current is not None:
            self._adopt_current(warm, work_of(current))
        for assignment in queued:
            work = work_of(assignment)
            warm.queue[work.number] = work
            self._by_call[work.number] = warm
            self._reports.adopted(work, "piped")

    def _stated(self, warm: Warm) -> None:
        if warm.adopting and warm.work is None:
            self._rest(warm)
        warm.adopting = False
        warm.stated.set()

    def _adopt_current(self, warm: Warm, work: Work) -> None:
        work.shares = warm.shares
        warm.work = warm.like = work
        self._by_call[work.number] = warm
        self._reports.adopted(work, "active")
        self._set_timer(warm)

    def _replay(self, warm: Warm, result: Result) -> None:
        """A result that the agent before did not see acknowledged."""
        warm.replayed -= 1
        if warm.adopting:
            self._adopt_result(warm, result)
        elif result.number not in self._unrecorded and (warm.work is None or warm.work.number != result.number):
            warm.write(frame(protocol.ACK, [result.number]))
        if not warm.replayed:
            self._stated(warm)

    def _adopt_result(self, warm: Warm, result: Result) -> None:
        work = stub(result.number, result.token, warm.tag)
        self._reports.adopted(work, "leaving")
        self._settle(warm, work, result, None)

    def _adopt_ended(self, warm: Warm, report: dict[str, Any]) -> None:
        """It died while no agent looked: its results count, and the call in it ended with it."""
        found = function_spool.read(f"{warm.folder}/spool")
        warm.over = warm.connected = True
        for result in found.results.values():
            self._adopt_result(warm, result)
        if found.number and found.number not in found.results:
            work = stub(found.number, found.token, warm.tag)
            self._reports.adopted(work, "leaving")
            self._broke_off(warm, work, report, found)
        self._clean(warm)
