"""SHELL: the agent of a node: feeds the machine with what the server and the supervisor say, and does what it answers.

It may crash at any moment: the supervisor starts it again, and it adopts what runs from the supervisor's list.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from jarvis import __version__
from jarvis.bus.messages import (
    FENCE_VERSION,
    OLDEST_VERSION,
    PROTOCOL_VERSION,
    BlobData,
    BlobStored,
    ChunkStored,
    Heartbeat,
    StreamData,
    StreamOpen,
    StreamResize,
    StreamTaken,
    ToAgent,
)
from jarvis.core.effects import Assign, Look, Recall, Recorded, Refused, Seen, Signal, Stop, Welcome
from jarvis.core.inputs import Ended, Hello
from jarvis.core.states import Cause
from jarvis.core.task import ADDRESS_LABEL, CONTAINER_LABEL
from jarvis.utils.collector import keep_what_is_here, look_seldom
from jarvis.utils.keeper import Keeper
from jarvis.worker import identity
from jarvis.worker.account import Accounts
from jarvis.worker.agent_options import container_mounts, parse
from jarvis.worker.attempt_files import AttemptFiles
from jarvis.worker.background import Background
from jarvis.worker.bodies import Bodies
from jarvis.worker.container_engine import images, probe
from jarvis.worker.credentials import Credentials
from jarvis.worker.fence import Fence
from jarvis.worker.gpu_devices import sizes as gpu_sizes
from jarvis.worker.holding import Holding
from jarvis.worker.hooks import HookRunner, Hooks
from jarvis.worker.logs import Shipper, exhausted, is_lack
from jarvis.worker.looking import Looking
from jarvis.worker.machine import Deliver, Forget, Instruction, Kill, Machine, Say, Stage, Start, Withdraw, Work
from jarvis.worker.process_orders import work_of
from jarvis.worker.remover import Remover
from jarvis.worker.resource_monitor import ResourceMonitor, boot_id, detect_labels, detect_resources, find_address
from jarvis.worker.server_address import JoinedAddress, ServerAddress
from jarvis.worker.session import Session
from jarvis.worker.streams import Streams
from jarvis.worker.supervisor_client import SupervisorClient
from jarvis.worker.task_executor import DEFECT, TaskExecutor, cut
from jarvis.worker.task_executors.container import ContainerExecutor
from jarvis.worker.task_executors.function import FunctionExecutor
from jarvis.worker.task_executors.process import ProcessExecutor
from jarvis.worker.warm import SERVICE_NUMBERS, Launcher

log = logging.getLogger("jarvis.agent")

CHECK_S = 10.0
NO_FENCE_S = 1e9
"""A server of version 1 does not answer heartbeats: its nodes trust it to wait."""
AGAIN_MOST = 2_000


class Agent:
    """One node's agent; also the handler of its session and what its executors report to."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.directory = Path(options.dir).absolute()
        self.name = options.name or socket.gethostname()
        self.gpu_memory: tuple[int, ...] = options.gpu_memory or gpu_sizes()
        self.resources = detect_resources(options.cpus, options.memory, options.gpus, self.gpu_memory)
        self.labels = detect_labels() | dict(options.label)
        self.machine = Machine(self.resources, self.gpu_memory, fence_open=False)
        self.spawn = Background(self._start_anew, self._broke).spawn
        self.fence = Fence(secrets.randbits(40) << 20)
        self._hello_at = 0.0
        self._speaks = self._version = PROTOCOL_VERSION
        """What the next Hello says, and what was agreed on for this session."""
        self._welcomed, self._over = asyncio.Event(), asyncio.Event()
        self._anew = False
        self.supervisor = SupervisorClient(self.directory / "supervisor.sock")
        self.credentials = Credentials(Path(options.credentials)) if options.credentials else None
        self.session = self._session()
        self.monitor = ResourceMonitor(self.directory)
        hooks = Hooks(
            options.health_check, options.health_interval, options.prolog, options.epilog, options.hook_timeout
        )
        self.hooks = HookRunner(hooks, self.name, self.spawn, self._welcomed.set)
        self.shipper = Shipper(self.session.say)
        self.bodies = Bodies(self.session)
        self.looking = Looking(options.watch, self.session.say)
        self.heartbeat_s = 2.0
        self._identity = identity.load(self.directory)
        self._said: set[int] = set()
        accounts, url = Accounts(options.allow_root), options.url[0].rstrip("/") if options.url else ""
        output = self.directory / "output"
        output.mkdir(mode=0o711, exist_ok=True)
        self.remover = Remover(output)
        files = AttemptFiles(self.directory, self.bodies.fetch, self.bodies.put, options.file_cache)
        self.holding, self.sets = Holding(), files.sets
        self.processes = ProcessExecutor(
            self.supervisor, self, self.shipper, self.remover, accounts, self.directory, self.name, url,
            self.bodies.fetch, self.spawn, files,
        )  # fmt: skip
        self.containers = ContainerExecutor(
            self.processes, self, accounts, self.directory, self.name, container_mounts(options), self.spawn, self.fence
        )
        launcher = Launcher(self.supervisor, self.directory / "functions", self.name, url)
        self.functions = FunctionExecutor(
            self.supervisor, self, self.shipper, launcher, accounts, self.bodies.fetch, self.bodies.put, self.spawn, files,
        )  # fmt: skip
        self.streams = Streams(
            self.machine, self.supervisor, self.session.say, self._output_of, self.spawn, self.processes.exec_place,
            self.containers.execute,
        )  # fmt: skip

    def _session(self) -> Session:
        """To the server of this machine, by its token, or to those of the cluster that this node has joined."""
        if self.credentials is not None:
            return Session(self, JoinedAddress(self.credentials), self.credentials.dial)
        own = Path(self.options.server_file) if self.options.server_file else None
        return Session(self, ServerAddress(self.options.url, Path(self.options.token_file), own))

    # ------------------------------------------------------------ life

    async def run(self) -> None:
        """Until the supervisor is gone (its end is the end of everything here) or says with a SIGTERM that it goes."""
        welcome = await self.supervisor.connect()
        tasks: list[asyncio.Task[Any]] = [asyncio.create_task(self._listen())]
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._over.set)
        tasks.append(asyncio.create_task(self._over.wait()))
        self.fence.since = float(welcome.get("fence_until") or 0.0) - self.fence.fence_s
        urls = self.options.url if self.credentials is None else self.credentials.urls
        self.labels.setdefault(ADDRESS_LABEL, await find_address(urls))
        await self._look_for_engine()
        await self._adopt(welcome["attempts"])
        tasks += self._loops()
        done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            task.cancel()
        for error in filter(None, map(exhausted, done)):
            self._start_anew(error)
        if self._anew:
            return
        await self.containers.close()
        for task in done:
            task.result()

    def _loops(self) -> list[asyncio.Task[None]]:
        """What ends the agent when it ends, and what begins anew when it ends on a defect: a node goes on without it."""
        kept: dict[str, Callable[[], Awaitable[None]]] = {
            "removing": self.remover.run,
            "the health check": self.hooks.keep_checking,
            "looking at what is here": lambda: self.holding.keep_looking(self.sets, images),
        }
        if self.credentials is not None:
            kept["renewing the certificate"] = self.credentials.keep_fresh
        keeper = Keeper(is_lack)
        loops = [self.session.run(), self._beat(), *(keeper.keep(name, run) for name, run in kept.items())]
        return [asyncio.create_task(loop) for loop in loops]

    async def _look_for_engine(self) -> None:
        """The label that container tasks look for. A node whose engine came or went tells so in a new Hello."""
        reason = await probe()
        label = "none" if reason else "docker"
        if self.labels.get(CONTAINER_LABEL) != label:
            log.info("container engine: %s", reason or "it answers")
            self.labels[CONTAINER_LABEL] = label
            self.session.renew()

    def _broke(self, work: Work, error: Exception) -> None:
        if work.number in self.machine.active or work.number in self.machine.leaving:
            self._executor(work).broke(work, f"{DEFECT}: {type(error).__name__}: {error}")

    def _start_anew(self, error: OSError) -> None:
        log.error("%s: the agent starts anew, and adopts what is here", error.strerror)
        self._anew = True
        self._over.set()

    async def _beat(self) -> None:
        checked = time.monotonic()
        while True:
            with contextlib.suppress(TimeoutError):  # a session begins: its heartbeats have a pace of their own
                await asyncio.wait_for(self._welcomed.wait(), self.heartbeat_s)
            self._welcomed.clear()
            self._say_heartbeat()
            self._look_at_fence(self.heartbeat_s)
            if time.monotonic() - checked >= CHECK_S:
                checked = time.monotonic()
                self.functions.end_idle()
                self._say_again()
                self.spawn(self._look_for_engine())

    def _say_heartbeat(self) -> None:
        asks = self.session.connected and self._version >= FENCE_VERSION and self.machine.fenced
        beat = self.fence.ask(boottime()) if asks else 0
        holds = self.holding.to_say(boottime()) if self.session.connected else None
        health, told = self.monitor.sample(), self.session.told
        self.session.say(Heartbeat(health=health, told=told, beat=beat, unfit=self.hooks.unfit, holds=holds))

    # ------------------------------------------------------------ the fence

    def _look_at_fence(self, ahead_s: float = 0.0) -> None:
        """When it closes, the supervisor ends what is fenced. Containers are ended from here, too, because only we can tell
        why they end."""
        if boottime() + ahead_s < self.fence.until:
            return
        self.machine.fence_open = False
        for work in list(self.machine.active.values()):
            if work.spec.kind == "container" and work.spec.on_lost == "fence":
                self.containers.kill(work, Cause.NODE_LOST, self.fence.grace_s)

    def _fence_moved(self) -> None:
        """The supervisor learns it first, and then gets what waited for it."""
        fence = self.fence
        message = {"at": fence.since, "fence_s": fence.fence_s, "grace_s": fence.grace_s}
        self.supervisor.send({"op": "fence", **message})
        if boottime() < fence.until:
            self._do(self.machine.open_fence())

    def _say_again(self) -> None:
        """An end that was not recorded at one check, and still is not at the next, is said again."""
        said = set(self.machine.ended)
        for number in list(said & self._said)[:AGAIN_MOST]:
            self.session.say(self.machine.ended[number])
        self._said = said

    async def _adopt(self, attempts: list[dict[str, Any]]) -> None:
        """What the supervisor holds: running attempts go on, ended ones are reported, warm processes tell what they have.
        This comes before the first session, whose Hello names all that is here."""
        services = [attempt for attempt in attempts if attempt["number"] >= SERVICE_NUMBERS]
        held = [(attempt, work_of(attempt["tag"])) for attempt in attempts if attempt["number"] < SERVICE_NUMBERS]
        self.processes.find_places({work.place for _, work in held})
        lanes: dict[int, list[Work]] = {}
        for attempt, work in held:
            self._adopt_attempt(attempt, work, lanes)
        for ident, works in lanes.items():
            self.processes.adopt_lane(ident, works)
        await self.functions.adopt(services)
        await self.containers.adopt()
        here = {work.assignment.task for work in self.machine.everything()}
        self.remover.sweep(lambda task: task in here)

    def _adopt_attempt(self, attempt: dict[str, Any], work: Work, lanes: dict[int, list[Work]]) -> None:
        """``lanes``: those that have not ended are put here, by lane and in order."""
        if attempt["state"] == "ended":
            self.machine.adopt(work, "leaving")
            self.processes.reported(work, attempt["end"])
            return
        self.machine.adopt(work, "piped" if attempt["state"] == "queued" else "active")
        if attempt.get("lane") is not None:
            lanes.setdefault(attempt["lane"], []).append(work)

    async def _listen(self) -> None:
        """The supervisor's reports, until its socket closes."""
        try:
            while True:
                for report in await self.supervisor.receive_some():
                    self._supervisor_said(report)
        except (asyncio.IncompleteReadError, ConnectionError):
            log.warning("the supervisor is gone")
        except OSError as error:
            if not is_lack(error):
                raise
            self._start_anew(error)

    def _supervisor_said(self, report: dict[str, Any]) -> None:
        op, number = report["op"], int(report.get("number") or 0)
        if report.get("fenced"):
            self.machine.fence_open = False
        if op in ("ended", "start_failed"):
            self._attempt_ended(number, report)
        elif op == "started" and number < SERVICE_NUMBERS:
            self.started(number, float(report.get("age_s") or 0.0))
        elif op == "refused":
            log.error("the supervisor refused %s", json.dumps(report))
            text = f"the supervisor refused it: {report.get('reason')} {report.get('error') or ''}"
            self._attempt_ended(number, {"code": 125, "error": text.rstrip()})
        elif op == "recalled":
            self.processes.not_begun(report["numbers"])
        elif op in ("exec_started", "exec_failed", "exec_ended"):
            self.streams.exec_said(report)
        elif op == "error":
            log.info("the supervisor could not do it: %s", json.dumps(report))

    def _attempt_ended(self, number: int, report: dict[str, Any]) -> None:
        if number >= SERVICE_NUMBERS:
            self.functions.service_ended(number, report)
        elif (work := self.machine.active.get(number)) is not None:
            self.processes.reported(work, report)
        else:
            self.processes.not_begun([number])

    # ------------------------------------------------------------ what the machine answers

    def _do(self, instructions: list[Instruction]) -> None:
        for item in instructions:
            if isinstance(item, Say):
                self.session.say(item.message)
            elif isinstance(item, Start):
                self._start(item.work)
            elif isinstance(item, Forget):
                self._forget(item)
            elif isinstance(item, Kill) and not self.hooks.is_before(item.work.number):
                self._executor(item.work).kill(item.work, item.cause, item.grace_s)
            elif isinstance(item, Withdraw):
                (self.functions if item.work.spec.function is not None else self.processes).withdraw(item.work)
            elif isinstance(item, Deliver):
                self._executor(item.work).signal(item.work, item.signum)

    def _start(self, work: Work) -> None:
        number = work.number

        def begin() -> None:
            if work.stop_cause is not None:
                self.finished(cut(work, work.stop_cause, "stopped before it started"))
            else:
                self._executor(work).start(work)

        self.hooks.before(work, begin, lambda reason: self._do(self.machine.give_back(number, reason)))

    def _forget(self, item: Forget) -> None:
        if self.functions.holds(item.number):
            self.functions.forget(item.number, item.work)
        elif item.work is None or item.work.spec.kind == "process":
            self.processes.forget(item.number, item.work)
        elif item.work.spec.kind == "container":
            self.containers.forget(item.number, item.work)

    def _executor(self, work: Work) -> TaskExecutor:
        executors: dict[str, TaskExecutor] = {"function": self.functions, "container": self.containers}
        return executors.get(work.spec.kind, self.processes)

    def started(self, number: int, age: float = 0.0) -> None:
        self._do(self.machine.started(number, age))

    def finished(self, end: Ended, heir: int | None = None) -> None:
        if self.hooks.hooks.epilog:
            work = self.machine.active.get(end.number) or self.machine.leaving.get(end.number)
            self.hooks.after(work, end, lambda: self._do(self.machine.finished(end, heir)))
        else:
            self._do(self.machine.finished(end, heir))

    def vacated(self, number: int, heir: int | None = None) -> None:
        self._do(self.machine.vacated(number, heir))

    def unbegun(self, number: int, heir: int | None) -> None:
        self._do(self.machine.unbegun(number, heir))

    def withdrawn(self, works: Sequence[Work]) -> None:
        self._do(self.machine.withdrawn(works))

    def ahead(self, like: Work, limit: int) -> list[Work]:
        """Nothing where something runs around each attempt."""
        return [] if self.hooks.hooks.around_attempts else self.machine.ahead(like, limit)

    def adopted(self, work: Work, where: Stage) -> None:
        self.machine.adopt(work, where)

    def _output_of(self, work: Work, stream: str) -> tuple[str, int, int | None]:
        path, base = self._executor(work).output_of(work, stream)
        return path, base, self.processes.owner_of(work)

    # ------------------------------------------------------------ session

    def hello(self) -> Hello:
        self._hello_at = boottime()
        return Hello(
            version=self._speaks, oldest=OLDEST_VERSION, software=__version__, name=self.name, node=self._identity.node,
            boot_id=boot_id(), resources=self.resources, labels=self.labels,
            taints=tuple(self.options.taint), watch=tuple(self.options.watch), known=self.machine.known(),
            incarnation=self._identity.incarnation, epoch=self._identity.epoch, ordinal=time.monotonic_ns(),
            booted_at=time.time() - boottime(), gpu_memory=self.gpu_memory,
        )  # fmt: skip

    def welcomed(self, welcome: Welcome) -> None:
        """Take over what the server knows, and say everything again that is not recorded."""
        seen = (self._identity.incarnation, self._identity.epoch)
        if (welcome.incarnation, welcome.epoch) < seen:
            raise OSError(f"the server's epoch {welcome.incarnation}.{welcome.epoch} is older than {seen[0]}.{seen[1]}")
        self._identity = identity.Identity(welcome.node, welcome.incarnation, welcome.epoch)
        identity.save(self.directory, self._identity)
        self.heartbeat_s, self._version, self._speaks = welcome.heartbeat_s, welcome.version, PROTOCOL_VERSION
        log.info("connected as node %d", welcome.node)
        self._look_at_fence()
        self._do(self.machine.welcomed(welcome.forget, welcome.stop, welcome.floor))
        fence_s = welcome.fence_s if welcome.version >= FENCE_VERSION else NO_FENCE_S
        if self.fence.welcomed(self._hello_at, fence_s, welcome.grace_s):
            self._fence_moved()  # after what is not wanted any more went
        self.holding.welcomed(boottime())
        self._welcomed.set()
        self.spawn(self.containers.sweep(self._is_here))

    def refused(self, refused: Refused) -> bool:
        """A server of the version before does not look for one that both speak: it is told its own."""
        before, self._speaks = self._speaks, max(min(PROTOCOL_VERSION, refused.newest), OLDEST_VERSION)
        return self._speaks != before

    def _is_here(self, number: int) -> bool:
        return number in self.machine.ended or any(work.number == number for work in self.machine.everything())

    def disconnected(self) -> None:
        self.streams.close_all()
        self.bodies.ask_again()

    def received(self, messages: list[ToAgent]) -> None:
        for message in messages:
            if isinstance(message, Assign):
                self._assigned(message)
            elif isinstance(message, Recorded):
                floor = self.machine.floor
                self._do(self.machine.recorded(message.numbers, message.floor))
                if self.machine.floor > floor:
                    self.supervisor.send({"op": "ack", "numbers": [], "floor": self.machine.floor})
            elif isinstance(message, Recall):
                self._do(self.machine.recall(message.numbers))
            elif isinstance(message, Stop):
                self._do(self.machine.stop(message.number, message.cause, message.grace_s))
            else:
                self._received_other(message)

    def _assigned(self, message: Assign) -> None:
        """Whoever had nothing fenced did not ask the leader lately, and does now."""
        self._look_at_fence()
        self._do(self.machine.assign(message.assignments))
        if self.fence.is_stale(boottime(), 2 * self.heartbeat_s) and self.machine.fenced:
            self._say_heartbeat()

    def _seen(self, message: Seen) -> None:
        self._look_at_fence()
        if self.fence.answered(message.beat):
            self._fence_moved()

    def _received_other(self, message: ToAgent) -> None:
        if isinstance(message, Seen):
            self._seen(message)
        elif isinstance(message, Signal):
            self._do(self.machine.signal(message.number, message.signum))
        elif isinstance(message, BlobData | BlobStored):
            self.bodies.answered(message)
        elif isinstance(message, ChunkStored):
            self.shipper.stored(message)
        elif isinstance(message, Look):
            self.spawn(self.looking.look(message))
        elif isinstance(message, StreamOpen):
            self.streams.opened(message)
        elif isinstance(message, StreamData):
            self.streams.data(message)
        elif isinstance(message, StreamTaken):
            self.streams.taken(message)
        elif isinstance(message, StreamResize):
            self.streams.resize(message)


def boottime() -> float:
    """Seconds of the clock that goes on while the machine sleeps, as the supervisor counts."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def main() -> None:
    options = parse(sys.argv[1:])
    if options.proxy:
        os.environ["HTTPS_PROXY"] = os.environ["https_proxy"] = options.proxy
    look_seldom()
    keep_what_is_here()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        asyncio.run(Agent(options).run())
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
