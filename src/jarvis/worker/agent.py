"""SHELL: the agent of a node: feeds the machine with what the server and the supervisor say, and does what it answers.

It may crash at any moment: the supervisor starts it again, and it adopts what runs from the supervisor's list.
"""

import argparse
import asyncio
import base64
import json
import logging
import os
import socket
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec

from jarvis import __version__
from jarvis.bus.messages import (
    PROTOCOL_VERSION,
    BlobData,
    BlobGet,
    BlobPut,
    BlobStored,
    ChunkStored,
    Heartbeat,
    StreamData,
    StreamOpen,
    StreamResize,
    ToAgent,
)
from jarvis.core.effects import Assign, Recall, Recorded, Signal, Stop, Welcome
from jarvis.core.inputs import Ended, Hello
from jarvis.core.resources import Resources, parse_bytes
from jarvis.core.states import Cause
from jarvis.core.task import TaskSpec
from jarvis.utils import server_file
from jarvis.worker.logs import Shipper
from jarvis.worker.machine import Forget, Instruction, Kill, Machine, Say, Start, Work
from jarvis.worker.resource_monitor import ResourceMonitor, boot_id, detect_labels, detect_resources
from jarvis.worker.session import Session
from jarvis.worker.streams import Streams
from jarvis.worker.supervisor_client import SupervisorClient
from jarvis.worker.task_executor import TaskExecutor
from jarvis.worker.task_executors.function import SERVICE_NUMBERS, FunctionExecutor
from jarvis.worker.task_executors.process import ProcessExecutor, Tag

log = logging.getLogger("jarvis.agent")

BLOB_S = 30.0
BLOB_PIECE = 256 * 1024
IDLE_CHECK_S = 10.0


class Identity(msgspec.Struct):
    """What a node keeps of itself: its id, and the newest leader that it has seen."""

    node: int | None = None
    incarnation: int = 0
    epoch: int = 0


