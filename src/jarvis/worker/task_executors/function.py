"""Functions: warm processes of one owner, environment and shape each, one call at a time; children of the supervisor."""

import asyncio
import os
import struct
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from jarvis.core.attempt import Output, Usage
from jarvis.core.inputs import Ended
from jarvis.core.states import Cause
from jarvis.core.task import INLINE_LIMIT, FunctionCall
from jarvis.worker.account import Account, NoSuchUser, account_of
from jarvis.worker.function_worker import ACK, CALL, STATE
from jarvis.worker.logs import INLINE, Shipper, read_range, remove_quietly
from jarvis.worker.machine import Work
from jarvis.worker.supervisor_client import SupervisorClient
from jarvis.worker.task_environment import Place, environment
from jarvis.worker.task_executor import Reports, failed
from jarvis.worker.task_executors.process import CAUSES, FetchBlob

_length = struct.Struct(">I")
IDLE_S = 120.0
CONNECT_S = 20.0
SERVICE_NUMBERS = 1 << 52
"""Warm processes are numbered from here on, far above any assignment."""
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

Shape = tuple[str, str, str, tuple[tuple[str, int], ...], tuple[int, ...]]


@dataclass(slots=True)
class Warm:
    """A warm process; ``work`` is the call it runs now."""

    name: str
    number: int
    shape: Shape
    log: str
    codes: set[str] = field(default_factory=set)
    work: Work | None = None
    writer: asyncio.StreamWriter | None = None
    calls: int = 0
    idle_since: float = 0.0
    timer: asyncio.TimerHandle | None = None
    kill_cause: Cause | None = None
    pending: bytes | None = None
    """A call that waits for the process to be ready."""


