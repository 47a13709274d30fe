"""PURE: how long a task will run and how much it will use, learned from the ends of those like it.

Runs are kept by project, user, name, command and request, as the last of each group; a prediction comes from the most specific
group that has enough. It is the median, with an interval that is meant to hold nine ends in ten: the outer quantiles, each
moved outwards by a margin that follows how often it was passed (the quantile tracking of Angelopoulos, Candes and Tibshirani,
NeurIPS'23, on the logarithm of seconds). Nothing here knows the future: what is predicted follows from ends that were
learned before. A time limit is an upper bound of what is predicted, whatever was learned, and nothing is ever ended because of a
prediction.
"""

import math
from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from typing import NamedTuple

from jarvis.core.attempt import Usage
from jarvis.core.states import Cause
from jarvis.core.task import Task, TaskSpec

WINDOW = 64
"""Runs that a group remembers, the last ones."""
GROUPS_MOST = 2048
"""Groups that are remembered; the one that learned nothing for the longest goes first. About 4 MB when all are full."""
POINT_RUNS = 3
"""Runs that a median is made of, at least."""
INTERVAL_RUNS = 10
"""Runs that an interval is made of, at least: with fewer, it is that of a wider group."""
MISSED = 0.1
"""Share of ends that an interval may miss."""
STEP = 0.05
"""How far the margin moves at an end, in units of the logarithm of seconds."""
MARGIN_LEAST, MARGIN_FIRST, MARGIN_MOST = 0.0, 0.25, 12.0
PROGRAM_MOST = 200
"""Characters of a command that are looked at."""
PAUSE_S = 1.0
"""A full group learns no more often than that: what ends by the thousand a second says the same thing each time."""

LEARN_RATE, FORETELL_RATE = 300, 200
"""Ends looked at, and predictions noted, a second, the first ones of each: less than one hundredth of a processor."""

OWN_END = frozenset({Cause.EXIT, Cause.SIGNAL, Cause.EXCEPTION, Cause.TIMEOUT, Cause.OOM, Cause.OUTPUT_LIMIT})
"""Ends that say how long such a task runs. Others came from outside: how long it would have run is not known."""

Group = tuple[object, ...]

LIKE = (
    "tasks of anybody", "tasks of its project", "tasks of its user", "tasks of its name", "runs of its command",
    "runs of its command with the same request",
)  # fmt: skip
"""What a group has in common, from the widest."""
OF_ITS_NAME = LIKE[3:]


NEEDS_KNOWN = frozenset({3, 4})
"""Groups of which it is known what they use: wider ones say nothing about what one of them needs."""


class Prediction(NamedTuple):
    """Seconds that a task runs: the median, and the bounds that nine in ten end within. ``runs``: how many ends it comes
    from; ``group``: those that the interval comes from."""

    seconds: float
    low: float
    high: float
    runs: int
    group: Group
    like: str


def program_of(spec: TaskSpec) -> str:
    """What is run, without what differs from run to run: the first words of the command, up to the first option."""
    if spec.script is not None:
        return spec.script
    if spec.function is not None:
        return spec.function.code
    words = spec.command[:PROGRAM_MOST].split(None, 2) if isinstance(spec.command, str) else spec.command or ()
    return " ".join(word for word in words[:2] if not word.startswith("-"))[:PROGRAM_MOST]


def groups_of(task: Task) -> tuple[Group, ...]:
    """The groups that a task belongs to, the most specific first."""
    project, user, spec = task.project, task.user, task.spec
    name, program = spec.name, program_of(spec)
    request = (spec.time_limit, spec.nodes, *sorted(spec.resources.items()))
    return (
        (project, user, name, program, request), (project, user, name, program), (project, user, name),
        (project, user), (project,), (),
    )  # fmt: skip


