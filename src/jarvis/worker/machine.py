"""PURE: the node's logic: assignments wait in order and start when resources free; everything is said until it is recorded.

The machine holds no clock, process or socket: the agent feeds it what happened and carries out what it answers.
"""

from collections import deque
from dataclasses import dataclass, field

import msgspec

from jarvis.core import resources as vector
from jarvis.core.effects import Assignment
from jarvis.core.inputs import Ended, Known, Returned, Started
from jarvis.core.resources import Resources
from jarvis.core.states import Cause, State
from jarvis.core.task import TaskSpec

LOOK_PAST = 64
"""Assignments behind one that does not fit that are looked at: small work may pass large work, within bounds."""
_spec = msgspec.msgpack.Decoder(TaskSpec)


@dataclass(slots=True)
class Work:
    """An assignment with its decoded spec and the GPUs it was given."""

    assignment: Assignment
    spec: TaskSpec
    gpus: tuple[int, ...] = ()
    state: State = State.ASSIGNED
    stop_cause: Cause | None = None

    @property
    def number(self) -> int:
        return self.assignment.number


@dataclass(frozen=True, slots=True)
class Start:
    """Start it: its resources are taken."""

    work: Work


@dataclass(frozen=True, slots=True)
class Kill:
    """End it: soft signal, then kill after the grace."""

    work: Work
    cause: Cause
    grace_s: float


@dataclass(frozen=True, slots=True)
class Say:
    """Tell the server."""

    message: Started | Ended | Returned


@dataclass(frozen=True, slots=True)
class Forget:
    """The end is recorded: what was kept for it may go."""

    number: int
    work: Work | None


Instruction = Start | Kill | Say | Forget


@dataclass(slots=True)
class Machine:
    """What this node has, what waits, what runs and what ended without being recorded yet."""

    total: Resources
    floor: int = 0
    backlog: deque[Work] = field(default_factory=deque)
    active: dict[int, Work] = field(default_factory=dict)
    ended: dict[int, Ended] = field(default_factory=dict)
    _free: Resources = field(default_factory=dict)
    _free_gpus: list[int] = field(default_factory=list)
    _finished: dict[int, Work] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._free = dict(self.total)
        self._free_gpus = list(range(self.total.get("gpu", 0) // 1000))

    # ------------------------------------------------------------ what the server says

    def assign(self, assignments: list[Assignment]) -> list[Instruction]:
        """Into the backlog, in order; what is known already, or settled, is passed over."""
        known = {work.number for work in self.backlog}
        out: list[Instruction] = []
        for assignment in assignments:
            number = assignment.number
            if number < self.floor or number in known or number in self.active or number in self.ended:
                continue
            try:
                spec = _spec.decode(assignment.spec)
            except msgspec.DecodeError as error:
                out += self._end_unstarted(number, assignment.token, Cause.START_FAILED, f"unreadable spec: {error}")
                continue
            self.backlog.append(Work(assignment, spec))
        return out + self._start_what_fits()

    def recall(self, numbers: list[int]) -> list[Instruction]:
        """Give back what has not started."""
        wanted = set(numbers)
        given = [work.number for work in self.backlog if work.number in wanted]
        self.backlog = deque(work for work in self.backlog if work.number not in wanted)
        return [Say(Returned(numbers=given))] if given else []

    def stop(self, number: int, cause: Cause, grace_s: float) -> list[Instruction]:
        """End it wherever it is; what has ended is said again."""
        for work in self.backlog:
            if work.number == number:
                self.backlog.remove(work)
                return self._end_unstarted(number, work.assignment.token, cause, "stopped before it started")
        work_or_none = self.active.get(number)
        if work_or_none is not None:
            work_or_none.stop_cause = cause
            return [Kill(work_or_none, cause, grace_s)]
        return [Say(self.ended[number])] if number in self.ended else []

    def recorded(self, numbers: list[int], floor: int) -> list[Instruction]:
        """These ends are safe; numbers below the floor will never be asked for again."""
        self.floor = max(self.floor, floor)
        safe = [number for number in numbers if self.ended.pop(number, None) is not None]
        return [Forget(number, self._finished.pop(number, None)) for number in safe]

    def known(self) -> list[Known]:
        """Every assignment that the node knows, for Hello."""
        out = [Known(w.number, w.assignment.token, "assigned") for w in self.backlog]
        out += [Known(w.number, w.assignment.token, str(w.state)) for w in self.active.values()]
        return out + [Known(e.number, e.token, "ended") for e in self.ended.values()]

    def unrecorded(self) -> list[Ended]:
        """What has to be said again on a new session."""
        return list(self.ended.values())

    # ------------------------------------------------------------ what happens here

    def adopt(self, work: Work) -> None:
        """It was running when this agent came."""
        work.state = State.RUNNING
        self.active[work.number] = work
        self._free = vector.subtract(self._free, work.spec.resources)
        self._free_gpus = [g for g in self._free_gpus if g not in work.gpus]

    def started(self, number: int, age: float = 0.0) -> list[Instruction]:
        work = self.active.get(number)
        if work is None or work.state is State.RUNNING:
            return []
        work.state = State.RUNNING
        return [Say(Started(number=number, token=work.assignment.token, age=age))]

    def finished(self, end: Ended) -> list[Instruction]:
        """It is over: kept until recorded, and its resources let the next ones start."""
        work = self.active.pop(end.number, None)
        if work is not None:
            self._free = vector.add(self._free, work.spec.resources)
            self._free_gpus = sorted({*self._free_gpus, *work.gpus})
            self._finished[end.number] = work
        if end.number in self.ended:
            return []
        self.ended[end.number] = end
        return [Say(end), *self._start_what_fits()]

    def _end_unstarted(self, number: int, token: int, cause: Cause, message: str) -> list[Instruction]:
        end = Ended(number=number, token=token, cause=cause, message=message)
        self.ended[number] = end
        return [Say(end)]

    def _start_what_fits(self) -> list[Instruction]:
        out: list[Instruction] = []
        passed: deque[Work] = deque()
        while self.backlog and len(passed) < LOOK_PAST:
            work = self.backlog.popleft()
            if vector.fits(work.spec.resources, self._free):
                out.append(self._take(work))
            else:
                passed.append(work)
        self.backlog.extendleft(reversed(passed))
        return out

    def _take(self, work: Work) -> Start:
        self._free = vector.subtract(self._free, work.spec.resources)
        whole = work.spec.resources.get("gpu", 0) // 1000
        work.gpus, self._free_gpus = tuple(self._free_gpus[:whole]), self._free_gpus[whole:]
        work.state = State.STARTING
        self.active[work.number] = work
        return Start(work)
