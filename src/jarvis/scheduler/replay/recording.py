"""SHELL: a scheduler that writes down all that its decisions come from.

A leader is a function of three things: what its bus hands it, what its store answers, and what its clock says. They are kept in
the order in which they came, with a digest of each commit. ``replaying`` feeds them to a scheduler again.
"""

import copyreg
import hashlib
import io
import logging
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

import jarvis
from jarvis import __version__
from jarvis.bus.bus import Bus
from jarvis.core.attempt import Attempt
from jarvis.core.changes import Changes
from jarvis.core.inputs import Input, NodeReported, TasksTaken, decode_facts, encode_facts
from jarvis.core.states import State
from jarvis.core.task import Element, Task
from jarvis.scheduler.cycle import Plan, Policy
from jarvis.scheduler.scheduler import Scheduler
from jarvis.state.coordination import Leadership
from jarvis.state.store import Live, Store
from jarvis.utils.clock import Clock
from jarvis.utils.record_file import RecordFiles

log = logging.getLogger("jarvis.record")

SMALL = 2_000
"""Tasks in memory up to which it is copied within a turn, for a new segment: about 10 ms."""
PART = "part"
PART_BYTES = 1 << 20
"""Of answers, after which what was told so far of a long deed, a rebuild, is written down: else it would be held twice."""
TABLES = tuple(name for name in Changes.__slots__ if name not in ("events", "commands_done"))
_encoder = msgspec.msgpack.Encoder()
_one_task = msgspec.msgpack.Decoder(Task)
_tasks = msgspec.msgpack.Decoder(list[Task])
_deciding: ContextVar["Deed | None"] = ContextVar("deciding", default=None)
"""Set while the leader's loop is at it: others ask the same store at the same time."""


class Deed(msgspec.Struct):
    """One turn, or one reading of the whole store, with everything that it was told. ``inputs``, ``policy`` (empty: as before)
    and the values of ``reads`` are pickled: (what was called, whether it raised, value). Of kind ``part``: the beginning of what
    the next one of another kind was told."""

    kind: str
    inputs: bytes
    policy: bytes = b""
    times: list[float] = []
    reads: list[tuple[str, bool, bytes]] = []
    commits: list[bytes] = []


def _task(body: bytes) -> Task:
    return _one_task.decode(body)


def _live(tasks: bytes, elements: list[Element], attempts: list[Attempt]) -> Live:
    return Live(_tasks.decode(tasks), elements, attempts)


def _tasks_taken(cause_id: str, tasks: bytes, ended: dict[int, State]) -> TasksTaken:
    return TasksTaken(cause_id, _tasks.decode(tasks), ended)


def _node_reported(cause_id: str, session: str, node: int, seq: int, facts: bytes) -> NodeReported:
    return NodeReported(cause_id, session, node, seq, decode_facts(facts))


class _Packer(pickle.Pickler):
    """Packs what comes by the thousand, an order of magnitude faster than it is pickled field by field."""

    dispatch_table = copyreg.dispatch_table | {
        TasksTaken: lambda i: (_tasks_taken, (i.cause_id, _encoder.encode(i.tasks), i.ended)),
        NodeReported: lambda i: (_node_reported, (i.cause_id, i.session, i.node, i.seq, encode_facts(i.facts))),
        Live: lambda live: (_live, (_encoder.encode(live.tasks), live.elements, live.attempts)),
        Task: lambda task: (_task, (_encoder.encode(task),)),
    }


def packed(value: object) -> bytes:
    """What the bus handed over or the store answered, for ``pickle.loads``."""
    file = io.BytesIO()
    _Packer(file).dump(value)
    return file.getvalue()


CODE = ("core", "dag", "policies", "scheduler")
"""The packages that decide."""


@cache
def build() -> str:
    """What tells this code from another of the same version; 730 kB are read in 2 ms."""
    sources = sorted(path for package in CODE for path in (Path(jarvis.__file__).parent / package).rglob("*.py"))
    return hashlib.blake2b(b"".join(path.read_bytes() for path in sources), digest_size=6).hexdigest()


class Opening(msgspec.Struct):
    """The first frame of a segment: by which code, whose it is, and the leader's memory as it was."""

    software: str
    holder: str
    digest: str
    memory: bytes
    build: str = ""


def digest_of_decisions(changes: Changes) -> bytes:
    """Every event, and which rows change, in their order: what a commit says."""
    rows = [list(table) for name in TABLES if (table := getattr(changes, name))]
    said = _encoder.encode((rows, changes.commands_done, changes.events))
    return hashlib.blake2b(said, digest_size=16).digest()


def digest_of_rows(changes: Changes) -> bytes:
    """Every field of every row, too, which costs seven times as much: written out in full, as who is the same object differs
    in a replay."""
    file = io.BytesIO()
    pickler = pickle.Pickler(file)
    pickler.fast = True
    pickler.dump(changes)
    return hashlib.blake2b(file.getbuffer(), digest_size=16).digest()


DIGESTS: dict[str, Callable[[Changes], bytes]] = {"decisions": digest_of_decisions, "rows": digest_of_rows}
"""By what the setting ``record.what`` calls them."""