class Recent:
    """The last ``WINDOW`` values, in order of their size as well."""

    __slots__ = ("_at", "_last", "ascending")

    def __init__(self) -> None:
        self._at = 0
        self._last = array("d")
        self.ascending = array("d")

    def __len__(self) -> int:
        return len(self._last)

    def add(self, value: float) -> None:
        if len(self._last) < WINDOW:
            self._last.append(value)
        else:
            del self.ascending[bisect_left(self.ascending, self._last[self._at])]
            self._last[self._at] = value
            self._at = (self._at + 1) % WINDOW
        insort(self.ascending, value)

    def quantile(self, share: float) -> float:
        """The smallest of the values that at least ``share`` of them do not exceed, counting one more that is yet to come."""
        values = self.ascending
        return values[min(max(math.ceil(share * (len(values) + 1)) - 1, 0), len(values) - 1)]


class Rate:
    """So many a second, and no more."""

    __slots__ = ("_left", "_most", "_second")

    def __init__(self, most: int) -> None:
        self._most = self._left = most
        self._second = 0

    def take(self, now: float) -> bool:
        if int(now) != self._second:
            self._second, self._left = int(now), self._most
        self._left -= 1
        return self._left >= 0


class _Learned:
    """What is known of a group."""

    __slots__ = ("above", "at", "below", "cpus", "peaks", "seconds")

    def __init__(self, widest: "_Learned | None") -> None:
        self.seconds, self.peaks, self.cpus = Recent(), Recent(), Recent()
        self.below: float = MARGIN_FIRST if widest is None else max(widest.below, MARGIN_FIRST)
        self.above: float = MARGIN_FIRST if widest is None else max(widest.above, MARGIN_FIRST)
        self.at = -math.inf


class Needs(NamedTuple):
    """What runs of a group used: quantiles of peak memory in bytes, cpus kept busy, seconds; how many ends each comes from."""

    memory: float
    cpus: float
    seconds: float
    runs: int
    with_memory: int
    like: str


class Predictor:
    """Learns at each end, in a time that does not depend on how much it knows; predicts at any moment."""

    def __init__(self) -> None:
        self._groups: dict[Group, _Learned] = {}
        self._rate = Rate(LEARN_RATE)
        self.ends = 0
        """Learned so far."""

    def __len__(self) -> int:
        return len(self._groups)

    # ------------------------------------------------------------ learning

    def learn(self, task: Task, usage: Usage, cause: Cause, now: float, said: Prediction | None = None) -> None:
        """An attempt of a task ended at ``now``; ``said`` is what had been predicted for it."""
        if cause not in OWN_END or not self._rate.take(now):
            return
        groups, limit = groups_of(task), task.spec.time_limit
        first = self._groups.get(groups[0])
        if first is not None and now - first.at < PAUSE_S and len(first.seconds) >= WINDOW:
            return
        self.ends += 1
        seconds = usage.wall_s if limit is None else min(usage.wall_s, limit)
        if said is not None:
            self._calibrate(said, seconds)
        for group in groups:
            self._add(group, usage, seconds, now)
        while len(self._groups) > GROUPS_MOST:
            del self._groups[next(iter(self._groups))]

    def _calibrate(self, said: Prediction, seconds: float) -> None:
        """A bound that was passed moves outwards, one that held moves inwards by a nineteenth of that. The margins of all tasks
        are where those of a new group begin."""
        for group in (said.group, ()) if said.group else ((),):
            learned = self._groups.get(group)
            if learned is not None:
                learned.below = _moved(learned.below, seconds < said.low)
                learned.above = _moved(learned.above, seconds > said.high)

    def _add(self, group: Group, usage: Usage, seconds: float, now: float) -> None:
        learned = self._groups.pop(group, None)
        if learned is None:
            learned = _Learned(self._groups.get(()))
        self._groups[group] = learned  # behind all others: the first one is the one longest without an end
        learned.at = now
        learned.seconds.add(seconds)
        if len(group) not in NEEDS_KNOWN:
            return
        if usage.max_rss > 0:
            learned.peaks.add(float(usage.max_rss))
        if usage.wall_s > 0:
            learned.cpus.add((usage.cpu_user_s + usage.cpu_system_s) / usage.wall_s)

    # ------------------------------------------------------------ asking

    def predict(self, task: Task) -> Prediction | None:
        """How long such a task runs; None while hardly anything is known."""
        point: _Learned | None = None
        like = ""
        for group in groups_of(task):
            learned = self._groups.get(group)
            if learned is None:
                continue
            runs = len(learned.seconds)
            if point is None and runs >= POINT_RUNS:
                point, like = learned, like_of(group)
            if point is not None and runs >= INTERVAL_RUNS:
                return _prediction(point, learned, group, like, task.spec.time_limit)
        return None

    def remaining(self, task: Task, elapsed: float) -> Prediction | None:
        """How much longer a task runs that has run for so long: of those like it, the ones that took longer count. None when
        hardly any did; its limit bounds it in any case."""
        for group in groups_of(task):
            learned = self._groups.get(group)
            if learned is not None and (found := _longer(learned, elapsed)) is not None:
                low, seconds, high, runs = found
                most = math.inf if task.spec.time_limit is None else max(task.spec.time_limit - elapsed, 0.0)
                low, seconds, high = (min(value - elapsed, most) for value in (low, seconds, high))
                return Prediction(seconds, low, high, runs, group, like_of(group))
        return None

    def needs(self, groups: Iterable[Group], share: float, least: int) -> Needs | None:
        """What the runs of the first of these groups that has ``least`` ends used, as the value that ``share`` of them stay
        within; of the one with most ends if none has as many."""
        most: tuple[int, Group] | None = None
        for group in groups:
            learned = self._groups.get(group)
            if learned is None:
                continue
            runs = len(learned.seconds)
            if runs >= least:
                return _needs(learned, group, share)
            if most is None or runs > most[0]:
                most = runs, group
        return None if most is None else _needs(self._groups[most[1]], most[1], share)