class Agent:
    """One node's agent; also the handler of its session and what its executors report to."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.directory = Path(options.dir).absolute()
        self.name = options.name or socket.gethostname()
        self.resources: Resources = detect_resources(options.cpus, options.memory, options.gpus)
        self.machine = Machine(self.resources)
        self.supervisor = SupervisorClient(self.directory / "supervisor.sock")
        self.session = Session(self, self._where)
        self.monitor = ResourceMonitor(self.directory)
        self.shipper = Shipper(self.session.say)
        self.heartbeat_s = 2.0
        self._identity = self._load_identity()
        self._background: set[asyncio.Task[None]] = set()
        self._requests: dict[int, asyncio.Future[BlobData | BlobStored]] = {}
        self._next_request = 0
        node, root = self.name, options.allow_root
        self.processes = ProcessExecutor(
            self.supervisor, self, self.shipper, self.directory, node, root, self.fetch_blob, self.spawn
        )
        self.functions = FunctionExecutor(
            self.supervisor, self, self.shipper, self.directory, node, root, self.fetch_blob, self.put_blob, self.spawn
        )
        self.streams = Streams(self.machine, self.supervisor, self.session.say, self._output_path, self.spawn)

    # ------------------------------------------------------------ life

    async def run(self) -> None:
        """Until the supervisor is gone (its end is the end of everything here) or cancelled."""
        welcome = await self.supervisor.connect()
        self._adopt(welcome["attempts"])
        loops = [self.session.run(), self._beat(), self._listen()]
        tasks = [asyncio.create_task(loop) for loop in loops]
        done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            task.cancel()
        for task in done:
            task.result()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run in the background; an error there is a defect and is logged."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background_done)

    def _background_done(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a background task failed", exc_info=task.exception())

    async def _beat(self) -> None:
        rounds = 0
        while True:
            await asyncio.sleep(self.heartbeat_s)
            self.session.say(Heartbeat(health=self.monitor.sample()))
            rounds += 1
            if rounds * self.heartbeat_s % IDLE_CHECK_S < self.heartbeat_s:
                self.functions.end_idle()

    def _adopt(self, attempts: list[dict[str, Any]]) -> None:
        """What the supervisor holds: running attempts go on, ended ones are reported, warm processes start anew."""
        for attempt in attempts:
            number = int(attempt["number"])
            if number >= SERVICE_NUMBERS:
                if attempt["state"] == "ended":
                    self.supervisor.send({"op": "ack", "numbers": [number]})
                else:
                    self.supervisor.send({"op": "kill", "number": number, "grace_s": 0.0, "cause": "agent_restarted"})
                continue
            tag = msgspec.msgpack.decode(base64.b64decode(attempt["tag"]), type=Tag)
            spec = msgspec.msgpack.decode(tag.assignment.spec, type=TaskSpec)
            work = Work(tag.assignment, spec, tag.gpus)
            self.machine.adopt(work)
            if attempt["state"] == "ended":
                self.processes.reported(work, attempt["end"])

    async def _listen(self) -> None:
        """The supervisor's reports, until its socket closes."""
        try:
            while True:
                self._supervisor_said(await self.supervisor.receive())
        except asyncio.IncompleteReadError:
            log.warning("the supervisor is gone")

    def _supervisor_said(self, report: dict[str, Any]) -> None:
        op, number = report["op"], int(report.get("number") or 0)
        if op in ("ended", "start_failed"):
            if number >= SERVICE_NUMBERS:
                if not self.functions.service_ended(number, report):
                    self.supervisor.send({"op": "ack", "numbers": [number]})
                return
            work = self.machine.active.get(number)
            if work is not None:
                self.processes.reported(work, report)
        elif op == "started" and number < SERVICE_NUMBERS:
            self._do(self.machine.started(number, float(report.get("age_s") or 0.0)))
        elif op == "refused":
            log.error("the supervisor refused %s", json.dumps(report))
            work = self.machine.active.get(number)
            if work is not None:
                text = f"the supervisor refused it: {report.get('reason')} {report.get('error') or ''}"
                self.processes.reported(work, {"code": 125, "error": text})

    # ------------------------------------------------------------ what the machine answers

    def _do(self, instructions: list[Instruction]) -> None:
        for item in instructions:
            if isinstance(item, Say):
                self.session.say(item.message)
            elif isinstance(item, Start):
                self._executor(item.work).start(item.work)
            elif isinstance(item, Kill):
                self._executor(item.work).kill(item.work, item.cause, item.grace_s)
            elif isinstance(item, Forget):
                executor = self.processes if item.work is None else self._executor(item.work)
                executor.forget(item.number, item.work)

    def _executor(self, work: Work) -> TaskExecutor:
        return self.functions if work.spec.kind == "function" else self.processes

    def started(self, number: int, age: float = 0.0) -> None:
        self._do(self.machine.started(number, age))

    def finished(self, end: Ended) -> None:
        self._do(self.machine.finished(end))

    def _output_path(self, work: Work, stream: str) -> str:
        stdout, stderr = self.processes.output_paths(work)
        return stderr if stream == "stderr" and stderr is not None else stdout

    # ------------------------------------------------------------ session

    def hello(self) -> Hello:
        return Hello(
            version=PROTOCOL_VERSION, software=__version__, name=self.name, node=self._identity.node,
            boot_id=boot_id(), resources=self.resources, labels=detect_labels() | dict(self.options.label),
            taints=tuple(self.options.taint), known=self.machine.known(),
            incarnation=self._identity.incarnation, epoch=self._identity.epoch,
        )  # fmt: skip

    def welcomed(self, welcome: Welcome) -> None:
        """Take over what the server knows, and say everything again that is not recorded."""
        seen = (self._identity.incarnation, self._identity.epoch)
        if (welcome.incarnation, welcome.epoch) < seen:
            raise OSError(f"the server's epoch {welcome.incarnation}.{welcome.epoch} is older than {seen[0]}.{seen[1]}")
        self._identity = Identity(welcome.node, welcome.incarnation, welcome.epoch)
        self._save_identity()
        self.heartbeat_s = welcome.heartbeat_s
        log.info("connected as node %d", welcome.node)
        self._do(self.machine.recorded(welcome.forget, welcome.floor))
        for number in welcome.stop:
            self._do(self.machine.stop(number, Cause.CANCELLED, 10.0))
        for end in self.machine.unrecorded():
            self.session.say(end)
        self.session.say(Heartbeat(health=self.monitor.sample()))

    def received(self, messages: list[ToAgent]) -> None:
        for message in messages:
            if isinstance(message, Assign):
                self._do(self.machine.assign(message.assignments))
            elif isinstance(message, Recorded):
                self._do(self.machine.recorded(message.numbers, message.floor))
                self.supervisor.send({"op": "ack", "numbers": [], "floor": self.machine.floor})
            elif isinstance(message, Recall):
                self._do(self.machine.recall(message.numbers))
            elif isinstance(message, Stop):
                self._do(self.machine.stop(message.number, message.cause, message.grace_s))
            else:
                self._received_other(message)

    def _received_other(self, message: ToAgent) -> None:
        if isinstance(message, Signal):
            work = self.machine.active.get(message.number)
            if work is not None:
                self._executor(work).signal(work, message.signum)
        elif isinstance(message, BlobData | BlobStored):
            future = self._requests.pop(message.request, None)
            if future is not None and not future.done():
                future.set_result(message)
        elif isinstance(message, ChunkStored):
            self.shipper.stored(message)
        elif isinstance(message, StreamOpen):
            self.streams.opened(message)
        elif isinstance(message, StreamData):
            self.streams.data(message)
        elif isinstance(message, StreamResize):
            self.streams.resize(message)

    # ------------------------------------------------------------ bodies

    async def fetch_blob(self, task: int, digest: str) -> bytes:
        """A body that a task here needs; raises OSError when the server does not have it."""
        parts: list[bytes] = []
        offset = 0
        while True:
            request = self._request()
            get = BlobGet(request=request, task=task, digest=digest, offset=offset, length=BLOB_PIECE)
            answer = await self._ask(request, get)
            assert isinstance(answer, BlobData)
            if answer.error:
                raise OSError(answer.error)
            parts.append(answer.data)
            offset += len(answer.data)
            if offset >= answer.size or not answer.data:
                return b"".join(parts)

    async def put_blob(self, number: int, token: int, data: bytes) -> str:
        request = self._request()
        answer = await self._ask(request, BlobPut(request=request, number=number, token=token, data=data))
        assert isinstance(answer, BlobStored)
        if answer.error:
            raise OSError(answer.error)
        return answer.digest

    def _request(self) -> int:
        self._next_request += 1
        return self._next_request

    async def _ask(self, request: int, message: BlobGet | BlobPut) -> BlobData | BlobStored:
        """Ask, and ask again when a session broke before the answer came."""
        for _ in range(20):
            future: asyncio.Future[BlobData | BlobStored] = asyncio.get_running_loop().create_future()
            self._requests[request] = future
            self.session.say(message)
            try:
                async with asyncio.timeout(BLOB_S if self.session.connected else 1.0):
                    return await future
            except TimeoutError:
                continue
        raise TimeoutError("the server did not answer")

    # ------------------------------------------------------------ files

    def _where(self) -> tuple[str, str]:
        """URL and token, read anew for each session: a server that started again may have others."""
        token = Path(self.options.token_file).read_text(encoding="ascii").strip()
        own = server_file.read(Path(self.options.server_file)) if self.options.server_file else None
        url = (own.url if own is not None else self.options.url).rstrip("/").replace("http", "ws", 1)
        return f"{url}/agent/v1/session", token

    def _load_identity(self) -> Identity:
        try:
            return msgspec.json.decode((self.directory / "node.json").read_bytes(), type=Identity)
        except (OSError, msgspec.DecodeError):
            return Identity()

    def _save_identity(self) -> None:
        temporary = self.directory / ".node.json"
        temporary.write_bytes(msgspec.json.encode(self._identity))
        os.replace(temporary, self.directory / "node.json")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="jarvis-agent", description="The agent of a node; started by its supervisor.")
    parser.add_argument("--dir", required=True)
    parser.add_argument("--url", required=True)
    parser.add_argument("--token-file", required=True)
    parser.add_argument("--server-file", help="directory whose server.json tells where the server is now")
    parser.add_argument("--name")
    parser.add_argument("--cpus", type=float)
    parser.add_argument("--memory", type=parse_bytes)
    parser.add_argument("--gpus", type=float)
    parser.add_argument("--label", type=_pair, action="append", default=[])
    parser.add_argument("--taint", action="append", default=[])
    parser.add_argument("--allow-root", action="store_true")
    return parser.parse_args(argv)


def main() -> None:
    options = parse(sys.argv[1:])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        asyncio.run(Agent(options).run())
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
