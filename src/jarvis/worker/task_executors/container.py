"""Containers: each attempt is one container, whose labels say whose it is, so that an agent that starts anew adopts it.

The engine is the journal: a container's name holds the attempt's number and token, so that none is made twice; it is removed
only after its end was recorded. Its output goes from the engine's log to the file that a process would write.
"""

import asyncio
import base64
import contextlib
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from jarvis.bus.messages import StreamOpen
from jarvis.core.states import Cause
from jarvis.core.task import Container, TaskSpec
from jarvis.worker import container_guard
from jarvis.worker.account import Account, Accounts, NoSuchUser
from jarvis.worker.container_config import Box, container_env, create_config
from jarvis.worker.container_engine import Engine, EngineError, find_socket
from jarvis.worker.container_exec import ContainerExec
from jarvis.worker.container_usage import Use
from jarvis.worker.ends import FENCED
from jarvis.worker.fence import Fence
from jarvis.worker.logs import file_size
from jarvis.worker.machine import Work
from jarvis.worker.process_orders import Tag, tag_of
from jarvis.worker.task_executor import Reports, Spawn, cut, failed, lost
from jarvis.worker.task_executors.process import MissingInput, ProcessExecutor

log = logging.getLogger("jarvis.containers")

NODE, ATTEMPT, TOKEN, TAG = "jarvis.node", "jarvis.attempt", "jarvis.token", "jarvis.tag"
AGAIN_S = 1.0
ENGINE_S = 10.0
"""How long an agent that starts waits for an engine that holds containers of its own."""
LOG_S = 300.0
"""How long the rest of the output may take after the end."""
STOP_S = 2.0
"""Between the soft signal and the kill when the node itself ends."""
CLOSE_S = 12.0
"""How long the engine may take to end and remove all when the node itself ends; its supervisor waits a little longer."""
LOOK_S = 0.05


class Refused(Exception):
    """This node does not do that; says why."""


@dataclass(eq=False)
class Running:
    """A container that runs. ``doom``: why it was asked to end, if it was; ``kill_at``: when it is made to."""

    work: Work
    id: str
    age: float = 0.0
    doom: str = ""
    kill_cause: str = ""
    kill_at: float = float("inf")
    use: Use = field(default_factory=Use)
    timers: list[asyncio.TimerHandle] = field(default_factory=list)