def like_of(group: Group) -> str:
    return LIKE[len(group)]


def _needs(learned: _Learned, group: Group, share: float) -> Needs:
    peaks = learned.peaks.quantile(share) if len(learned.peaks) else 0.0
    cpus = learned.cpus.quantile(share) if len(learned.cpus) else 0.0
    return Needs(peaks, cpus, learned.seconds.quantile(share), len(learned.seconds), len(learned.peaks), like_of(group))


def _longer(learned: _Learned, elapsed: float) -> tuple[float, float, float, int] | None:
    """(lower bound, median, upper bound, runs) of those that took longer."""
    values = learned.seconds.ascending
    first = bisect_right(values, elapsed)
    runs = len(values) - first
    if runs < POINT_RUNS:
        return None
    low = _outwards(values[first + int(runs * MISSED / 2)], -learned.below)
    high = _outwards(values[first + min(math.ceil((runs + 1) * (1 - MISSED / 2)), runs) - 1], learned.above)
    return max(low, elapsed), values[first + (runs - 1) // 2], high, runs


def _outwards(seconds: float, margin: float) -> float:
    return (seconds + 1.0) * math.exp(margin) - 1.0


def _moved(margin: float, missed: bool) -> float:
    return min(max(margin + STEP * (missed - MISSED / 2), MARGIN_LEAST), MARGIN_MOST)


def _prediction(
    point: _Learned, learned: _Learned, group: Group, like: str, limit: float | None
) -> Prediction:  # fmt: skip
    most = math.inf if limit is None else limit
    seconds = min(point.seconds.quantile(0.5), most)
    low = _outwards(learned.seconds.quantile(MISSED / 2), -learned.below)
    high = _outwards(learned.seconds.quantile(1.0 - MISSED / 2), learned.above)
    return Prediction(
        seconds, max(min(low, seconds), 0.0), min(max(high, seconds), most), len(point.seconds), group, like
    )  # fmt: skip
