"""Auxiliary processes inside a running attempt (`jarvis exec`): they share its group, its user and its end."""

from __future__ import annotations

import os

from .attempts import RUNNING, Attempt, environment
from .children import Children, Helper
from .loop import NEVER, READ
from .orders import Order
from .spawn import Spawned, SpawnError, open_exec_files, resize, spawn
from .streams import Stream
from .streams import from_state as stream_from_state
from .system import close, now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .protocol import Message

# Output of one that ended waits this long for somebody to attach.
LINGER = 10.0


class Exec:
    """One auxiliary process and its channel."""

    def __init__(self, number: int, channel: str, pid: int, stream: Stream) -> None:
        self.number, self.channel, self.pid, self.stream = number, channel, pid, stream
        self.expires = NEVER


class Execs:
    """All channels by name."""

    def __init__(self, children: Children) -> None:
        self.children = children
        self.channels: dict[str, Exec] = {}
        self.due = NEVER

    def start(self, message: Message) -> None:
        """Run it beside the attempt's main process."""
        channel = str(message.get("channel"))
        attempt = self.children.attempts.get(message.get("number", -1))
        try:
            if attempt is None or attempt.state != RUNNING:
                raise SpawnError(125, "the attempt is not running")
            if channel in self.channels:
                raise SpawnError(125, f"channel {channel} is in use")
            self._launch(attempt, channel, _order(message, attempt))
        except ValueError as error:
            self._failed(message, 125, f"bad exec: {error}")
        except SpawnError as error:
            self._failed(message, error.code, str(error))

    def _launch(self, attempt: Attempt, channel: str, order: Order) -> None:
        files = open_exec_files(order)
        env = environment(order, self.children.identity, attempt.number)
        try:
            spawned = spawn(order, env, files, attempt.slot, crowded=True)
        except SpawnError:
            files.close_all()
            raise
        files.close_child_ends()
        source = files.master if files.master >= 0 else files.output
        close(files.tee)
        stream = Stream(self.children.loop, max(files.master, files.stdin), source)
        self._admit(Exec(attempt.number, channel, spawned.pid, stream), spawned)

    def _admit(self, running: Exec, spawned: Spawned) -> None:
        self.channels[running.channel] = running
        self._adopt(running)
        if spawned.errors < 0:
            self._say(running, "exec_started", pid=running.pid)
        else:
            self.children.loop.watch(spawned.errors, READ, lambda mask: self._read_errors(running, spawned.errors))

    def _adopt(self, running: Exec) -> None:
        self.children.helpers[running.pid] = Helper(running.number, lambda status: self._ended(running, status))

    def _read_errors(self, running: Exec, errors: int) -> None:
        text = os.read(errors, 4096).decode(errors="replace")
        self.children.loop.forget(errors)
        close(errors)
        if not text:
            self._say(running, "exec_started", pid=running.pid)
            return
        code, _, error = text.partition(" ")
        self._say(running, "exec_failed", code=int(code), error=error)
        self._close(running)

    def _ended(self, running: Exec, status: int) -> None:
        signum = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        code = None if signum is not None else os.WEXITSTATUS(status)
        if running.channel in self.channels:
            self._say(running, "exec_ended", exit_code=code, signal=signum)
            running.expires = now() + LINGER
            self.due = now()

    def on_due(self, moment: float) -> None:
        """Close channels of ended processes when their output was taken, or nobody came for it."""
        waiting = [running for running in self.channels.values() if running.expires < NEVER]
        for running in waiting:
            if running.stream.source < 0 or running.stream.hung_up or running.expires <= moment:
                self._close(running)
        self.due = moment + 0.1 if any(r.expires < NEVER for r in self.channels.values()) else NEVER

    def resize(self, channel: str, rows: int, columns: int) -> None:
        """Tell the terminal of a channel its size."""
        running = self.channels.get(channel)
        if running is not None and running.stream.terminal:
            resize(running.stream.sink, rows, columns)

    def _close(self, running: Exec) -> None:
        self.channels.pop(running.channel, None)
        running.stream.close()

    def _failed(self, message: Message, code: int, error: str) -> None:
        body = {"number": message.get("number"), "channel": message.get("channel"), "code": code, "error": error}
        self.children.report({"op": "exec_failed", **body})

    def _say(self, running: Exec, op: str, **body: object) -> None:
        self.children.report({"op": op, "number": running.number, "channel": running.channel, **body})

    def to_state(self) -> list[dict[str, Any]]:
        """For an upgrade."""
        return [
            {
                "number": r.number,
                "channel": r.channel,
                "pid": r.pid,
                "expires": r.expires,
                "stream": r.stream.to_state(),
            }
            for r in self.channels.values()
        ]

    def restore(self, states: list[dict[str, Any]]) -> None:
        """The opposite of `to_state`."""
        for state in states:
            stream = stream_from_state(self.children.loop, state["stream"])
            running = Exec(state["number"], state["channel"], state["pid"], stream)
            running.expires = state["expires"]
            self.channels[running.channel] = running
            self.due = 0.0
            if running.expires == NEVER:
                self._adopt(running)


def _order(message: Message, attempt: Attempt) -> Order:
    wanted: Message = {name: message[name] for name in ("argv", "env", "cwd", "pty") if name in message}
    return Order({**wanted, "user": attempt.user, "no_new_privs": attempt.no_new_privs})
