"""The record of one attempt: what we must know about it from its start until its end is acknowledged."""

from __future__ import annotations

import json
import os

from .loop import NEVER
from .orders import Order
from .processes import MARK
from .protocol import encode
from .system import now

TYPE_CHECKING = False
if TYPE_CHECKING:
    import resource
    from typing import Any

    from .cgroups import Slot
    from .protocol import Message
    from .streams import Stream

QUEUED, STARTING, RUNNING, SWEEPING, ENDED = "queued", "starting", "running", "sweeping", "ended"

# Plain values that an upgrade hands over as they are.
PLAIN = (
    "number", "tag", "state", "pid", "began", "wall", "deadline", "soft_deadline", "soft_signal", "grace", "kill_at",
    "doom", "kill_cause", "end", "status", "usage", "sweep_until", "stdout", "stderr", "out_base", "err_base",
    "output_limit", "memory", "service", "lane", "user", "no_new_privs", "terminal_bytes", "fence",
)  # fmt: skip


class Attempt:
    """One number. States: queued → starting → running → sweeping → ended; only the last outlives its processes."""

    state = QUEUED
    pid = 0
    deadline = NEVER
    soft_deadline = NEVER
    soft_signal = 15
    grace = 5.0
    kill_at = NEVER
    doom = ""  # why we are ending it, once we are
    kill_cause: str | None = None
    end: str | None = None  # its JSON, as the journal and the agent get it
    status: int | None = None
    usage = "null"  # JSON as well
    sweep_until = NEVER
    stdout = ""
    stderr: str | None = None
    out_base = 0
    err_base = 0
    output_limit: int | None = None
    memory: int | None = None
    service = False
    fence = False
    lane: str | int | None = None
    user: Message | None = None
    no_new_privs = False
    terminal_bytes: int | None = None  # set with a terminal: we write its output ourselves
    wall = 0.0
    # Not handed over as they are:
    order: Order | None = None  # kept only while queued
    slot: Slot | None = None
    errors = -1
    stream: Stream | None = None

    def __init__(self, number: int, tag: str) -> None:
        self.number = number
        self.tag = tag
        self.began = now()

    def prepare(self, order: Order) -> None:
        """Take from the order what outlives the spawn."""
        self.soft_signal, self.grace = order.soft_signal, order.grace_s
        self.stdout, self.stderr = order.stdout, order.stderr
        self.output_limit, self.memory = order.output_limit, order.memory_bytes
        self.service, self.lane, self.fence = order.service, order.slot, order.fence
        self.user, self.no_new_privs = order.user, order.no_new_privs

    def set_clocks(self, order: Order) -> None:
        """Count from the start of the process, not from the request."""
        self.began = now()
        if order.time_limit_s is not None:
            self.deadline = self.began + order.time_limit_s
        if order.soft_limit_s is not None:
            self.soft_deadline = self.began + order.soft_limit_s

    @property
    def alive(self) -> bool:
        """Whether it has, or may have, processes."""
        return self.state in (STARTING, RUNNING, SWEEPING)

    @property
    def due(self) -> float:
        """When its next deadline is."""
        if self.state == SWEEPING or self.doom:
            return self.kill_at
        return min(self.deadline, self.soft_deadline, self.kill_at)

    def count_terminal(self, size: int) -> None:
        """Count output that passed through us to the file of a terminal."""
        self.terminal_bytes = (self.terminal_bytes or 0) + size

    def view(self) -> Message:
        """How `welcome` lists it."""
        states = {QUEUED: "queued", ENDED: "ended"}
        return {
            "number": self.number,
            "pid": self.pid,
            "tag": self.tag,
            "state": states.get(self.state, "running"),
            "lane": self.lane,
            "age_s": round(now() - self.began, 6),
            "end": _decoded(self.end),
        }

    def to_state(self) -> dict[str, Any]:
        """Everything an upgraded supervisor needs; streams and slots travel by name."""
        state = {name: getattr(self, name) for name in PLAIN}
        state["end"], state["usage"] = _decoded(self.end), json.loads(self.usage)
        state["slot"] = self.slot.name if self.slot else None
        state["order"] = self.order.message if self.order else None
        state["slot_joined"] = self.slot.joined if self.slot else []
        state["slot_oom_base"] = self.slot.oom_base if self.slot else 0
        state["errors"] = self.errors
        state["stream"] = self.stream.to_state() if self.stream else None
        return state


def from_state(state: dict[str, Any]) -> Attempt:
    """The opposite of `to_state`, without slot and stream; unknown and missing fields are another version's."""
    attempt = Attempt(state["number"], state["tag"])
    for name in PLAIN:
        if name in state:
            setattr(attempt, name, state[name])
    attempt.end = encode(state["end"]) if state.get("end") else None
    attempt.usage = encode(state["usage"]) if state.get("usage") else "null"
    attempt.errors = state["errors"]
    attempt.order = Order(state["order"]) if state["order"] else None
    return attempt


def environment(order: Order, identity: str, owner: int | str) -> dict[str, str]:
    """The environment as given, plus the mark by which strays are found."""
    return {**order.env, MARK: f"{identity}.{owner}"}


def size_of(path: str | None) -> int:
    """Bytes in an output file; a missing one, a pipe or a device has none."""
    if path is None:
        return 0
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def start_message(attempt: Attempt) -> str:
    """How a start is reported."""
    age = now() - attempt.began
    return f'{{"op":"started","number":{attempt.number},"pid":{attempt.pid},"age_s":{age:.6f}}}'


def usage_of(used: resource.struct_rusage) -> str:
    """What the kernel counted for the process and those of its children that it waited for: JSON, written by hand as all that
    every attempt causes."""
    return (
        f'{{"cpu_user_s":{used.ru_utime:.6f},"cpu_sys_s":{used.ru_stime:.6f},"max_rss_bytes":{used.ru_maxrss * 1024},'
        f'"read_bytes":{used.ru_inblock * 512},"write_bytes":{used.ru_oublock * 512}}}'
    )


def report_of(attempt: Attempt) -> str:
    """The `ended` body of an attempt whose main process has been reaped: JSON, by hand likewise."""
    status = os.waitstatus_to_exitcode(attempt.status or 0)
    code, signum = (status, "null") if status >= 0 else ("null", -status)
    cause = attempt.doom or ("exit" if status >= 0 else "signal")
    if not attempt.doom and status != 0 and attempt.slot is not None and attempt.slot.oom_seen():
        cause = "oom"
    kill_cause = "null" if attempt.kill_cause is None else encode(attempt.kill_cause)
    out = attempt.terminal_bytes
    if out is None:
        out = max(0, size_of(attempt.stdout) - attempt.out_base)
    err = max(0, size_of(attempt.stderr) - attempt.err_base) if attempt.stderr else 0
    return (
        f'{{"exit_code":{code},"signal":{signum},"cause":"{cause}","kill_cause":{kill_cause},'
        f'"wall_s":{attempt.wall:.6f},"usage":{attempt.usage},"out_bytes":{out},"err_bytes":{err}}}'
    )


def lost_report(wall: float | None, cause: str = "supervisor_lost") -> str:
    """The `ended` body of an attempt whose supervisor, or node, is gone: what it did afterwards nobody saw."""
    unknown = dict.fromkeys(("exit_code", "signal", "kill_cause", "usage"))
    return encode({**unknown, "cause": cause, "wall_s": wall, "out_bytes": 0, "err_bytes": 0})


def _decoded(body: str | None) -> Message | None:
    return None if body is None else json.loads(body)
