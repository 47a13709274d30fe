"""Interactive streams of the session: tails of output, standard input, terminals and exec."""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from jarvis.bus.messages import StreamData, StreamOpen, StreamResize, StreamTaken
from jarvis.bus.window import LIMIT, MESSAGE_COST, ReceiveWindow, SendWindow
from jarvis.worker.container_engine import EngineError
from jarvis.worker.container_exec import ContainerExec
from jarvis.worker.logs import file_size, follow, read_range
from jarvis.worker.machine import Machine, Work
from jarvis.worker.supervisor_client import SupervisorClient
from jarvis.worker.task_executor import DEFECT, Spawn

PIECE = 64 * 1024
BUFFERED = LIMIT // MESSAGE_COST * 2
MOST = 200
EXEC_S = 10.0


class Duplex(Protocol):
    """Where a stream's bytes come from, up to an empty piece, and where its input goes."""

    async def read(self, most: int, /) -> bytes: ...
    def write(self, data: bytes, /) -> None: ...
    async def drain(self) -> None: ...
    def write_eof(self) -> None: ...
    def close(self) -> None: ...


class ExecFailed(Exception):
    """A command beside a task could not be started; ``code`` is what a shell would give."""

    def __init__(self, code: int, error: str) -> None:
        super().__init__(error)
        self.code = code


