"""Interactive streams of the session: tails of output, standard input, terminals and exec."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any

from jarvis.bus.messages import StreamData, StreamOpen, StreamResize
from jarvis.worker.logs import file_size, follow
from jarvis.worker.machine import Machine, Work
from jarvis.worker.supervisor_client import SupervisorClient

PIECE = 64 * 1024
BUFFERED = 256
MOST = 200
PACE_S = 0.002
"""Between pieces of 64 KiB: at most about 30 MB/s a stream, which leaves room for reports."""


class Streams:
    """Opens what the server asks for; each stream is one background task with a bounded queue."""

    def __init__(
        self, machine: Machine, supervisor: SupervisorClient, say: Callable[[StreamData], None],
        output_of: Callable[[Work, str], tuple[str, int, int | None]], spawn: Callable[[Coroutine[Any, Any, None]], None],
        exec_place: Callable[[Work], tuple[dict[str, str], str]],
    ) -> None:  # fmt: skip
        self._machine, self._supervisor, self._say = machine, supervisor, say
        self._output_of, self._spawn, self._exec_place = output_of, spawn, exec_place
        self._inputs: dict[int, asyncio.Queue[StreamData]] = {}
        self._targets: dict[int, dict[str, Any]] = {}
        self._tasks: dict[int, asyncio.Task[Any]] = {}
        self._failures: dict[str, str] = {}
        self._channels = 0

    def close_all(self) -> None:
        """The session is over: its streams end with it, and their numbers may come again."""
        for task in list(self._tasks.values()):
            task.cancel()
        self._tasks.clear()

    def exec_failed(self, channel: str, error: str) -> None:
        """The supervisor could not start what ``exec`` asked for."""
        if any(target.get("channel") == channel for target in self._targets.values()):
            self._failures[channel] = error

    def opened(self, message: StreamOpen) -> None:
        work = self._machine.active.get(message.number) or self._machine.leaving.get(message.number)
        if len(self._tasks) >= MOST:
            self._say(StreamData(stream=message.stream, end=True, error="too many streams are open on this node"))
        elif work is None:
            error = "" if message.kind == "tail" else "the task does not run here"
            self._say(StreamData(stream=message.stream, end=True, error=error))
        elif message.kind == "tail":
            self._spawn(self._run(message.stream, self._tail(message, work)))
        else:
            self._inputs[message.stream] = asyncio.Queue(BUFFERED)
            self._spawn(self._run(message.stream, self._interactive(message, work)))

    async def _run(self, stream: int, work: Coroutine[Any, Any, None]) -> None:
        """A stream ends when the session does, without a word: there is nobody to hear it."""
        task = asyncio.ensure_future(work)
        self._tasks[stream] = task
        try:
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()
        finally:
            if self._tasks.get(stream) is task:
                del self._tasks[stream]

    def data(self, message: StreamData) -> None:
        """Input for a stream; one whose reader is too slow is closed rather than kept in memory."""
        queue = self._inputs.get(message.stream)
        if queue is None:
            return
        try:
            queue.put_nowait(message)
        except asyncio.QueueFull:
            del self._inputs[message.stream]
            self._say(StreamData(stream=message.stream, end=True, error="the task does not read its input"))

    def resize(self, message: StreamResize) -> None:
        target = self._targets.get(message.stream)
        if target is not None:
            self._supervisor.send({"op": "resize", **target, "rows": message.rows, "cols": message.columns})

    async def _tail(self, message: StreamOpen, work: Work) -> None:
        path, base, owner = self._output_of(work, message.output)
        start = base + message.offset if message.offset >= 0 else max(file_size(path) + message.offset, base)

        def ended() -> bool:
            return not message.follow or message.number not in self._machine.active

        async for data in follow(path, start, ended, owner):
            self._say(StreamData(stream=message.stream, data=data))
            await asyncio.sleep(PACE_S)
        self._say(StreamData(stream=message.stream, end=True))

    def _target(self, message: StreamOpen, work: Work) -> dict[str, Any]:
        """What to attach to; for ``exec`` a new process beside the task's own, with its environment and directory."""
        if message.kind != "exec":
            return {"number": message.number}
        self._channels += 1
        channel = f"{os.getpid()}.{self._channels}"
        env, cwd = self._exec_place(work)
        order = {"op": "exec", "number": message.number, "channel": channel, "argv": list(message.argv)}
        pty = list(message.pty) if message.pty else None
        self._supervisor.send({**order, "env": env | message.env, "cwd": cwd, "pty": pty})
        return {"channel": channel}

    async def _interactive(self, message: StreamOpen, work: Work) -> None:
        stream, error = message.stream, ""
        target = self._target(message, work)
        self._targets[stream] = target
        try:
            reader, writer = await self._supervisor.attach(target)
            pump = asyncio.create_task(self._pump_input(self._inputs[stream], writer))
            try:
                while data := await reader.read(PIECE):
                    self._say(StreamData(stream=stream, data=data))
                    await asyncio.sleep(PACE_S)
            finally:
                pump.cancel()
                writer.close()
        except (OSError, TimeoutError) as problem:
            error = str(problem)
        finally:
            self._inputs.pop(stream, None)
            self._targets.pop(stream, None)
        error = self._failures.pop(str(target.get("channel")), error)
        self._say(StreamData(stream=stream, end=True, error=error))

    async def _pump_input(self, queue: asyncio.Queue[StreamData], writer: asyncio.StreamWriter) -> None:
        while True:
            message = await queue.get()
            if message.data:
                writer.write(message.data)
                await writer.drain()
            if message.end:
                writer.write_eof()
                return
