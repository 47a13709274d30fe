"""PURE: the nominal times of a schedule, which of those that are due become runs, and which ends of workflows do.

Cron in a time zone is as Debian's: a time that a change of the clock leaves out is made up for right after it, and one that comes
twice runs once, unless its hours or minutes are given by ``*``.
"""

import datetime as dt
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from cronsim import CronSim, CronSimError

from jarvis.core.errors import InvalidValue
from jarvis.core.schedule import OnWorkflow, Rule, Schedule, Stamp
from jarvis.core.states import State
from jarvis.core.workflow import Workflow

LATE_S = 60.0
"""A run that begins later than this after its nominal time is one that was missed."""
DUE_MOST = 1000
"""Nominal times that are looked at at once."""
CATCH_UP_MOST = 100
"""Runs that are made up for at once with ``all``; older ones are skipped."""
LEAST_S = 1.0


@lru_cache(1000)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def checked(rule: Rule) -> Rule:
    """The rule itself if it can make runs; raises :class:`InvalidValue`."""
    if [rule.cron, rule.every, rule.on].count(None) != 2:
        raise InvalidValue("rule", "several or none", "one of cron, every, on_workflow, on_webhook, on_file")
    if rule.every is not None and rule.every < LEAST_S:
        raise InvalidValue("every", rule.every, f"at least {LEAST_S:g} s")
    try:
        _zone(rule.zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidValue("zone", rule.zone, "a time zone like Europe/Berlin") from None
    if rule.cron is not None:
        if len(rule.cron) > 200 or len(rule.cron.split()) != 5:
            raise InvalidValue("cron", rule.cron, "five fields: minute hour day month weekday")
        try:
            if next_after(rule, 0.0) is None:
                raise InvalidValue("cron", rule.cron, "a time that ever comes")
        except CronSimError as error:
            raise InvalidValue("cron", rule.cron, f"cron's five fields: {error}") from None
    return rule


def next_after(rule: Rule, instant: float) -> float | None:
    """The first nominal time after an instant; None when there is none."""
    if rule.every is not None:
        passed = max((instant - rule.start) // rule.every + 1, 0)
        return rule.start + passed * rule.every
    if rule.cron is None:
        return None
    begin = dt.datetime.fromtimestamp(instant, dt.UTC).astimezone(_zone(rule.zone))
    try:
        return next(CronSim(rule.cron, begin)).timestamp()
    except (StopIteration, OverflowError):
        return None


def times(rule: Rule, begin: float, end: float, most: int = DUE_MOST) -> list[float]:
    """Nominal times from ``begin`` on, until before ``end``."""
    out: list[float] = []
    at = next_after(rule, begin - 0.001)
    while at is not None and at < end and len(out) < most:
        out.append(at)
        at = next_after(rule, at)
    return out


def due(schedule: Schedule, now: float) -> tuple[list[float], int]:
    """Nominal times that become runs now, and how many are left out."""
    if schedule.next_at is None or schedule.next_at > now:
        return [], 0
    passed = times(schedule.rule, schedule.next_at, now + 0.001)
    fresh = [at for at in passed if at > now - LATE_S]
    wanted = {"skip": fresh[-1:], "last": passed[-1:], "all": passed[-CATCH_UP_MOST:]}[schedule.catch_up]
    return wanted, len(passed) - len(wanted)


def upcoming(rule: Rule, instant: float, count: int) -> list[float]:
    """The next few, to be shown."""
    out: list[float] = []
    at = next_after(rule, instant)
    while at is not None and len(out) < count:
        out.append(at)
        at = next_after(rule, at)
    return out


def can_be_kept(value: object) -> bool:
    """JSON has numbers, and goes to depths, that a store does not."""
    try:
        msgspec.msgpack.encode(value)
    except (OverflowError, RecursionError):
        return False
    return True


_FAILED = frozenset({State.FAILED, State.TIMEOUT, State.LOST})


def follows(schedule: Schedule, workflow: Workflow) -> bool:
    """Whether the end of this workflow is what it waits for."""
    on = schedule.rule.on
    if not isinstance(on, OnWorkflow) or (on.name, schedule.project) != (workflow.spec.name, workflow.project):
        return False
    return on.state == "any" or workflow.state in (_FAILED if on.state == "failed" else {State.SUCCEEDED})


def circle(schedule: Schedule, others: Iterable[Schedule]) -> list[str]:
    """Names of workflows that would make each other run for ever because of this schedule, the first one again at the end; empty
    when there are none."""
    behind: dict[str, list[str]] = {}
    for one in (schedule, *others):
        if isinstance(one.rule.on, OnWorkflow) and one.workflow is not None and one.project == schedule.project:
            behind.setdefault(one.rule.on.name, []).append(one.workflow.name)
    if schedule.workflow is None or not isinstance(schedule.rule.on, OnWorkflow):
        return []
    first = schedule.rule.on.name
    ways, seen = [[first, schedule.workflow.name]], {schedule.workflow.name}
    for way in ways:
        if way[-1] == first:
            return way
        fresh = [name for name in behind.get(way[-1], ()) if name not in seen]
        seen.update(fresh)
        ways += [[*way, name] for name in fresh]
    return []


FILES_KEPT = 2000
"""Names that a schedule remembers; beyond, the oldest that lie there no more are forgotten."""


def arrived(schedule: Schedule, present: Collection[str], settled: Mapping[str, Stamp]) -> list[str]:
    """Files that are new, or others than before, in the order of their age. From now on they are known."""
    fresh = sorted((stamp, name) for name, stamp in settled.items() if schedule.files.get(name) != stamp)
    for stamp, name in fresh:
        schedule.files.pop(name, None)
        schedule.files[name] = stamp
    spare = len(schedule.files) - FILES_KEPT
    if spare > 0:
        for name in [name for name in schedule.files if name not in present][:spare]:
            del schedule.files[name]
    return [name for _, name in fresh]