class FunctionExecutor:
    """See the port."""

    def __init__(
        self, supervisor: SupervisorClient, reports: Reports, shipper: Shipper, directory: Path, node: str,
        allow_root: bool, fetch: FetchBlob, put: Callable[[int, int, bytes], Coroutine[Any, Any, str]],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:  # fmt: skip
        self._supervisor, self._reports, self._shipper = supervisor, reports, shipper
        self._directory, self._node, self._allow_root = directory / "functions", node, allow_root
        self._fetch, self._put, self._spawn = fetch, put, spawn
        self._directory.mkdir(mode=0o711, exist_ok=True)
        self._folder = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        self._warm: dict[int, Warm] = {}
        self._idle: dict[Shape, list[Warm]] = {}
        self._by_call: dict[int, Warm] = {}
        self._code: dict[str, bytes] = {}
        self._next = SERVICE_NUMBERS + int(time.time() * 1000)

    # ------------------------------------------------------------ calls

    def start(self, work: Work) -> None:
        call = work.spec.function
        assert call is not None
        if call.python != PYTHON:
            text = f"the function was pickled by Python {call.python}, node {self._node} has {PYTHON}: use the same version"
            self._reports.finished(failed(work, text))
        elif call.code not in self._code or call.args is None:
            self._spawn(self._start_with_blobs(work, call))
        else:
            self._run(work, call, call.args)

    async def _start_with_blobs(self, work: Work, call: FunctionCall) -> None:
        try:
            if call.code not in self._code:
                self._code[call.code] = await self._fetch(work.assignment.task, call.code)
            args = call.args
            if args is None:
                args = await self._fetch(work.assignment.task, call.args_digest or "")
        except (OSError, TimeoutError) as error:
            self._reports.finished(failed(work, f"code or arguments could not be fetched: {error}"))
            return
        if work.stop_cause is not None:
            self._reports.finished(self._cut(work, work.stop_cause))
            return
        self._run(work, call, args)

    def _run(self, work: Work, call: FunctionCall, args: bytes) -> None:
        try:
            account = account_of(work.assignment.user, self._allow_root)
        except NoSuchUser as error:
            self._reports.finished(failed(work, f"node {self._node}: {error}"))
            return
        warm = self._take(work, call, account)
        place = Place(self._node, account.home, account.name, account.shell, str(self._directory), time.time())
        env = environment(work, place)
        code = None if call.code in warm.codes else self._code[call.code]
        warm.codes.add(call.code)
        body = msgspec.msgpack.encode([CALL, work.number, work.assignment.token, call.code, code, args, env])
        warm.work, warm.calls = work, warm.calls + 1
        self._by_call[work.number] = warm
        if work.spec.time_limit is not None:
            loop = asyncio.get_running_loop()
            warm.timer = loop.call_later(work.spec.time_limit, self.kill, work, Cause.TIMEOUT, 0.0)
        if warm.writer is None:
            warm.pending = body
        else:
            warm.writer.write(_length.pack(len(body)) + body)
        self._reports.started(work.number)

    def _take(self, work: Work, call: FunctionCall, account: Account) -> Warm:
        a = work.assignment
        shape = (a.project, a.user, call.environment, tuple(sorted(work.spec.resources.items())), work.gpus)
        idle = self._idle.get(shape)
        if idle and not call.fresh:
            return idle.pop()
        return self._start_process(shape, work, account)

    def _start_process(self, shape: Shape, work: Work, account: Account) -> Warm:
        self._next += 1
        name = f"{self._next - SERVICE_NUMBERS:x}"
        folder = self._directory / name
        folder.mkdir(mode=0o700)
        if account.switch is not None:
            os.chown(folder, account.switch["uid"], account.switch["gid"])
        log = str(folder / "log")
        env = {k: v for k, v in work.spec.env.items() if k != "PYTHONPATH"} | {
            "HOME": account.home,
            "USER": account.name,
        }
        env["PYTHONPATH"] = os.pathsep.join(p for p in [*sys.path, work.spec.env.get("PYTHONPATH", "")] if p)
        warm = Warm(name, self._next, shape, log)
        self._warm[warm.number] = warm
        self._supervisor.send(
            {
                "op": "start", "number": warm.number, "tag": "", "service": True, "env": env,
                "argv": [sys.executable, "-m", "jarvis.worker.function_worker", str(folder), "w"],
                "cwd": work.spec.cwd if work.spec.cwd and os.path.isdir(work.spec.cwd) else "/",
                "stdout": log, "append": True, "memory_bytes": work.spec.resources.get("memory") or None,
                "user": account.switch, "no_new_privs": account.switch is not None, "grace_s": 2.0,
            }
        )  # fmt: skip
        self._spawn(self._connect(warm))
        return warm

    async def _connect(self, warm: Warm) -> None:
        path = f"/proc/self/fd/{self._folder}/{warm.name}/w.sock"
        try:
            async with asyncio.timeout(CONNECT_S):
                reader, writer = await self._dial(warm, path)
        except TimeoutError:
            self._supervisor.send({"op": "kill", "number": warm.number, "grace_s": 0.0, "cause": "start_failed"})
            return
        if warm.number not in self._warm:
            writer.close()
            return
        warm.writer = writer
        if warm.pending is not None:
            writer.write(_length.pack(len(warm.pending)) + warm.pending)
            warm.pending = None
        await self._read(warm, reader)

    async def _dial(self, warm: Warm, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        wait = 0.005
        while True:
            try:
                return await asyncio.open_unix_connection(path, limit=64 << 20)
            except OSError:
                if warm.number not in self._warm:
                    raise TimeoutError from None
                await asyncio.sleep(wait)
                wait = min(wait * 1.5, 0.1)

    async def _read(self, warm: Warm, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                (size,) = _length.unpack(await reader.readexactly(4))
                message = msgspec.msgpack.decode(await reader.readexactly(size))
                if message[0] != STATE:
                    self._result(warm, message)
        except (asyncio.IncompleteReadError, OSError):
            return

    # ------------------------------------------------------------ ends

    def _result(self, warm: Warm, message: list[Any]) -> None:
        _, number, ok, payload, name, text, wall, user_s, system_s, rss, out_start, out_end = message
        work = warm.work
        if work is None or work.number != number:
            return
        usage = Usage(wall, user_s, system_s, rss)
        cause = Cause.EXIT if ok else Cause.EXCEPTION
        end = Ended(
            number=number, token=work.assignment.token, cause=cause, exit_code=0 if ok else 1, usage=usage,
            message=text, exception=name or None,
        )  # fmt: skip
        self._release(warm, work)
        if len(payload) > INLINE_LIMIT or out_end - out_start > INLINE:
            self._spawn(self._ship(work, end, payload, warm.log, out_start, out_end))
            return
        end.result = payload
        size = out_end - out_start
        end.stdout = Output(size=size, inline=read_range(warm.log, out_start, size) if size else None)
        self._reports.finished(end)

    async def _ship(self, work: Work, end: Ended, payload: bytes, log: str, start: int, stop: int) -> None:
        if len(payload) > INLINE_LIMIT:
            end.result_digest = await self._put(work.number, work.assignment.token, payload)
        else:
            end.result = payload
        end.stdout = await self._shipper.ship(
            work.number, work.assignment.token, "stdout", log, stop - start, False, base=start
        )
        self._reports.finished(end)

    def _release(self, warm: Warm, work: Work) -> None:
        """The process may take the next call, unless it has had as many as it may."""
        call = work.spec.function
        assert call is not None
        if warm.timer is not None:
            warm.timer.cancel()
            warm.timer = None
        warm.work = None
        self._by_call.pop(work.number, None)
        if warm.writer is not None:
            body = msgspec.msgpack.encode([ACK, [work.number]])
            warm.writer.write(_length.pack(len(body)) + body)
        if call.fresh or (call.max_calls is not None and warm.calls >= call.max_calls):
            self._supervisor.send({"op": "kill", "number": warm.number, "grace_s": 0.0, "cause": "max_calls"})
            return
        warm.idle_since = time.monotonic()
        self._idle.setdefault(warm.shape, []).append(warm)

    def kill(self, work: Work, cause: Cause, grace_s: float) -> None:
        """The process is ended with the call in it; what it leaves is the end of that call alone."""
        warm = self._by_call.get(work.number)
        if warm is not None:
            warm.kill_cause = cause
            self._supervisor.send({"op": "kill", "number": warm.number, "grace_s": grace_s, "cause": str(cause)})

    def signal(self, work: Work, signum: int) -> None:
        warm = self._by_call.get(work.number)
        if warm is not None:
            self._supervisor.send({"op": "signal", "number": warm.number, "signum": signum})

    def forget(self, number: int, work: Work | None) -> None:
        return None

    def service_ended(self, number: int, report: dict[str, Any]) -> bool:
        """A warm process is over, with the call that ran in it. False when it is not one of ours."""
        warm = self._warm.pop(number, None)
        if warm is None:
            return False
        self._supervisor.send({"op": "ack", "numbers": [number]})
        if warm in self._idle.get(warm.shape, ()):
            self._idle[warm.shape].remove(warm)
        if warm.writer is not None:
            warm.writer.close()
        work = warm.work
        if work is not None:
            self._by_call.pop(work.number, None)
            if warm.timer is not None:
                warm.timer.cancel()
            self._reports.finished(self._end_of_process(work, warm, report))
        for file in ("w.sock", "w.spool", "log"):
            remove_quietly(self._directory / warm.name / file)
        try:
            (self._directory / warm.name).rmdir()
        except OSError:
            return True
        return True

    def _end_of_process(self, work: Work, warm: Warm, report: dict[str, Any]) -> Ended:
        if "code" in report:
            return failed(work, f"node {self._node}: {report['error']}", int(report["code"]))
        cause = warm.kill_cause or CAUSES.get(str(report.get("cause"))) or Cause.CANCELLED
        tail = read_range(warm.log, max(int(report.get("out_bytes") or 0) - INLINE, 0), INLINE)
        end = self._cut(work, cause)
        end.exit_code, end.signal = report.get("exit_code") or None, report.get("signal")
        if cause is Cause.EXIT:
            end.exit_code = int(report.get("exit_code") or 1) or 1
            end.message = "the process ended in the middle of the call"
        end.stdout = Output(size=len(tail), inline=tail)
        return end

    def _cut(self, work: Work, cause: Cause) -> Ended:
        return Ended(number=work.number, token=work.assignment.token, cause=cause)

    def end_idle(self) -> None:
        """Processes that nobody needed for a while make room."""
        limit = time.monotonic() - IDLE_S
        for shape, idle in self._idle.items():
            for warm in [w for w in idle if w.idle_since < limit]:
                self._idle[shape].remove(warm)
                self._supervisor.send({"op": "kill", "number": warm.number, "grace_s": 0.0, "cause": "idle"})
