"""Nominal times: cron in a time zone over the changes of its clock, intervals, and what becomes of times that were missed."""

import datetime as dt
from itertools import pairwise

import pytest

from jarvis.core.errors import InvalidValue
from jarvis.core.schedule import CatchUp, Rule, Schedule
from jarvis.core.task import TaskSpec
from jarvis.dag.schedules import checked, due, next_after, times, upcoming

BERLIN, NEW_YORK, HOWE, APIA = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia"


def at(text: str) -> float:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp()


def shown(instants: list[float]) -> list[str]:
    return [dt.datetime.fromtimestamp(i, dt.UTC).strftime("%d %H:%M") for i in instants]


TABLE = [
    # cron, zone, from (UTC), the next times (UTC): what, and why
    ("30 2 * * *", "UTC", "2026-03-28T12:00", ["29 02:30", "30 02:30"]),
    ("30 2 * * *", BERLIN, "2026-03-28T00:00", ["28 01:30", "29 01:00", "30 00:30"]),  # 02:30 is left out: right after
    ("30 2 * * *", BERLIN, "2026-10-24T12:00", ["25 00:30", "26 01:30"]),  # 02:30 comes twice: once
    ("0 3 * * *", BERLIN, "2026-03-28T12:00", ["29 01:00", "30 01:00"]),
    ("*/30 * * * *", BERLIN, "2026-03-29T00:20", ["29 00:30", "29 01:00", "29 01:30"]),  # every half hour goes on
    ("*/30 * * * *", BERLIN, "2026-10-25T00:10", ["25 00:30", "25 01:00", "25 01:30", "25 02:00"]),
    ("0 * * * *", NEW_YORK, "2026-11-01T04:30", ["01 05:00", "01 06:00", "01 07:00"]),  # the doubled hour, twice
    ("30 1 * * *", NEW_YORK, "2026-10-31T12:00", ["01 05:30", "02 06:30"]),
    ("30 2 8 3 *", NEW_YORK, "2026-03-07T00:00", ["08 07:00"]),
    ("15 2 * * *", HOWE, "2026-10-03T00:00", ["03 15:30", "04 15:15"]),  # half an hour is left out
    (
        "0 12 * * *",
        APIA,
        "2011-12-29T00:00",
        ["29 22:00", "30 10:00", "30 22:00"],
    ),  # a day was left out: right after
    ("0 0 29 2 *", "UTC", "2026-01-01T00:00", ["29 00:00"]),
    ("0 9 * * MON-FRI", "UTC", "2026-11-27T10:00", ["30 09:00", "01 09:00"]),
    ("0 0 13 * FRI", "UTC", "2026-02-10T00:00", ["13 00:00", "20 00:00"]),  # either, as cron has it
]


@pytest.mark.parametrize(("cron", "zone", "begin", "wanted"), TABLE)
def test_cron_over_changes_of_the_clock(cron: str, zone: str, begin: str, wanted: list[str]) -> None:
    rule = checked(Rule(cron, zone))
    assert shown(upcoming(rule, at(begin), len(wanted))) == wanted


def test_every_time_is_given_once_and_in_order() -> None:
    for cron, zone, begin, _ in TABLE:
        found = times(Rule(cron, zone), at(begin), at(begin) + 40 * 86400, 500)
        assert found == sorted(set(found))
        assert all(next_after(Rule(cron, zone), a) == b for a, b in pairwise(found))


def test_intervals_are_counted_from_their_start() -> None:
    rule = Rule(every=90.0, start=1000.0)
    assert [next_after(rule, i) for i in (0.0, 1000.0, 1089.9, 1090.0)] == [1000.0, 1090.0, 1090.0, 1180.0]


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        (Rule(), "rule"), (Rule("* * * * *", every=5.0), "rule"), (Rule(every=0.5), "every"), (Rule("* * *"), "cron"),
        (Rule("61 * * * *"), "cron"), (Rule("0 0 31 2 *"), "cron"), (Rule("x * * * *"), "cron"),
        (Rule("0 0 * * *", "Mars"), "zone"),
        (Rule("0 0 * * *", "../etc/passwd"), "zone"), (Rule("* * * * * *"), "cron"),
    ],
)  # fmt: skip
def test_what_never_comes_is_refused(rule: Rule, field: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        checked(rule)
    assert refused.value.field == field


def schedule(catch_up: CatchUp, next_at: float) -> Schedule:
    task = TaskSpec(name="t", command=("true",))
    return Schedule(id=1, name="s", project="p", user="u", rule=Rule(every=60.0), task=task, catch_up=catch_up,
                    created_at=0.0, next_at=next_at)  # fmt: skip


def test_missed_times_are_caught_up_with_as_the_schedule_says() -> None:
    late = 600.0 + 90.0  # ten were missed, and the one of a moment ago comes late
    assert due(schedule("skip", 60.0), late) == ([660.0], 10)
    assert due(schedule("last", 60.0), late) == ([660.0], 10)
    assert due(schedule("all", 60.0), late) == ([60.0 * n for n in range(1, 12)], 0)
    assert due(schedule("skip", 60.0), 61.0) == ([60.0], 0)
    assert due(schedule("skip", 60.0), 59.0) == ([], 0)
    assert due(schedule("all", 60.0), 60.0 * 500) == ([60.0 * n for n in range(401, 501)], 400)