class Record:
    """What is written down of one scheduler. ``digest``: one of ``DIGESTS``."""

    def __init__(self, files: RecordFiles, digest: str = "decisions") -> None:
        self.files, self.digest = files, digest
        self.digest_of = DIGESTS[digest]
        self._policy: Policy | None = None

    def open(self, opening: Opening) -> None:
        self._policy = None
        try:
            self.files.begin()
        except OSError as error:
            log.warning("decisions are not recorded: %s", error)
            return
        self.files.append(msgspec.msgpack.encode(opening))

    @contextmanager
    def deed(self, kind: str, inputs: list[Input]) -> Iterator[None]:
        """Keep what is told within, if a segment is at hand when it is over; a deed within a deed is part of it."""
        if _deciding.get() is not None or (self.files.broken and kind != "start"):
            yield
            return
        deed = Deed(kind, packed(inputs))
        token = _deciding.set(deed)
        try:
            yield
        except Exception:
            self.files.append(msgspec.msgpack.encode(deed))
            raise
        except BaseException:  # broken off in the middle: nothing of it was told to anybody
            self.files.broken = True
            raise
        else:
            self.files.append(msgspec.msgpack.encode(deed))
        finally:
            _deciding.reset(token)

    def part(self, deed: Deed) -> None:
        """Write down what it was told so far, and let go of it."""
        if not self.files.broken:
            told = Deed(PART, b"", deed.policy, deed.times, deed.reads, deed.commits)
            self.files.append(msgspec.msgpack.encode(told))
            deed.policy, deed.times, deed.reads, deed.commits = b"", [], [], []

    def policy(self, current: Policy) -> Policy:
        deed = _deciding.get()
        if deed is not None and current is not self._policy:
            deed.policy, self._policy = pickle.dumps(current), current
        return current


class RecordedReads:
    """A store whose answers are kept. Digests of commits instead of the commits: they are what is to come out."""

    def __init__(self, store: Store, digest_of: Callable[[Changes], bytes], part: Callable[[Deed], None]) -> None:
        self._store, self._digest_of, self._part = store, digest_of, part
        self._kept = 0

    def __getattr__(self, name: str) -> Any:
        ask = getattr(self._store, name)

        async def asked(*args: Any, **options: Any) -> Any:
            deed = _deciding.get()
            if deed is None:
                return await ask(*args, **options)
            try:
                answer = await ask(*args, **options)
            except Exception as error:
                deed.reads.append((name, True, pickle.dumps(error)))
                raise
            value = packed(answer)
            deed.reads.append((name, False, value))
            if deed.kind != "turn":
                self._keep_small(deed, len(value))
            return answer

        return asked

    def _keep_small(self, deed: Deed, more: int) -> None:
        self._kept += more
        if self._kept > PART_BYTES:
            self._kept = 0
            self._part(deed)

    async def leader_commit(self, leadership: Leadership, changes: Changes) -> None:
        deed = _deciding.get()
        if deed is not None:
            deed.commits.append(self._digest_of(changes))
        try:
            await self._store.leader_commit(leadership, changes)
        except Exception as error:
            if deed is not None:
                deed.reads.append(("leader_commit", True, pickle.dumps(error)))
            raise


class RecordedClock(Clock):
    """A clock that is shared with others, and keeps what it says to the leader."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def now(self) -> float:
        now, deed = self._clock.now(), _deciding.get()
        if deed is not None:
            deed.times.append(now)
        return now

    def sync(self, database_now: float) -> None:
        self._clock.sync(database_now)


class RecordedScheduler(Scheduler):
    """Decides as a scheduler does. Each time it takes the lead a segment begins, and when one is full and little is in memory."""

    def __init__(
        self, store: Store, bus: Bus, clock: Clock, policy: Callable[[], Policy], holder: str,
        *, record: Record, **more: Any,
    ) -> None:  # fmt: skip
        self._record = record
        recorded: Any = RecordedReads(store, record.digest_of, record.part)
        super().__init__(recorded, bus, RecordedClock(clock), lambda: record.policy(policy()), holder, **more)

    async def start(self, acquired: Callable[[Leadership], None] = lambda leadership: None) -> None:
        def leads(leadership: Leadership) -> None:
            self._open()
            acquired(leadership)

        self._record.files.broken = True
        with self._record.deed("start", []):
            await super().start(leads)

    async def rebuild(self) -> None:
        with self._record.deed("rebuild", []):
            await super().rebuild()

    async def run_once(self, inputs: list[Input]) -> Plan:
        if self._record.files.wants_segment and len(self.cluster.tasks) <= SMALL:
            self._open()
        with self._record.deed("turn", inputs):
            return await super().run_once(inputs)

    async def resign(self) -> None:
        await super().resign()
        self._record.files.end()

    def _open(self) -> None:
        self._record.open(Opening(__version__, self.holder, self._record.digest, memory_of(self), build()))


# ---------------------------------------------------------------- memory

PORTS = ("store", "bus", "clock", "policy", "on_synced", "_record")
"""What a scheduler is given, not what it remembers."""


class _Pickler(pickle.Pickler):
    """Leaves the ports out wherever they are held."""

    def __init__(self, file: io.BytesIO, ports: dict[int, str]) -> None:
        super().__init__(file)
        self._ports = ports

    def persistent_id(self, value: object) -> str | None:
        return self._ports.get(id(value))


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, ports: dict[str, object]) -> None:
        super().__init__(file)
        self._ports = ports

    def persistent_load(self, name: str) -> object:
        return self._ports[name]


def memory_of(scheduler: Scheduler) -> bytes:
    """All that it remembers between turns."""
    held = vars(scheduler)
    file = io.BytesIO()
    ports = {id(held[name]): name for name in PORTS if name in held}
    _Pickler(file, ports).dump({name: value for name, value in held.items() if name not in PORTS})
    return file.getvalue()


def remember(scheduler: Scheduler, memory: bytes) -> None:
    """The counterpart. A record is as trusted as the state directory that it lies in: unpickling runs what it says."""
    held = vars(scheduler)
    ports = {name: held.get(name) for name in PORTS}
    held.update(_Unpickler(io.BytesIO(memory), ports).load())