class ContainerExecutor:
    """See the port. ``mounts``: the host's paths below which tasks may mount."""

    def __init__(
        self, processes: ProcessExecutor, reports: Reports, accounts: Accounts, directory: Path, node: str,
        mounts: tuple[str, ...], spawn: Spawn, fence: Fence,
    ) -> None:  # fmt: skip
        self._processes, self._reports, self._accounts = processes, reports, accounts
        self._node, self._mounts, self._spawn, self._fence = node, mounts, spawn, fence
        self._identity_path = directory / "containers.id"
        self._engine = Engine()
        self._preparing: dict[int, asyncio.Task[Running]] = {}
        self._running: dict[int, Running] = {}

    # ------------------------------------------------------------ orders

    def start(self, work: Work) -> None:
        self._spawn(self._start(work), work)

    async def _start(self, work: Work) -> None:
        making = self._preparing[work.number] = asyncio.ensure_future(self._make(work))
        await asyncio.wait([making])
        self._preparing.pop(work.number, None)
        if making.cancelled():
            self._reports.finished(cut(work, work.stop_cause or Cause.CANCELLED, "stopped before it started"))
            return
        try:
            running = making.result()
        except (EngineError, Refused, MissingInput, NoSuchUser, OSError) as error:
            image = work.spec.container.image if work.spec.container else ""
            self._reports.finished(failed(work, f"node {self._node}: image {image}: {error}", _exit_code(error)))
            return
        self._reports.started(work.number)
        await self._attend(running)

    async def _make(self, work: Work) -> Running:
        """Everything up to its start."""
        container = work.spec.container
        assert container is not None
        if reason := await self._engine.ready():
            raise Refused(f"this node cannot run containers: {reason}")
        account = self._accounts.of(work.assignment.user)
        self._permit(container, work.spec, account)
        script, entry = await self._processes.inputs(work)
        await self._image(container)
        scratch = self._processes.scratch(work, account)
        env = container_env(self._processes.environment(work, account, scratch, entry), work)
        box = Box(env, scratch, self._labels(work), await self._engine.log_config(), self._engine.init, script)
        if account.switch is not None:
            box.uid, box.gid, box.groups = account.switch["uid"], account.switch["gid"], tuple(account.switch["groups"])
        for path in filter(None, self._processes.output_paths(work)):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644))
        while self._fenced_off(work):  # noqa: ASYNC110 - an image may have taken its time, and a clock wakes nobody
            await asyncio.sleep(AGAIN_S)
        del self._preparing[
            work.number
        ]  # from here on it is stopped like one that runs: an engine asked twice makes two
        running = Running(work, await self._engine.create(self._name(work), create_config(container, work, box)))
        if work.spec.on_lost == "fence":
            script_path = str(Path(container_guard.__file__))
            argv = [sys.executable, "-I", "-S", script_path, str(find_socket()), running.id, str(self._fence.grace_s)]
            self._processes.guard(work.number, argv)
        try:
            await self._engine.start(running.id)
        except EngineError:
            self._processes.guard(work.number, None)
            await self._ask(self._engine.remove(running.id))
            raise
        return running

    def _fenced_off(self, work: Work) -> bool:
        return work.spec.on_lost == "fence" and time.clock_gettime(time.CLOCK_BOOTTIME) >= self._fence.until

    def _permit(self, container: Container, spec: TaskSpec, account: Account) -> None:
        """Where the agent serves several users, a container runs as its owner, and the node says what may be mounted."""
        if account.switch is not None and (container.user or spec.stdout or spec.stderr):
            what = "container_user" if container.user else "an output file"
            raise Refused(f"this node runs the containers of several users: {what} cannot be chosen")
        for source, _, read_only in container.mounts:
            real = os.path.realpath(source)
            if not any(real == prefix or real.startswith(prefix.rstrip("/") + "/") for prefix in self._mounts):
                raise Refused(f"{source} may not be mounted here: it is not below the node's containers.mounts")
            if not os.path.exists(real):
                raise Refused(f"{source} cannot be mounted: it is not there")
            if not os.access(real, os.R_OK if read_only else os.R_OK | os.W_OK):
                raise Refused(f"{source} cannot be mounted: no permission{'' if read_only else ' to write'}")

    async def _image(self, container: Container) -> None:
        """See to it that the image is here, as the pull policy says."""
        here = container.pull != "always" and await self._engine.has_image(container.image)
        if here:
            return
        if container.pull == "never":
            raise Refused("it is not on this node, and the task says pull: never")
        try:
            await self._engine.pull(container.image)
        except EngineError as error:
            raise EngineError(error.status, f"it could not be pulled: {error}") from None

    def kill(self, work: Work, cause: Cause, grace_s: float) -> None:
        if (running := self._running.get(work.number)) is not None:
            self._end(running, "killed", str(cause), grace_s)
        elif (making := self._preparing.get(work.number)) is not None:
            making.cancel()

    def signal(self, work: Work, signum: int) -> None:
        """Stopping and continuing are for everything in the container, other signals for its first process."""
        running = self._running.get(work.number)
        if running is None:
            return
        if signum in (signal.SIGSTOP, signal.SIGTSTP, signal.SIGCONT):
            self._spawn(self._ask(self._engine.pause(running.id, signum != signal.SIGCONT)))
        else:
            self._spawn(self._ask(self._engine.signal(running.id, signum)))

    def broke(self, work: Work, message: str) -> None:
        self._spawn(self._end_broken(work, message))

    async def _end_broken(self, work: Work, message: str) -> None:
        """Not before its container is gone, if there is one: nothing may run beside the next attempt."""
        while not await self._is_removed(self._name(work)):  # noqa: ASYNC110 - an engine that is away tells nobody when it is back
            await asyncio.sleep(AGAIN_S)
        self._processes.guard(work.number, None)
        self._reports.finished(lost(work, message))

    async def _is_removed(self, container: str) -> bool:
        try:
            await self._engine.remove(container)
        except EngineError as error:
            log.warning("container %s, which a defect left, could not be removed: %s", container, error)
            return False
        return True

    def forget(self, number: int, work: Work | None) -> None:
        """The end is recorded: now the container may go."""
        if work is not None:
            self._spawn(self._remove(self._name(work)))
            self._processes.discard(work)

    def output_of(self, work: Work, stream: str) -> tuple[str, int]:
        return self._processes.output_of(work, stream)

    async def execute(self, work: Work, message: StreamOpen) -> ContainerExec:
        """A command beside the task. Raises :class:`EngineError`, or OSError where it does not run yet."""
        running = self._running.get(work.number)
        if running is None:
            raise OSError("its container does not run yet")
        return await self._engine.execute(running.id, message.argv, message.env, message.pty)

    # ------------------------------------------------------------ while it runs

    async def _attend(self, running: Running) -> None:
        """Until it is over, and told."""
        work = running.work
        self._running[work.number] = running
        if work.stop_cause is not None:
            self._end(running, "killed", str(work.stop_cause), work.spec.grace)
        self._set_limits(running)
        sampler = asyncio.create_task(self._sample(running))
        try:
            state = await self._until_over(running)
        finally:
            del self._running[work.number]
            if work.spec.on_lost == "fence":
                self._processes.guard(work.number, None)
            sampler.cancel()
            for timer in running.timers:
                timer.cancel()
        self._processes.reported(work, self._report(running, state))

    async def _until_over(self, running: Running) -> dict[str, Any] | None:
        """The state in which it ended, with all its output copied; None when somebody removed it."""
        while True:
            copier = asyncio.create_task(self._copy(running, follow=True))
            try:
                await self._engine.wait(running.id)
                copier.cancel()
                await asyncio.wait([copier])
                await self._rest(running)
                state: dict[str, Any] = (await self._engine.inspect(running.id))["State"]
                return state
            except EngineError as error:
                if error.status == 404:
                    return None
                log.warning("attempt %d: %s", running.work.number, error)
                await asyncio.sleep(AGAIN_S)
            finally:
                copier.cancel()

    async def _rest(self, running: Running) -> None:
        """What was not copied yet when it ended. Engines are known to end a log that is followed before its last line."""
        try:
            async with asyncio.timeout(LOG_S):
                await self._copy(running, follow=False)
        except (EngineError, OSError, TimeoutError) as error:
            log.warning("output of attempt %d is not complete: %s", running.work.number, error)

    async def _copy(self, running: Running, *, follow: bool) -> None:
        """From the engine's log to the files. What they hold already, copied before its end or before the agent started
        anew, is passed over: the log comes from its first byte, in the same order."""
        limit = running.work.spec.output_limit
        stdout, stderr = self._processes.output_paths(running.work)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        async with contextlib.AsyncExitStack() as stack:
            out = stack.enter_context(os.fdopen(os.open(stdout, flags, 0o644), "ab", 0))
            err = out if stderr is None else stack.enter_context(os.fdopen(os.open(stderr, flags, 0o644), "ab", 0))
            held = {sink: os.fstat(sink.fileno()).st_size for sink in (out, err)}
            passed = dict.fromkeys(held, 0)
            log_of = await stack.enter_async_context(contextlib.aclosing(self._engine.output(running.id, follow)))
            async for stream, data in log_of:
                sink = err if stream == 2 else out
                fresh = data[max(held[sink] - passed[sink], 0) :]
                passed[sink] += len(data)
                if limit is None or passed[sink] <= limit:
                    sink.write(fresh)
                    continue
                sink.write(fresh[: max(len(fresh) - (passed[sink] - limit), 0)])
                self._end(running, "output_limit", f"wrote more than {limit} bytes", running.work.spec.grace)
                return

    async def _sample(self, running: Running) -> None:
        """Read its use while there is something to read; often at first, because most containers are short."""
        with contextlib.suppress(EngineError):
            pid, wait = int((await self._engine.inspect(running.id))["State"].get("Pid") or 0), 0.05
            while pid and running.use.look(pid):
                await asyncio.sleep(wait)
                wait = min(2 * wait, 1.0)

    def _set_limits(self, running: Running) -> None:
        spec, loop = running.work.spec, asyncio.get_running_loop()
        if spec.time_limit is not None:
            wait = max(spec.time_limit - running.age, 0.0)
            running.timers.append(loop.call_later(wait, self._end, running, "timeout", "", spec.grace))
        if spec.soft_limit is not None and spec.soft_limit > running.age:
            wait = spec.soft_limit - running.age
            running.timers.append(loop.call_later(wait, self.signal, running.work, signal.SIGTERM))

    def _end(self, running: Running, doom: str, kill_cause: str, grace_s: float) -> None:
        """Ask it to stop, and make it stop after the grace. The first reason stays; a later, shorter grace counts."""
        loop = asyncio.get_running_loop()
        if not running.doom:
            running.doom, running.kill_cause = doom, kill_cause
            if grace_s > 0:
                self._spawn(self._ask_to_stop(running))
        if loop.time() + grace_s < running.kill_at:
            running.kill_at = loop.time() + grace_s
            running.timers.append(loop.call_later(grace_s, lambda: self._spawn(self._make_stop(running), running.work)))

    async def _ask_to_stop(self, running: Running) -> None:
        await self._ask(self._engine.signal(running.id, signal.SIGTERM))
        await self._ask(self._engine.pause(running.id, False))  # a frozen process cannot obey

    async def _make_stop(self, running: Running) -> None:
        """Again and again: an engine that starts anew may have missed the first."""
        while self._running.get(running.work.number) is running:
            await self._ask(self._engine.signal(running.id, signal.SIGKILL))
            await self._ask(self._engine.pause(running.id, False))
            await asyncio.sleep(AGAIN_S)

    async def _ask(self, request: Coroutine[Any, Any, None]) -> None:
        """Something that may come too late, which is no error."""
        try:
            await request
        except EngineError as error:
            log.info("the engine could not do it: %s", error)

    def _report(self, running: Running, state: dict[str, Any] | None) -> dict[str, Any]:
        """Its end in the form in which the supervisor reports that of a process."""
        if not running.doom and self._fenced_off(running.work):
            running.doom, running.kill_cause = "killed", FENCED
        stdout, stderr = self._processes.output_paths(running.work)
        report: dict[str, Any] = {
            "cause": running.doom or "exit", "kill_cause": running.kill_cause, "usage": running.use.report(),
            "out_bytes": file_size(stdout), "err_bytes": file_size(stderr) if stderr else 0,
        }  # fmt: skip
        if state is None:
            return report | {"cause": "supervisor_lost", "kill_cause": "its container was removed by somebody else"}
        began, over = _instant(state["StartedAt"]), _instant(state["FinishedAt"])
        # An engine notes a start when it is through with it, which may be after the end of a very short command.
        report |= {"exit_code": state["ExitCode"], "wall_s": max(over - began, 0.0)}
        if state.get("OOMKilled") and not running.doom and state["ExitCode"]:
            report["cause"] = "oom"
        return report

    # ------------------------------------------------------------ whose it is

    def _identity(self) -> str:
        """Chance, made with the first container: directories of different machines may have the same path."""
        try:
            return self._identity_path.read_text(encoding="ascii")
        except FileNotFoundError:
            made = secrets.token_hex(8)
            temporary = self._identity_path.with_name(".containers.id")
            temporary.write_text(made, encoding="ascii")
            temporary.rename(self._identity_path)
            return made

    def _name(self, work: Work) -> str:
        return f"jarvis-{self._identity()}-{work.number}-{work.assignment.token}"

    def _labels(self, work: Work) -> dict[str, str]:
        token = str(work.assignment.token)
        return {NODE: self._identity(), ATTEMPT: str(work.number), TOKEN: token, TAG: tag_of(work)}

    async def _ours(self) -> list[dict[str, Any]]:
        """All containers of this node; none without asking where it never had any."""
        if not self._identity_path.exists():
            return []
        return await self._engine.list(f"{NODE}={self._identity()}")

    async def adopt(self) -> None:
        """Containers that a former agent left: running ones go on, ended ones are told. Before the first session, whose
        Hello names them."""
        deadline = time.monotonic() + ENGINE_S
        found: list[dict[str, Any]] = []
        while self._identity_path.exists() and find_socket() is not None:
            if not (reason := await self._engine.ready()):
                found = await self._ours()
                break
            if time.monotonic() > deadline:
                log.warning("containers of this node, if there are any, cannot be adopted: %s", reason)
                break
            await asyncio.sleep(AGAIN_S)
        for one in found:
            self._adopt_one(one)

    def _adopt_one(self, one: dict[str, Any]) -> None:
        try:
            tag = msgspec.msgpack.decode(base64.b64decode(one["Labels"][TAG]), type=Tag)
            spec = msgspec.msgpack.decode(tag.assignment.spec, type=TaskSpec)
        except (KeyError, ValueError, msgspec.DecodeError) as error:
            log.warning("container %s is not one of an attempt: %s", one["Id"], error)
            return
        work = Work(tag.assignment, spec, tag.shares)
        self._reports.adopted(work, "leaving" if one["State"] in ("exited", "dead") else "active")
        self._spawn(self._go_on(Running(work, one["Id"]), one["State"]), work)

    async def _go_on(self, running: Running, state: str) -> None:
        """With one that was made but not started the former agent ended in between: it starts now."""
        try:
            if state == "created":
                await self._engine.start(running.id)
            began = (await self._engine.inspect(running.id))["State"]["StartedAt"]
            running.age = max(time.time() - _instant(began), 0.0)
        except EngineError as error:
            self._reports.finished(failed(running.work, f"node {self._node}: {error}", _exit_code(error)))
            return
        await self._attend(running)

    async def sweep(self, known: Callable[[int], bool]) -> None:
        """Remove what is labelled as ours and belongs to no attempt that is here."""
        try:
            for one in await self._ours():
                number = one["Labels"].get(ATTEMPT, "")
                if not (number.isdigit() and known(int(number))):
                    log.warning("removing container %s of attempt %s, which is not known here", one["Id"], number)
                    await self._engine.remove(one["Id"])
        except EngineError as error:
            log.info("orphaned containers, if there are any, stay for now: %s", error)

    async def close(self) -> None:
        """The node ends: everything in containers ends with it."""
        for making in self._preparing.values():
            making.cancel()
        for running in self._running.values():
            self._end(running, "killed", "shutdown", STOP_S)
        try:
            async with asyncio.timeout(CLOSE_S):
                # Until none is left: one may be about to be made, and the engine refuses to remove one that it is removing.
                while ours := await self._ours():
                    await asyncio.gather(*(self._ask(self._stop_and_remove(one["Id"])) for one in ours))
                    await asyncio.sleep(LOOK_S)
        except (EngineError, TimeoutError) as error:
            log.warning("containers could not be removed: %s", str(error) or f"the engine took over {CLOSE_S:g} s")
        await self._engine.close()

    async def _stop_and_remove(self, container: str) -> None:
        with contextlib.suppress(EngineError, TimeoutError):
            async with asyncio.timeout(STOP_S):
                await self._engine.signal(container, signal.SIGTERM)
                await self._engine.wait(container)
        await self._engine.remove(container)

    async def _remove(self, container: str) -> None:
        """What stays because the engine does not answer is found by the next sweep."""
        await self._ask(self._engine.remove(container))


def _instant(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _exit_code(error: Exception) -> int:
    """As a shell has it: 127 for a program that is not there, 126 for one that may not run, else 125."""
    if isinstance(error, EngineError) and error.status == 400:
        text = str(error)
        if "no such file" in text or "not found" in text:
            return 127
        if "permission denied" in text:
            return 126
    return 125
