"""The whole: parts put together, messages given to them, and the ways in which it all ends."""

from __future__ import annotations

import base64
import fcntl
import os
import signal
import socket
from collections import deque

from . import cgroups, recovery, upgrade
from .agent_process import AgentProcess
from .attempts import Attempt
from .attempts import from_state as attempt_from_state
from .children import Children
from .execs import Execs
from .fence import Fence
from .journal import Journal
from .limits import Limits
from .loop import HANGUP, NEVER, READ, Loop
from .protocol import VERSION, pack
from .server import Connection, Server, listen
from .spawn import raise_own_file_limit, resize
from .streams import from_state as stream_from_state
from .system import become_subreaper, go_before_tasks, log, now, seal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .protocol import Message

AGENT_PATIENCE = 15.0
"""What the agent has for its end: it also ends the node's containers, for which the engine may need its time."""
STOP_GRACE = 10.0


class Options:
    """The command line."""

    def __init__(self) -> None:
        self.directory = ""
        self.agent: list[str] = []
        self.owner = -1
        self.cgroups = True
        self.resume = -1
        self.command: list[str] = []  # how we were started, for an upgrade


class AlreadyRunning(Exception):
    """Another supervisor owns the state directory."""


class Supervisor:
    """Owns all parts. `due` is when a stop must go one step further."""

    def __init__(self, options: Options, state: dict[str, Any] | None = None) -> None:
        self.options = options
        self.due = NEVER
        self.stopping = ""
        self.agent_deadline = NEVER
        become_subreaper()
        go_before_tasks()
        raise_own_file_limit()
        self.lock = state["lock"] if state else _lock(options.directory)
        self.loop = Loop()
        self.journal = Journal(f"{options.directory}/supervisor.journal")
        past = self.journal.read()
        past.life = past.life or recovery.new_identity()
        pool = cgroups.open_pool(past.life) if options.cgroups else None
        known = {} if state else recovery.recover(past, self.journal, pool)
        self.children = Children(self.loop, self.journal, past, pool)
        self.children.attempts.update(known)
        self.limits = Limits(self.children)
        self.fence = Fence(self.children, self.limits)
        self.execs = Execs(self.children)
        self.server = Server(self.loop, self.children, self._listener(state))
        self.agent = AgentProcess(self.children, options.agent, options.directory)
        self._connect_parts()
        if state:
            self._restore(state)

    def _listener(self, state: dict[str, Any] | None) -> socket.socket:
        if state:
            return socket.socket(fileno=state["listener"])
        return listen(self.options.directory, "supervisor.sock")

    def _connect_parts(self) -> None:
        self.children.report = self.server.report
        self.children.report_start, self.children.report_end = self.server.report_start, self.server.report_end
        self.children.fence_closed = lambda: self.fence.closed
        self.server.fence_until = lambda: self.fence.until
        self.server.attach = self._attach
        self.server.handlers = {
            "hello": lambda message: self.server.report({"op": "error", "of": "hello", "error": "said already"}),
            "start": self.children.start,
            "signal": self._on_signal,
            "kill": self._on_kill,
            "fence": self.fence.extend,
            "guard": self.fence.guard,
            "ack": lambda message: self.children.ack(message["numbers"], message.get("floor")),
            "recall": self._on_recall,
            "exec": self.execs.start,
            "resize": self._on_resize,
            "upgrade": self._on_upgrade,
            "shutdown": self._on_shutdown,
        }
        self.loop.parts = [self.limits, self.fence, self.execs, self.server, self.children.viewers, self]
        if self.options.agent:
            self.loop.parts.append(self.agent)
        self.loop.signals = self._on_signals
        self.loop.turn_ends = self._turn_ends
        if self.options.owner >= 0:
            self.loop.watch(self.options.owner, READ, self._on_owner)

    def run(self) -> None:
        """Until told to stop."""
        self.loop.listen_to_signals([signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
        self.children.reap()
        self.loop.run()

    def _turn_ends(self) -> None:
        self.server.handle_some()
        if not self.journal.flush():
            self.due = min(self.due, now() + 1.0)
        self.server.flush()
        if self.stopping:
            self._stop_further()

    def _on_signals(self, received: set[int]) -> None:
        self.children.reap()
        if signal.SIGTERM in received or signal.SIGINT in received:
            self.stop("shutdown", None)

    def _on_owner(self, mask: int) -> None:
        """Our owner holds the other end and never writes: whatever happens on it is its end."""
        try:
            ended = mask & HANGUP or not os.read(self.options.owner, 4096)
        except BlockingIOError:
            return
        if ended:
            self.loop.forget(self.options.owner)
            self.stop("owner_gone", 0.0)

    # --- messages -----------------------------------------------------------------------------------------------------

    def _on_signal(self, message: Message) -> None:
        if not self.limits.signal(message["number"], signal.Signals(message["signum"])):
            self.server.report({"op": "error", "of": "signal", "number": message["number"], "error": "not running"})

    def _on_kill(self, message: Message) -> None:
        number = message["number"]
        grace = message.get("grace_s")
        if self._recall([number]):
            return
        known = self.children.attempts.get(number)
        default = known.grace if known else 0.0
        if not self.limits.kill(number, str(message.get("cause") or ""), default if grace is None else float(grace)):
            self.server.report({"op": "error", "of": "kill", "number": number, "error": "not running"})

    def _on_recall(self, message: Message) -> None:
        if not self._recall(message["numbers"]):
            self.server.report({"op": "recalled", "numbers": []})

    def _recall(self, numbers: list[int]) -> bool:
        taken = self.children.recall(numbers)
        if taken:
            self.server.report({"op": "recalled", "numbers": taken})
        return bool(taken)

    def _on_resize(self, message: Message) -> None:
        rows, columns = int(message["rows"]), int(message["cols"])
        if "channel" in message:
            self.execs.resize(str(message["channel"]), rows, columns)
            return
        attempt = self.children.attempts.get(message["number"])
        if attempt is not None and attempt.stream is not None and attempt.stream.terminal:
            resize(attempt.stream.sink, rows, columns)

    def _attach(self, message: Message, peer: socket.socket, first: bytes) -> bool:
        if "channel" in message:
            running = self.execs.channels.get(str(message["channel"]))
            stream = running.stream if running else None
        else:
            attempt = self.children.attempts.get(message.get("number", -1))
            stream = attempt.stream if attempt else None
        if stream is None:
            return False
        greeting = pack({"op": "attached", "written": stream.written}) if message.get("greet") else b""
        stream.attach(peer, first, greeting)
        return True

    def _on_shutdown(self, message: Message) -> None:
        if message.get("kill", True):
            self.stop("shutdown", None)
            return
        log("leaving the tasks behind, as asked; the next supervisor of this directory will end them")
        self.journal.flush()
        self.server.flush_now()
        self.agent.stop()
        self.loop.finished = True

    # --- stopping -----------------------------------------------------------------------------------------------------

    def stop(self, cause: str, grace: float | None) -> None:
        """End all attempts, then the agent, then ourselves. A second request does not wait for graces any more."""
        if self.stopping:
            grace = 0.0
        self.stopping = cause
        self.children.stopping = True
        for attempt in self.children.mains.values():
            attempt.grace = min(attempt.grace, STOP_GRACE)
        self.limits.kill_all(cause, grace)
        self._stop_further()

    def _stop_further(self) -> None:
        if self.children.living():
            return
        if self.agent_deadline == NEVER:
            self.server.flush_now()
            self.agent.stop()
            self.agent_deadline = self.due = now() + AGENT_PATIENCE
        if self.agent.pid == 0:
            self._close()

    def on_due(self, moment: float) -> None:
        """The agent had its time; or the journal is to be tried again (at the end of this turn)."""
        self.due = NEVER
        if self.agent_deadline <= moment:
            self.agent.stop(signal.SIGKILL)

    def _close(self) -> None:
        self.journal.flush()
        if self.children.pool is not None:
            self.children.pool.close()
        try:  # the lock file stays: unlinking it would let two hold a lock on different files of that name
            os.unlink(f"{self.options.directory}/supervisor.sock")
        except OSError:
            pass
        self.loop.finished = True

    # --- upgrading ----------------------------------------------------------------------------------------------------

    def _on_upgrade(self, message: Message) -> None:
        command = message.get("command") or self.options.command
        self.server.report({"op": "upgrading", "version": VERSION})
        upgrade.check(command)
        if not self.journal.flush():
            raise OSError("the journal cannot be written")
        self.server.flush_now()
        state = self._state()
        upgrade.become([*command, *self._arguments()], state, upgrade.descriptors(state))

    def _arguments(self) -> list[str]:
        from .protocol import encode

        options = ["--dir", self.options.directory]
        if self.options.agent:
            options += ["--agent", encode(self.options.agent)]  # type: ignore[arg-type]
        if self.options.owner >= 0:
            options += ["--owner-fd", str(self.options.owner)]
        return options if self.options.cgroups else [*options, "--cgroups", "off"]

    def _state(self) -> dict[str, Any]:
        children = self.children
        return {
            "lock": self.lock,
            "owner": self.options.owner,
            "listener": self.server.listener.fileno(),
            "agent_pid": self.agent.pid,
            "agent_began": self.agent.began,
            "agent": _connection_state(self.server.agent),
            "inbox": list(self.server.inbox),
            "attempts": [attempt.to_state() for attempt in children.attempts.values()],
            "sweeping": sorted(children.sweeping),
            "lanes": [[lane, [attempt.number for attempt in waiting]] for lane, waiting in children.lanes.items()],
            "lane_busy": list(children.lane_busy.items()),
            "owners": list(children.owners.items()),
            "execs": self.execs.to_state(),
            "fence": self.fence.to_state(),
            "stopping": self.stopping,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        children = self.children
        for fd in upgrade.descriptors(state):
            seal(fd)
        for one in state["attempts"]:
            self._restore_attempt(attempt_from_state(one), one)
        children.sweeping = set(state["sweeping"])
        children.lanes = {lane: deque(children.attempts[n] for n in numbers) for lane, numbers in state["lanes"]}
        children.lane_busy = dict(state["lane_busy"])
        children.owners = dict(state["owners"])
        children.due = 0.0
        self.limits.plan_check()
        self.execs.restore(state["execs"])
        if "fence" in state:  # the version before had none
            self.fence.restore(state["fence"])
        self.stopping, children.stopping = state["stopping"], bool(state["stopping"])
        if state["agent_pid"]:
            self.agent.began = state["agent_began"]
            self.agent.adopt(state["agent_pid"])
        self._restore_agent(state)

    def _restore_agent(self, state: dict[str, Any]) -> None:
        saved = state["agent"]
        if saved is None:
            return
        sock = socket.socket(fileno=saved["connection"])
        received, unsent = base64.b64decode(saved["received"]), base64.b64decode(saved["unsent"])
        self.server.inbox.extend(state["inbox"])
        self.server.adopt_agent(Connection(sock, received, unsent))
        self.server.report({"op": "upgraded", "version": VERSION, "pid": os.getpid()})
        self.loop.hurry = True

    def _restore_attempt(self, attempt: Attempt, state: dict[str, Any]) -> None:
        children = self.children
        children.attempts[attempt.number] = attempt
        if state["slot"] and children.pool is not None:
            attempt.slot = children.pool.named(state["slot"])
            attempt.slot.resume(state["slot_joined"], state["slot_oom_base"])
        if state["stream"]:
            attempt.stream = stream_from_state(self.loop, state["stream"])
            attempt.stream.count = attempt.count_terminal
            children.viewers.add(attempt.stream)
        if attempt.state in ("starting", "running"):
            children.mains[attempt.pid] = attempt
        if attempt.errors >= 0:
            children.watch_errors(attempt)


def _connection_state(connection: Connection | None) -> dict[str, Any] | None:
    if connection is None:
        return None
    return {
        "connection": connection.sock.fileno(),
        "received": base64.b64encode(connection.reader.data).decode(),
        "unsent": base64.b64encode(connection.out).decode(),
    }


def _lock(directory: str) -> int:
    """Own the directory for as long as we live; the file names who does."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    fd = os.open(f"{directory}/supervisor.pid", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.pread(fd, 32, 0).decode(errors="replace").strip()
        raise AlreadyRunning(f"supervisor {holder} already runs on {directory}") from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd
