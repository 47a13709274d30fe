"""A record, decided again by the code that decided it."""

import asyncio
import logging
import pickle
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from jarvis import __version__
from jarvis.core.changes import Changes
from jarvis.core.errors import JarvisError
from jarvis.core.ids import ElementKey
from jarvis.policies import need
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.explain import why
from jarvis.scheduler.replay.recording import DIGESTS, PART, Deed, Opening, build, remember
from jarvis.scheduler.scheduler import Scheduler
from jarvis.state.coordination import Leadership
from jarvis.utils.clock import Clock
from jarvis.utils.record_file import frames, segments

log = logging.getLogger("jarvis.record")


class Diverged(JarvisError):
    """It was decided otherwise than recorded: the decision depends on something that is not recorded."""


class NoRecord(JarvisError):
    """Nothing is recorded of that time."""


class OtherCode(JarvisError):
    """Other code recorded it, and this one cannot decide it again."""


class Told:
    """What a deed was told, to be told again in the same order; calls of one name each in theirs."""

    def __init__(self, digest: str) -> None:
        self.digest_of = DIGESTS[digest]
        self.reads: dict[str, deque[tuple[bool, bytes]]] = {}
        self.times: deque[float] = deque()
        self.commits: deque[bytes] = deque()
        self.committed = 0
        self.where = ""

    def load(self, deed: Deed, where: str) -> None:
        self.where, self.reads = where, {}
        for name, raised, value in deed.reads:
            self.reads.setdefault(name, deque()).append((raised, value))
        self.times, self.commits = deque(deed.times), deque(deed.commits)

    def check_done(self) -> None:
        """All that was committed came."""
        if self.commits:
            raise self.diverged(f"{len(self.commits)} commits were recorded that did not come")

    def diverged(self, why: str) -> Diverged:
        return Diverged(f"{self.where}: {why}")


class ToldClock(Clock):
    def __init__(self, told: Told) -> None:
        self._told = told

    def now(self) -> float:
        if not self._told.times:
            raise self._told.diverged("the clock was looked at more often than recorded")
        return self._told.times.popleft()

    def sync(self, database_now: float) -> None:
        """What it said afterwards is recorded."""


class ToldStore:
    """Answers what a store answered; a commit must be the one that was recorded."""

    def __init__(self, told: Told) -> None:
        self._told = told

    def __getattr__(self, name: str) -> Any:
        async def asked(*args: Any, **options: Any) -> Any:
            kept = self._told.reads.get(name)
            if not kept:
                raise self._told.diverged(f"the store was asked {name} more often than recorded")
            raised, value = kept.popleft()
            answer = pickle.loads(value)  # noqa: S301 - as trusted as the state directory
            if raised:
                raise answer
            return answer

        return asked

    async def leader_commit(self, leadership: Leadership, changes: Changes) -> None:
        told = self._told
        if not told.commits:
            raise told.diverged("a commit came that was not recorded")
        if told.digest_of(changes) != told.commits.popleft():
            raise told.diverged(f"commit {told.committed + 1} is not the one that was recorded")
        told.committed += 1
        if kept := told.reads.get("leader_commit"):
            raise pickle.loads(kept.popleft()[1])  # noqa: S301


class Nobody:
    """A bus on which nobody listens."""

    def dispatch(self, effects: object) -> None: ...

    def publish(self, events: object) -> None: ...

    def offer(self, item: object) -> None: ...


def whole(deeds: Iterable[Deed]) -> Iterator[Deed]:
    """Each with the parts that were written before it; parts of one that was broken off belong to none."""
    parts: list[Deed] = []
    for deed in deeds:
        parts.append(deed)
        if deed.kind != PART:
            deed.policy = next((part.policy for part in parts if part.policy), b"")
            deed.times = [at for part in parts for at in part.times]
            deed.reads = [read for part in parts for read in part.reads]
            deed.commits = [commit for part in parts for commit in part.commits]
            parts = []
            yield deed


@dataclass(slots=True)
class Replay:
    """One segment, decided again step by step. ``now``: of the last turn; ``turns`` and ``commits`` so far."""

    path: Path
    now: float = 0.0
    turns: int = 0
    policy: Policy = field(default_factory=Policy)
    _build: str = field(init=False)
    _told: Told = field(init=False)
    scheduler: Scheduler = field(init=False)
    _deeds: Iterator[Deed] = field(init=False)

    def __post_init__(self) -> None:
        content = frames(self.path)
        opening = msgspec.msgpack.decode(next(content, b"\xc0"), type=Opening | None)
        if opening is None:
            raise NoRecord(f"{self.path}: nothing is recorded in it")
        if opening.software != __version__:
            raise OtherCode(f"{self.path} was recorded by version {opening.software}; this one is {__version__}")
        self._build = opening.build
        self._told = Told(opening.digest)
        store: Any = ToldStore(self._told)
        bus: Any = Nobody()
        self.scheduler = Scheduler(store, bus, ToldClock(self._told), lambda: self.policy, opening.holder)
        with self._by_whom():
            remember(self.scheduler, opening.memory)
        need(self.scheduler.cluster.plugged)
        self._deeds = whole(msgspec.msgpack.decode(frame, type=Deed) for frame in content)

    @property
    def commits(self) -> int:
        """Each of them was what had been recorded."""
        return self._told.committed

    async def run(self, until: float | None = None) -> None:
        """To its end, or to the last turn that began before an instant. Raises :class:`Diverged`, :class:`OtherCode`."""
        with self._by_whom():
            for deed in self._deeds:
                began = deed.times[0] if deed.times else self.now
                if until is not None and began > until:
                    return
                await self._repeat(deed, began)

    @contextmanager
    def _by_whom(self) -> Iterator[None]:
        """What goes wrong with a record of other code is told as that; there is no telling beforehand, as most changes of code
        change no decision."""
        try:
            yield
        except Exception as error:
            if self._build == build():
                raise
            by = (
                f"{self.path} was recorded by another build of version {__version__}, {self._build or 'an earlier one'}"
            )
            raise OtherCode(f"{by}; this one is {build()}, and does not repeat it: {error}") from error

    async def _repeat(self, deed: Deed, began: float) -> None:
        self.turns, self.now = self.turns + 1, began
        if deed.policy:
            self.policy = pickle.loads(deed.policy)  # noqa: S301
            need(self.policy.plugged)
        self._told.load(deed, f"{self.path.name}, deed {self.turns} ({deed.kind}, at {began:.3f})")
        try:
            if deed.kind == "start":
                await self.scheduler.start()
            elif deed.kind == "rebuild":
                await self.scheduler.rebuild()
            else:
                await self.scheduler.run_once(pickle.loads(deed.inputs))  # noqa: S301
        except Diverged:
            raise
        except JarvisError:  # as it was recorded: the next deed is what followed
            log.debug("%s ended with an error", self._told.where)
        self._told.check_done()


def check(directory: Path) -> list[Replay]:
    """Decide everything again that is recorded below a directory, oldest first. Raises :class:`Diverged`, :class:`OtherCode`,
    :class:`NoRecord`."""
    done = []
    for path in _some(directory):
        replay = Replay(path)
        asyncio.run(replay.run())
        done.append(replay)
    return done


def why_at(directory: Path, key: ElementKey, at: float) -> dict[str, Any] | None:
    """What kept a task at an instant, seconds since 1970; None where it was not waiting then, or not known."""
    began = None
    for path in _some(directory):
        if int(path.name.split(".")[0]) / 1e9 <= at:
            began = path
    if began is None:
        raise NoRecord("the record begins later than that")
    replay = Replay(began)
    asyncio.run(replay.run(at))
    return why(replay.scheduler.cluster, key, at, replay.policy)


def _some(directory: Path) -> list[Path]:
    found = segments(directory)
    if not found:
        raise NoRecord(f"{directory}: no record of decisions is there")
    return found
