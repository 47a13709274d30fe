"""PURE: the nominal times of a schedule, and which of those that are due become runs.

Cron in a time zone is as Debian's: a time that a change of the clock leaves out is made up for right after it, and one that comes
twice runs once, unless its hours or minutes are given by ``*``.
"""

import datetime as dt
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from jarvis.core.errors import InvalidValue
from jarvis.core.schedule import Rule, Schedule

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
    """The rule itself if it has nominal times; raises :class:`InvalidValue`."""
    if (rule.cron is None) == (rule.every is None):
        raise InvalidValue("rule", "both or neither", "given as cron or as every")
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
    assert rule.cron is not None
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