class _Exec:
    """What the supervisor says of one command beside a task."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.started: asyncio.Future[ExecFailed | None] = loop.create_future()
        self.code: asyncio.Future[int] = loop.create_future()

    def said(self, report: dict[str, Any]) -> None:
        if report["op"] == "exec_ended":
            signum = report.get("signal")
            _settle(self.code, 128 + signum if signum else int(report.get("exit_code") or 0))
        elif report["op"] == "exec_failed":
            _settle(self.started, ExecFailed(int(report.get("code") or 125), str(report.get("error"))))
        else:
            _settle(self.started, None)


def _settle(future: asyncio.Future[Any], value: object) -> None:
    if not future.done():
        future.set_result(value)


class Streams:
    """Opens what the server asks for; each stream is one background task with a bounded queue."""

    def __init__(
        self, machine: Machine, supervisor: SupervisorClient, say: Callable[[StreamData | StreamTaken], None],
        output_of: Callable[[Work, str], tuple[str, int, int | None]], spawn: Spawn,
        exec_place: Callable[[Work], tuple[dict[str, str], str]],
        container_exec: Callable[[Work, StreamOpen], Awaitable[ContainerExec]],
    ) -> None:  # fmt: skip
        self._machine, self._supervisor, self._say = machine, supervisor, say
        self._output_of, self._spawn, self._exec_place = output_of, spawn, exec_place
        self._container_exec = container_exec
        self._boxed: dict[int, ContainerExec] = {}
        self._inputs: dict[int, asyncio.Queue[StreamData]] = {}
        self._targets: dict[int, dict[str, Any]] = {}
        self._tasks: dict[int, asyncio.Task[Any]] = {}
        self._windows: dict[int, SendWindow] = {}
        self._execs: dict[str, _Exec] = {}
        self._channels = 0

    def close_all(self) -> None:
        """The session is over: its streams end with it, and their numbers may come again."""
        for task in list(self._tasks.values()):
            task.cancel()
        self._tasks.clear()

    def exec_said(self, report: dict[str, Any]) -> None:
        """The supervisor started what ``exec`` asked for, could not, or it ended."""
        running = self._execs.get(str(report.get("channel")))
        if running is not None:
            running.said(report)

    def opened(self, message: StreamOpen) -> None:
        work = self._machine.active.get(message.number) or self._machine.leaving.get(message.number)
        if work is not None:
            work.spoiled = True
        if len(self._tasks) >= MOST:
            self._say(StreamData(stream=message.stream, end=True, error="too many streams are open on this node"))
        elif work is None:
            error = "" if message.kind == "tail" else "the task does not run here"
            self._say(StreamData(stream=message.stream, end=True, error=error))
        elif message.kind == "tail":
            self._spawn(self._run(message.stream, self._tail(message, work)))
        elif work.spec.kind == "container" and message.kind != "exec":
            error = "it runs in a container, which has no input of its own: see jarvis exec"
            self._say(StreamData(stream=message.stream, end=True, error=error))
        elif work.spec.kind == "container":
            self._inputs[message.stream] = asyncio.Queue(BUFFERED)
            self._spawn(self._run(message.stream, self._in_container(message, work)))
        else:
            self._inputs[message.stream] = asyncio.Queue(BUFFERED)
            self._spawn(self._run(message.stream, self._interactive(message, work)))

    async def _run(self, stream: int, work: Coroutine[Any, Any, None]) -> None:
        """A stream ends when the session does, without a word: there is nobody to hear it."""
        task = asyncio.ensure_future(work)
        self._tasks[stream] = task
        self._windows[stream] = SendWindow()
        try:
            await asyncio.wait([task])
            if not task.cancelled() and (error := task.exception()) is not None:
                self._say(StreamData(stream=stream, end=True, error=f"{DEFECT}: {type(error).__name__}: {error}"))
                raise error
        finally:
            if self._tasks.get(stream) is task:
                del self._tasks[stream], self._windows[stream]

    async def _send(self, stream: int, data: bytes) -> None:
        """As fast as the reader takes it."""
        await self._windows[stream].admit(data)
        self._say(StreamData(stream=stream, data=data))

    def taken(self, message: StreamTaken) -> None:
        """The reader has taken that much."""
        window = self._windows.get(message.stream)
        if window is not None:
            window.taken(message.size)

    def data(self, message: StreamData) -> None:
        """Input for a stream; one whose reader is too slow is closed rather than kept in memory."""
        if message.end and message.error:  # the viewer is gone, which is not the end of the input
            if (task := self._tasks.get(message.stream)) is not None:
                task.cancel()
            return
        queue = self._inputs.get(message.stream)
        if queue is None:
            return
        try:
            queue.put_nowait(message)
        except asyncio.QueueFull:
            del self._inputs[message.stream]
            self._say(StreamData(stream=message.stream, end=True, error="the task does not read its input"))

    def resize(self, message: StreamResize) -> None:
        target, boxed = self._targets.get(message.stream), self._boxed.get(message.stream)
        if boxed is not None:
            self._spawn(boxed.resize(message.rows, message.columns))
        if target is not None:
            self._supervisor.send({"op": "resize", **target, "rows": message.rows, "cols": message.columns})

    async def _tail(self, message: StreamOpen, work: Work) -> None:
        path, base, owner = self._output_of(work, message.output)
        start = base + message.offset if message.offset >= 0 else max(file_size(path) + message.offset, base)

        def ended() -> bool:
            return not message.follow or message.number not in self._machine.active

        async for data in follow(path, start, ended, owner):
            await self._send(message.stream, data)
        self._say(StreamData(stream=message.stream, end=True))

    async def _target(self, message: StreamOpen, work: Work) -> dict[str, Any]:
        """What to attach to; for ``exec`` a new process beside the task's own, with its environment and directory."""
        if message.kind != "exec":
            target = self._targets[message.stream] = {"number": message.number}
            if message.pty is not None:
                rows, columns = message.pty
                self.resize(StreamResize(stream=message.stream, rows=rows, columns=columns))
            return target
        self._channels += 1
        channel = f"{os.getpid()}.{self._channels}"
        env, cwd = self._exec_place(work)
        order = {"op": "exec", "number": message.number, "channel": channel, "argv": list(message.argv)}
        pty = list(message.pty) if message.pty else None
        running = self._execs[channel] = _Exec()
        self._supervisor.send({**order, "env": env | message.env, "cwd": cwd, "pty": pty})
        target = self._targets[message.stream] = {"channel": channel}
        async with asyncio.timeout(EXEC_S):
            failure = await running.started
        if failure is not None:
            raise failure
        return target

    async def _interactive(self, message: StreamOpen, work: Work) -> None:
        stream, error, code = message.stream, "", None
        try:
            target = await self._target(message, work)
            if message.kind == "pty":
                await self._terminal(message, work)
            else:
                await self._carry(stream, await self._supervisor.attach(target))
            if (running := self._execs.get(str(target.get("channel")))) is not None:
                async with asyncio.timeout(EXEC_S):
                    code = await running.code
        except ExecFailed as failure:
            error, code = str(failure), failure.code
        except (OSError, TimeoutError) as problem:
            error = str(problem) or "the supervisor did not answer"
        finally:
            self._inputs.pop(stream, None)
            self._execs.pop(str(self._targets.pop(stream, {}).get("channel")), None)
        self._say(StreamData(stream=stream, end=True, error=error, code=code))

    async def _in_container(self, message: StreamOpen, work: Work) -> None:
        stream, error, code = message.stream, "", None
        try:
            async with asyncio.timeout(EXEC_S):
                running = self._boxed[stream] = await self._container_exec(work, message)
            await self._carry(stream, running)
            code = await running.code(EXEC_S)
        except EngineError as problem:
            error, code = str(problem), 126
        except (OSError, TimeoutError) as problem:
            error = str(problem) or "the container engine did not answer"
        finally:
            self._inputs.pop(stream, None)
            self._boxed.pop(stream, None)
        self._say(StreamData(stream=stream, end=True, error=error, code=code))

    async def _terminal(self, message: StreamOpen, work: Work) -> None:
        """What it wrote since ``offset``, from its file, then live: a viewer that comes back misses nothing."""
        written, attached = await self._supervisor.attach_from(message.number)
        path, _, owner = self._output_of(work, "stdout")
        for start in range(max(message.offset, 0), written, PIECE):
            size = min(PIECE, written - start)
            await self._send(message.stream, await asyncio.to_thread(read_range, path, start, size, owner))
        await self._carry(message.stream, attached)

    async def _carry(self, stream: int, process: Duplex) -> None:
        """Bytes both ways until the process's side is closed."""
        pump = asyncio.create_task(self._pump_input(stream, self._inputs[stream], process))
        try:
            while data := await process.read(PIECE):
                await self._send(stream, data)
        finally:
            pump.cancel()
            await asyncio.wait([pump])  # it must not write to what is closed, or to who has its number next
            process.close()

    async def _pump_input(self, stream: int, queue: asyncio.Queue[StreamData], process: Duplex) -> None:
        window = ReceiveWindow()
        with contextlib.suppress(ConnectionError):  # it reads no more: its end tells the rest
            while True:
                message = await queue.get()
                if message.data:
                    process.write(message.data)
                    await process.drain()
                    if size := window.took(message.data):
                        self._say(StreamTaken(stream=stream, size=size))
                if message.end:
                    process.write_eof()
                    return
