"""A node under test (real supervisor, agent and processes) and a server that speaks the wire protocol and records."""

import asyncio
import contextlib
import hashlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import msgspec
import zstandard
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from jarvis.bus.messages import (
    BlobData,
    BlobGet,
    BlobPut,
    BlobStored,
    ChunkStored,
    FromAgent,
    Heartbeat,
    OutputChunk,
    ServerFrame,
    StreamData,
    ToAgent,
    decode_from_agent,
    encode,
)
from jarvis.core.effects import Assign, Assignment, Recorded, Refused, Welcome
from jarvis.core.inputs import Ended, Hello, Returned, Started
from jarvis.core.task import FunctionCall, TaskSpec

ROOT = Path(__file__).parents[3]
SUPERVISOR = ROOT / "src/jarvis/worker/supervisor/__main__.py"
PATIENCE = 30.0
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


class FakeServer:
    """What a server says is up to the test; what the node said is kept."""

    def __init__(self) -> None:
        self.port = 0
        self.hellos: list[Hello] = []
        self.started: list[Started] = []
        self.ends: dict[int, list[Ended]] = {}
        self.returned: list[Returned] = []
        self.beats: list[Heartbeat] = []
        self.blobs: dict[str, bytes] = {}
        self.streams: dict[int, bytes] = {}
        self.closed: dict[int, str] = {}
        self.record = True
        self.only = 0
        """The only version of the protocol that it speaks, as servers before the second did; 0: any."""
        self.welcome = Welcome(node=1, incarnation=5, epoch=1, heartbeat_s=0.3, fence_s=75.0)
        self.tokens: list[str | None] = []
        self._socket: ServerConnection | None = None
        self._server: Server | None = None
        self._seq = 0
        self._changed = asyncio.Event()
        self._recorded: list[int] = []

    async def up(self) -> None:
        self._server = await serve(
            self._serve, "127.0.0.1", self.port, compression=None, max_size=16 << 20, ping_interval=None
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]

    async def down(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        self.tokens.append(socket.request.headers.get("Authorization"))
        self._seq = 0
        self._socket = socket
        with contextlib.suppress(ConnectionClosed):
            while True:
                data = await socket.recv()
                assert isinstance(data, bytes)
                frame = decode_from_agent(data)
                answers: list[ToAgent] = []
                self._recorded = []
                for message in frame.messages:
                    self._take(message, answers)
                if self._recorded:
                    answers.append(Recorded(numbers=self._recorded))
                await self._send(socket, answers, frame.seq)
                self._changed.set()

    async def _send(self, socket: ServerConnection, messages: list[ToAgent], ack: int = 0) -> None:
        self._seq += 1
        await socket.send(encode(ServerFrame(self._seq, ack, messages)))

    def _take(self, message: FromAgent, answers: list[ToAgent]) -> None:
        if isinstance(message, Ended):
            self.ends.setdefault(message.number, []).append(message)
            if self.record:
                self._recorded.append(message.number)
        elif isinstance(message, Started):
            self.started.append(message)
        elif isinstance(message, Heartbeat):
            self.beats.append(message)
        elif isinstance(message, Returned):
            self.returned.append(message)
        elif isinstance(message, Hello):
            self.hellos.append(message)
            answers.append(self.welcome if self.only in (0, message.version) else Refused(reason="another version"))
        elif isinstance(message, StreamData):
            self.streams[message.stream] = self.streams.get(message.stream, b"") + message.data
            if message.end:
                self.closed[message.stream] = message.error
        else:
            self._take_body(message, answers)

    def _take_body(self, message: FromAgent, answers: list[ToAgent]) -> None:
        if isinstance(message, OutputChunk):
            digest = self.put(message.data)
            answers.append(
                ChunkStored(number=message.number, stream=message.stream, offset=message.offset, digest=digest)
            )
        elif isinstance(message, BlobPut):
            answers.append(BlobStored(request=message.request, digest=self.put(message.data)))
        elif isinstance(message, BlobGet):
            body = self.blobs.get(message.digest)
            if body is None:
                answers.append(BlobData(request=message.request, error=f"no blob {message.digest}"))
            else:
                part = body[message.offset : message.offset + message.length]
                answers.append(BlobData(request=message.request, data=part, size=len(body)))

    def put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return digest

    async def send(self, *messages: ToAgent) -> None:
        """Over the session of now, or over the next when the agent has just ended it, as it does to tell what has changed."""
        async with asyncio.timeout(PATIENCE):
            while True:
                socket = self._socket
                assert socket is not None
                try:
                    await self._send(socket, list(messages))
                except ConnectionClosed:
                    while self._socket is socket:  # noqa: ASYNC110 - the next session has no event
                        await asyncio.sleep(0.02)
                else:
                    return

    async def assign(self, *assignments: Assignment) -> None:
        await self.send(Assign(assignments=list(assignments)))

    async def until(self, predicate: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
        """Wait until ``predicate`` holds; looked at whenever something arrived, and at intervals for what is elsewhere."""
        deadline = time.monotonic() + patience
        while not (value := predicate()):
            assert time.monotonic() < deadline, f"never happened: {what}"
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.02):
                    await self._changed.wait()
        return value

    async def end_of(self, number: int) -> Ended:
        await self.until(lambda: number in self.ends, f"the end of {number}")
        return self.ends[number][0]

    def text(self, end: Ended, stream: str = "stdout") -> bytes:
        """An output as the server could show it."""
        output = getattr(end, stream)
        if output is None:
            return b""
        if output.inline is not None:
            return bytes(output.inline)
        plain = zstandard.ZstdDecompressor()
        return b"".join(plain.decompress(self.blobs[digest]) for _, digest in output.chunks)


def assignment(number: int, spec: TaskSpec, **fields: Any) -> Assignment:
    body: dict[str, Any] = {
        "token": (5 << 20) + 1, "attempt": 1, "task": number, "index": -1, "project": "p", "user": "root",
        "spec": msgspec.Raw(msgspec.msgpack.encode(spec)),
    } | fields  # fmt: skip
    return Assignment(number=number, **body)


def shell(number: int, command: str, **fields: Any) -> Assignment:
    """An assignment of ``/bin/sh -c``; fields that a spec does not have go to the assignment."""
    of_spec = {name: value for name, value in fields.items() if name in TaskSpec.__struct_fields__}
    rest = {name: value for name, value in fields.items() if name not in of_spec}
    of_spec.setdefault("resources", {"cpu": 100})
    of_spec.setdefault("cwd", "/")
    return assignment(number, TaskSpec(name=f"t{number}", command=command, **of_spec), **rest)


def call(server: FakeServer, number: int, function: Callable[..., Any], *args: Any, **fields: Any) -> Assignment:
    """An assignment of a function call; its code is in the server's blobs."""
    code = server.put(cloudpickle.dumps(function))
    of_call = {name: fields.pop(name) for name in ("fresh", "max_calls", "python", "environment") if name in fields}
    of_call.setdefault("python", PYTHON)
    made = FunctionCall(code=code, args=cloudpickle.dumps((args, {})), **of_call)
    of_spec = {name: fields.pop(name) for name in list(fields) if name in TaskSpec.__struct_fields__}
    of_spec.setdefault("resources", {"cpu": 1000})
    return assignment(number, TaskSpec(name="f", function=made, **of_spec), **fields)


class Node:
    """A supervisor that keeps an agent running, in a directory of its own."""

    def __init__(self, directory: Path, server: FakeServer, *options: str) -> None:
        self.directory, self.server, self.options = directory, server, options
        self.state = directory / "node"
        self.state.mkdir(mode=0o711)
        self.token = directory / "token"
        self.token.write_text("secret\n")
        self.process: asyncio.subprocess.Process | None = None
        self.within: list[str] = []
        """What the supervisor is started by."""

    async def up(self) -> None:
        command = [sys.executable, "-m", "jarvis.worker.agent", "--dir", str(self.state), "--name", "n1"]
        command += ["--url", f"http://127.0.0.1:{self.server.port}", "--token-file", str(self.token), *self.options]
        log = (self.directory / "supervisor.log").open("ab")
        self.process = await asyncio.create_subprocess_exec(
            *self.within, sys.executable, "-I", "-S", str(SUPERVISOR), "--dir", str(self.state), "--agent", json.dumps(command),
            stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "AGENTS_OWN": "1"},
        )  # fmt: skip
        log.close()
        await self.server.until(lambda: self.server.hellos, "the node says hello")

    def agent_pids(self) -> list[int]:
        """The agent as the process table has it: the supervisor's child with its command line."""
        assert self.process is not None
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (folder / "cmdline").read_bytes().split(b"\0")
                if b"jarvis.worker.agent" in command and os.fsencode(str(self.state)) in command:
                    found.append(int(folder.name))
        return found

    async def kill_agent(self) -> None:
        """Kill it the hard way and wait until its successor has said hello."""
        before, pids = len(self.server.hellos), self.agent_pids()
        assert len(pids) == 1
        os.kill(pids[0], signal.SIGKILL)
        await self.server.until(lambda: len(self.server.hellos) > before, "the next agent says hello")

    async def down(self) -> None:
        """End everything; nothing may be left."""
        if self.process is None:
            return
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(PATIENCE):
                await self.process.wait()
        left = [pid for pid in living() if os.fsencode(str(self.state)) in _command(pid)]
        assert not left, [_command(pid) for pid in left]

    def agent_log(self) -> str:
        path = self.state / "agent.log"
        return path.read_text() if path.exists() else ""


def living() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def limit(pid: int, more: int) -> None:
    """That process may open so many more files."""
    used = max(int(fd.name) for fd in Path(f"/proc/{pid}/fd").iterdir()) + 1
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + more, hard))


@contextlib.asynccontextmanager
async def running(
    directory: Path, *options: str, welcome: Welcome | None = None, only: int = 0, within: Sequence[str] = ()
) -> AsyncIterator[tuple[FakeServer, Node]]:
    """A server and a node that is connected to it."""
    server = FakeServer()
    server.welcome, server.only = welcome or server.welcome, only
    await server.up()
    node = Node(directory, server, *options)
    node.within += within
    try:
        await node.up()
        yield server, node
        assert "Traceback" not in node.agent_log(), node.agent_log()
    finally:
        await node.down()
        await server.down()
