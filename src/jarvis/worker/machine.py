"""PURE: the node's logic: assignments wait in order and start when resources free; everything is said until it is recorded.

The machine holds no clock, process or socket: the agent feeds it what happened and carries out what it answers. A number
is in at most one place: ``waiting`` (the backlog), ``piped`` (handed ahead to a warm process, or into a lane of the supervisor,
holding no resources), ``active`` (holding resources), ``leaving`` (its process is over, its output or result on its way),
``ended`` (until recorded), or ``settled`` (never to be started again).
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from jarvis.core import resources as vector
from jarvis.core.effects import Assignment
from jarvis.core.gpus import Share, could_hold, room_of
from jarvis.core.inputs import Ended, Known, Returned, Started
from jarvis.core.resources import Resources
from jarvis.core.states import Cause, State
from jarvis.core.task import TaskSpec
from jarvis.worker.alike_specs import SpecReader
from jarvis.worker.gpus import Gpus
from jarvis.worker.supervisor.settled import Settled

LOOK_PAST = 64
"""Assignments behind one that does not fit that are looked at: small work may pass large work, within bounds."""
MAY_PASS = 256
"""So many may start before one that does not fit; then nothing passes it any more, so that it starts one day."""
STOPPED_EARLY = "stopped before it started"
Stage = Literal["active", "piped", "leaving"]


@dataclass(slots=True, eq=False)
class Work:
    """An assignment with its decoded spec, though without the arguments of its call, and the shares of GPUs that it was given."""

    assignment: Assignment
    spec: TaskSpec
    shares: tuple[Share, ...] = ()
    state: State = State.ASSIGNED
    stop_cause: Cause | None = None
    recalled: bool = False
    passed: int = 0
    """How many started before it although they came after it."""
    place: str = ""
    """Where its directory and its output are, if they may be given again (``worker/places.py``)."""
    spoiled: bool = False
    """Somebody may look there, or write, for longer than it lives."""
    number: int = field(init=False)

    def __post_init__(self) -> None:
        self.number = self.assignment.number

    @property
    def rank(self) -> int:
        return 0 if self.assignment.gang is None else self.assignment.gang.rank

    @property
    def gpus(self) -> tuple[int, ...]:
        return tuple(share.gpu for share in self.shares)

    @property
    def gpu_memory(self) -> tuple[int, ...]:
        """Bytes that it has on each of them."""
        return tuple(share.memory for share in self.shares)


class Start(msgspec.Struct, frozen=True, gc=False):
    """Start it: its resources are taken."""

    work: Work


class Kill(msgspec.Struct, frozen=True, gc=False):
    """End it: soft signal, then kill after the grace."""

    work: Work
    cause: Cause
    grace_s: float


class Deliver(msgspec.Struct, frozen=True, gc=False):
    """Send it a signal."""

    work: Work
    signum: int


class Withdraw(msgspec.Struct, frozen=True, gc=False):
    """Take it back from where it was handed ahead if it has not begun there; ``withdrawn`` is the answer if it had not."""

    work: Work


class Say(msgspec.Struct, frozen=True, gc=False):
    """Tell the server."""

    message: Started | Ended | Returned


class Forget(msgspec.Struct, frozen=True, gc=False):
    """The end is recorded: what was kept for it may go."""

    number: int
    work: Work | None


Instruction = Start | Kill | Deliver | Withdraw | Say | Forget


@dataclass(slots=True)
class Machine:
    """What this node has, what waits, what runs and what ended without being recorded yet."""

    total: Resources
    gpu_memory: tuple[int, ...] = ()
    """Bytes of each GPU, or one size for all, where that is known."""
    waiting: dict[int, Work] = field(default_factory=dict)
    piped: dict[int, Work] = field(default_factory=dict)
    active: dict[int, Work] = field(default_factory=dict)
    leaving: dict[int, Work] = field(default_factory=dict)
    ended: dict[int, Ended] = field(default_factory=dict)
    settled: Settled = field(default_factory=Settled)
    fence_open: bool = True
    """Whether what must not run beside another may start now."""
    _order: deque[Work] = field(default_factory=deque)
    """The backlog in order; members that are not in ``waiting`` any more are passed over."""
    _free: Resources = field(default_factory=dict)
    _gpus: Gpus = field(default_factory=Gpus)
    _finished: dict[int, Work] = field(default_factory=dict)
    _specs: SpecReader = field(default_factory=SpecReader)
    _held: TaskSpec | None = None
    """The last spec that this node was seen to have enough for."""

    def __post_init__(self) -> None:
        self._free = dict(self.total)
        self._gpus = Gpus(room_of(self.total, self.gpu_memory))

    @property
    def floor(self) -> int:
        return self.settled.floor

    @property
    def free(self) -> Resources:
        return dict(self._free)

    # ------------------------------------------------------------ what the server says

    def assign(self, assignments: Iterable[Assignment]) -> list[Instruction]:
        """Into the backlog, in order. What is known already is passed over; what was given back is given back again, because
        who assigns it did not hear of that."""
        out: list[Instruction] = []
        for assignment in assignments:
            if assignment.number in self.settled:
                out.append(Say(Returned(numbers=[assignment.number])))
            elif not self._has(assignment.number):
                self._admit(assignment, out)
        return self._start_what_fits(out)

    def _has(self, number: int) -> bool:
        return (
            number in self.waiting
            or number in self.active
            or number in self.piped
            or number in self.leaving
            or number in self.ended
        )

    def _admit(self, assignment: Assignment, out: list[Instruction]) -> None:
        number = assignment.number
        try:
            spec, _ = self._specs.read(bytes(assignment.spec))
        except msgspec.DecodeError as error:
            self._end_unstarted(number, assignment.token, Cause.START_FAILED, f"unreadable spec: {error}", out)
            return
        fits = spec is self._held or vector.fits(spec.resources, self.total)
        if not (fits and (spec is self._held or could_hold(self.total, self.gpu_memory, spec.resources))):
            self.settled.add([number])
            names = "GPU memory on one GPU" if fits else ", ".join(sorted(vector.shortages(spec.resources, self.total)))
            out.append(Say(Returned(numbers=[number], reason=f"this node never has that much {names}")))
            return
        self._held = spec
        work = Work(assignment, spec)
        self.waiting[number] = work
        self._order.append(work)

    def recall(self, numbers: Iterable[int]) -> list[Instruction]:
        """Give back what has not started. What never arrived here is given back too, and will not start if it comes."""
        given, out = [], list[Instruction]()
        for number in numbers:
            if number in self.piped:
                work = self.piped[number]
                work.recalled = True
                out.append(Withdraw(work))
            elif self.waiting.pop(number, None) is not None or not (self._has(number) or number in self.settled):
                given.append(number)
        self.settled.add(given)
        if given:
            out.append(Say(Returned(numbers=given)))
        return self._start_what_fits(out)

    def stop(self, number: int, cause: Cause, grace_s: float) -> list[Instruction]:
        """End it wherever it is; what has ended is said again."""
        out: list[Instruction] = []
        if (work := self.waiting.pop(number, None)) is not None:
            self._end_unstarted(number, work.assignment.token, cause, STOPPED_EARLY, out)
            return self._start_what_fits(out)
        if (work := self.piped.get(number)) is not None:
            work.stop_cause = cause
            return [Withdraw(work)]
        if (work := self.active.get(number)) is not None:
            work.stop_cause = cause
            return [Kill(work, cause, grace_s)]
        return [Say(self.ended[number])] if number in self.ended else []

    def signal(self, number: int, signum: int) -> list[Instruction]:
        """To what runs; a signal to anything else has nobody to reach."""
        work = self.active.get(number)
        return [] if work is None else [Deliver(work, signum)]

    def recorded(self, numbers: Iterable[int], floor: int) -> list[Instruction]:
        """These ends are safe; numbers below the floor will never be asked for again."""
        safe = [number for number in numbers if self.ended.pop(number, None) is not None]
        self.settled.add(safe)
        self.settled.raise_floor(floor)
        return [Forget(number, self._finished.pop(number, None)) for number in safe]

    def welcomed(self, forget: Iterable[int], stop: Iterable[int], floor: int) -> list[Instruction]:
        """A new session: what is recorded goes, what is not wanted ends, and every other end is said again."""
        out = self.recorded(forget, floor)
        for number in stop:
            if number not in self.ended:
                out += self.stop(number, Cause.CANCELLED, 10.0)
        return out + [Say(end) for end in self.ended.values()]

    def known(self) -> list[Known]:
        """Every assignment that the node knows, for Hello."""
        out = [Known(w.number, w.assignment.token, "assigned") for w in [*self.piped.values(), *self.waiting.values()]]
        running = [*self.leaving.values(), *self.active.values()]
        out += [Known(w.number, w.assignment.token, str(w.state)) for w in running]
        return out + [Known(e.number, e.token, "ended") for e in self.ended.values()]

    def open_fence(self) -> list[Instruction]:
        """The leader has heard this node: what waited for that starts."""
        self.fence_open = True
        return self._start_what_fits([])

    # ------------------------------------------------------------ what happens here

    def adopt(self, work: Work, where: Stage) -> None:
        """It was here when this agent came: running, handed ahead, or over but not told yet."""
        if where == "piped":
            self.piped[work.number] = work
            return
        work.state = State.RUNNING
        if where == "leaving":
            self.leaving[work.number] = work
        else:
            self._occupy(work, work.shares)

    def everything(self) -> list[Work]:
        """All work that is here in some way."""
        places = (self.waiting, self.piped, self.active, self.leaving, self._finished)
        return [work for place in places for work in place.values()]

    @property
    def fenced(self) -> bool:
        """Whether there is anything here that must not run beside another."""
        places = (self.active, self.piped, self.waiting)
        return any(work.spec.on_lost == "fence" for place in places for work in place.values())

    def started(self, number: int, age: float = 0.0) -> list[Instruction]:
        work = self.active.get(number)
        if work is None or work.state is State.RUNNING:
            return []
        work.state = State.RUNNING
        return [Say(Started(number=number, token=work.assignment.token, age=age))]

    def vacated(self, number: int, heir: int | None = None) -> list[Instruction]:
        """Its process is over. Its resources go to ``heir``, what was handed ahead to follow it, or to the backlog."""
        out: list[Instruction] = []
        work = self.active.pop(number, None)
        following = None if heir is None else self.piped.pop(heir, None)
        if work is None:
            return out
        work.state = State.RUNNING
        self.leaving[number] = work
        if following is not None:
            self._inherit(work, following, out)
            return out
        self._release(work)
        return self._start_what_fits(out)

    def give_back(self, number: int, reason: str) -> list[Instruction]:
        """It could not even be tried here, which is this node's fault: the server tries elsewhere, and none is to start here."""
        work = self.active.pop(number, None)
        if work is None:
            return []
        self._release(work)
        self.settled.add([number])
        return self._start_what_fits([Say(Returned(numbers=[number], reason=reason, drain=reason))])

    def finished(self, end: Ended, heir: int | None = None) -> list[Instruction]:
        """It is over and all is told in ``end``, which is kept until recorded."""
        number = end.number
        out = self.vacated(number, heir)
        work = self.leaving.pop(number, None)
        if work is not None:
            self._finished[number] = work
        if number not in self.ended and number not in self.settled:
            self.ended[number] = end
            out.insert(0, Say(end))
        return out

    def ahead(self, like: Work, limit: int) -> list[Work]:
        """The next that may follow ``like`` where it runs (:func:`same_lane`), in order."""
        out: list[Work] = []
        passed: list[Work] = []
        while self._order and len(out) < limit and len(passed) < LOOK_PAST:
            work = self._order.popleft()
            number = work.number
            if self.waiting.get(number) is not work:
                continue
            if same_lane(work, like) and not self._is_fenced_off(work):
                del self.waiting[number]
                self.piped[number] = work
                out.append(work)
                if passed:
                    self._count_pass(passed)
                continue
            passed.append(work)
            if work.passed >= MAY_PASS:
                break
        self._order.extendleft(reversed(passed))
        return out

    def unbegun(self, number: int, heir: int | None) -> list[Instruction]:
        """It was given back at the very moment at which it was due: ``heir`` runs there instead, if anything.
        Its start was told, so it is not given back to the server but starts again."""
        out: list[Instruction] = []
        work = self.active.pop(number, None)
        if work is None:
            return out
        following = None if heir is None else self.piped.pop(heir, None)
        if following is not None:
            self._inherit(work, following, out)
        else:
            self._release(work)
        work.state, work.shares, work.recalled = State.ASSIGNED, (), False
        self.piped[number] = work
        return out + self.withdrawn([work])

    def withdrawn(self, works: Iterable[Work]) -> list[Instruction]:
        """Taken back from where they were handed ahead before they began: stopped, given back, or to the front of the backlog."""
        out: list[Instruction] = []
        given: list[int] = []
        again: list[Work] = []
        for work in works:
            number = work.number
            if self.piped.pop(number, None) is None:
                continue
            if work.stop_cause is not None:
                self._end_unstarted(number, work.assignment.token, work.stop_cause, STOPPED_EARLY, out)
            elif work.recalled:
                given.append(number)
            else:
                again.append(work)
        if given:
            self.settled.add(given)
            out.append(Say(Returned(numbers=given)))
        again.sort(key=lambda work: work.number)
        self.waiting.update({work.number: work for work in again})
        self._order.extendleft(reversed(again))
        return self._start_what_fits(out)

    # ------------------------------------------------------------ resources

    def _end_unstarted(self, number: int, token: int, cause: Cause, message: str, out: list[Instruction]) -> None:
        end = Ended(number=number, token=token, cause=cause, message=message)
        self.ended[number] = end
        out.append(Say(end))

    def _start_what_fits(self, out: list[Instruction]) -> list[Instruction]:
        passed: list[Work] = []
        while self._order and len(passed) < LOOK_PAST:
            work = self._order.popleft()
            if self.waiting.get(work.number) is not work:
                continue
            if self._is_fenced_off(work):
                passed.append(work)
                continue
            shares = self._gpus.pick(work.spec.resources) if vector.fits(work.spec.resources, self._free) else None
            if shares is None:
                passed.append(work)
                if work.passed >= MAY_PASS:
                    break
                continue
            del self.waiting[work.number]
            work.state = State.STARTING
            self._occupy(work, shares)
            out.append(Start(work))
            if passed:
                self._count_pass(passed)
        self._order.extendleft(reversed(passed))
        return out

    def _count_pass(self, passed: list[Work]) -> None:
        """The first of them is the one that waits longest: when it may not be passed any more, none of them is. What waits for
        the leader is passed as often as there is something else."""
        first = next((work for work in passed if not self._is_fenced_off(work)), None)
        if first is not None:
            first.passed += 1

    def _is_fenced_off(self, work: Work) -> bool:
        return not self.fence_open and work.spec.on_lost == "fence"

    def _occupy(self, work: Work, shares: tuple[Share, ...]) -> None:
        self._free = vector.subtract(self._free, work.spec.resources)
        work.shares = shares
        self._gpus.take(shares)
        self.active[work.number] = work

    def _release(self, work: Work) -> None:
        self._free = vector.add(self._free, work.spec.resources)
        self._gpus.give(work.shares)

    def _inherit(self, work: Work, heir: Work, out: list[Instruction]) -> None:
        heir.state, heir.shares = State.STARTING, work.shares
        self.active[heir.number] = heir
        if heir.stop_cause is not None:
            out.append(Kill(heir, heir.stop_cause, 0.0))


def same_lane(one: Work, other: Work) -> bool:
    """Whether one may follow the other with the same resources: a process any other one, a call where a warm process that
    ran one may run the other. A rank of a gang follows nobody, because others wait for it."""
    alike = one.spec is other.spec or (one.spec.resources == other.spec.resources and one.spec.kind == other.spec.kind)
    if not alike or one.assignment.gang is not None:
        return False
    if one.spec.kind == "process":
        return True
    a, b, f, g = one.assignment, other.assignment, one.spec.function, other.spec.function
    return (
        f is not None
        and g is not None
        and f.environment == g.environment
        and a.project == b.project
        and a.user == b.user
        and not f.fresh
        and not (one.spec.push or one.spec.artifacts)
        and f.python == g.python
        and f.max_calls == g.max_calls
        and (one.spec.on_lost == "fence") is (other.spec.on_lost == "fence")
    )
