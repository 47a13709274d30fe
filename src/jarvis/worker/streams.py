"""Interactive streams of the session: tails of output, standard input, terminals and exec."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from jarvis.bus.messages import StreamData, StreamOpen, StreamResize
from jarvis.worker.logs import file_size, follow, read_range
from jarvis.worker.machine import Machine, Work
from jarvis.worker.supervisor_client import SupervisorClient

PIECE = 64 * 1024
BUFFERED = 256


class Streams:
    """Opens what the server asks for; each stream is one background task with a bounded queue."""

    def __init__(
        self, machine: Machine, supervisor: SupervisorClient, say: Callable[[StreamData], None],
        output_path: Callable[[Work, str], str], spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:  # fmt: skip
        self._machine, self._supervisor, self._say = machine, supervisor, say
        self._output_path, self._spawn = output_path, spawn
        self._inputs: dict[int, asyncio.Queue[StreamData]] = {}
        self._targets: dict[int, dict[str, Any]] = {}

    def opened(self, message: StreamOpen) -> None:
        work = self._machine.active.get(message.number)
        if work is None:
            error = "" if message.kind == "tail" else "the task does not run here"
            self._say(StreamData(stream=message.stream, end=True, error=error))
        elif message.kind == "tail":
            self._spawn(self._tail(message, work))
        else:
            self._inputs[message.stream] = asyncio.Queue(BUFFERED)
            self._spawn(self._interactive(message))

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
        path = self._output_path(work, message.output)
        start = message.offset if message.offset >= 0 else max(file_size(path) + message.offset, 0)
        if message.follow:
            async for data in follow(path, start, lambda: message.number not in self._machine.active):
                self._say(StreamData(stream=message.stream, data=data))
        else:
            offset = start
            while data := await asyncio.to_thread(read_range, path, offset, PIECE):
                self._say(StreamData(stream=message.stream, data=data))
                offset += len(data)
        self._say(StreamData(stream=message.stream, end=True))

    async def _interactive(self, message: StreamOpen) -> None:
        stream, error = message.stream, ""
        target: dict[str, Any] = {"number": message.number}
        if message.kind == "exec":
            target = {"number": message.number, "channel": stream}
            pty = list(message.pty) if message.pty else None
            self._supervisor.send(
                {"op": "exec", **target, "argv": list(message.argv), "env": message.env, "cwd": "/", "pty": pty}
            )
            target = {"channel": stream}
        self._targets[stream] = target
        try:
            reader, writer = await self._supervisor.attach(target)
            pump = asyncio.create_task(self._pump_input(self._inputs[stream], writer))
            try:
                while data := await reader.read(PIECE):
                    self._say(StreamData(stream=stream, data=data))
            finally:
                pump.cancel()
                writer.close()
        except (OSError, TimeoutError) as problem:
            error = str(problem)
        finally:
            self._inputs.pop(stream, None)
            self._targets.pop(stream, None)
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
