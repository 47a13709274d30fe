"""Pictures of a replay: what was in use and how much waited over time, how long waits were, and what each project had."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from jarvis.sim.traces.replay import History
from jarvis.sim.traces.report import Figures, Share, figures, shares
from jarvis.utils.svg import page

if TYPE_CHECKING:
    from array import array

WIDTH, LEFT, HEIGHT, GAP = 900, 90, 160, 60
PROJECTS_MOST = 20
_ROW = 22
_SECOND, _WEEK = 1.0, 7 * 86_400.0
_MARKS = ((1.0, "1 s"), (10.0, "10 s"), (60.0, "1 min"), (600.0, "10 min"), (3600.0, "1 h"), (86_400.0, "1 day"),
          (_WEEK, "1 week"), (30 * 86_400.0, "30 days"))  # fmt: skip


def svg(history: History, title: str) -> str:
    """Four charts, one below the other; a replay in which nothing ran has nothing to show but its title."""
    body = [f'<text x="{LEFT}" y="22" font-size="16">{escape(title)}</text>']
    if not history.ran:
        return page(LEFT + WIDTH + 30, 60, [*body, f'<text x="{LEFT}" y="46">nothing ran</text>'])
    tally = history.tally
    begin, end = tally.times[0], tally.times[-1]
    days = f"{(end - begin) / 86_400:.1f} days"
    top = 50
    used = list(_means(tally.times, tally.in_use))
    body += _chart(top, "in use, share of all nodes", used, 1.0, ("100 %", days, "#cfe4fb"))
    top += HEIGHT + GAP
    queued = list(_tops(tally.times, tally.queued))
    most = max(*queued, 1.0)
    body += _chart(top, "tasks that wait", queued, most, (f"{most:,.0f}", days, "#fdf3b4"))
    top += HEIGHT + GAP
    body += _waits(top, sorted(ran.wait for ran in history.ran))
    top += HEIGHT + GAP
    had = shares(history)
    body += _projects(top, had)
    return page(LEFT + WIDTH + 30, top + 30 + _ROW * min(len(had), PROJECTS_MOST), body)


def html(history: History, title: str) -> str:
    """The same as a page of its own, with the figures in a table."""
    found = figures(history)
    rows = "".join(f"<tr><td>{name}<td>{value}" for name, value in _table(found))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        "<style>body{font-family:sans-serif;margin:2em}td{padding:0 1em 0 0}</style>"
        f"<table>{rows}</table>{svg(history, title)}</html>\n"
    )


def _table(found: Figures) -> list[tuple[str, str]]:
    return [
        ("tasks that ran", f"{found.tasks:,}"), ("never", f"{found.never:,}"),
        ("wait: mean, 99th percentile, longest", f"{found.wait:,.0f}, {found.wait_p99:,.0f}, {found.wait_longest:,.0f} s"),
        ("bounded slowdown: mean, 99th percentile, longest",
         f"{found.slowdown:,.2f}, {found.slowdown_p99:,.0f}, {found.slowdown_longest:,.0f}"),
        ("turnaround: mean, median, 99th percentile, longest",
         f"{found.turnaround:,.0f}, {found.turnaround_p50:,.0f}, {found.turnaround_p99:,.0f}, {found.turnaround_longest:,.0f} s"),
        ("utilisation", f"{found.utilisation:.3f}"), ("preemptions", f"{found.preemptions:,}"),
        ("fairness between waiting projects", f"{found.fairness:.3f} over {found.contested:,.0f} s"),
        ("node-hours", f"{found.node_hours:,.1f}"),
    ]  # fmt: skip


# ---------------------------------------------------------------- over time


def _columns(times: "array[float]", values: "array[float]") -> Iterator[list[tuple[float, float]]]:
    """For each column of the chart, (seconds, value) of what was so in it; a value holds until the next instant."""
    begin, end = times[0], times[-1]
    step = max((end - begin) / WIDTH, 1e-9)
    at = 0
    for column in range(WIDTH):
        low, high = begin + column * step, begin + (column + 1) * step
        while at + 1 < len(times) and times[at + 1] <= low:
            at += 1
        inside, next_at = [], at
        while next_at < len(times) and times[next_at] < high:
            until = times[next_at + 1] if next_at + 1 < len(times) else high
            inside.append((max(min(until, high) - max(times[next_at], low), 0.0), values[next_at]))
            next_at += 1
        yield inside


def _means(times: "array[float]", values: "array[float]") -> Iterator[float]:
    for inside in _columns(times, values):
        seconds = sum(passed for passed, _ in inside)
        yield (
            sum(passed * value for passed, value in inside) / seconds if seconds else (inside[-1][1] if inside else 0.0)
        )


def _tops(times: "array[float]", values: "array[float]") -> Iterator[float]:
    for inside in _columns(times, values):
        yield max((value for _, value in inside), default=0.0)


def _chart(top: int, title: str, values: Sequence[float], most: float, marks: tuple[str, str, str]) -> list[str]:
    """``marks``: words for the most, for all of the time, and the colour."""
    bottom, colour = top + HEIGHT, marks[2]
    points = " ".join(f"{LEFT + x},{bottom - HEIGHT * min(value / most, 1.0):.1f}" for x, value in enumerate(values))
    return [
        *_frame(top, title, marks[0]),
        f'<polygon points="{LEFT},{bottom} {points} {LEFT + len(values) - 1},{bottom}" fill="{colour}" stroke="#555"/>',
        f'<text x="{LEFT + WIDTH}" y="{bottom + 16}" text-anchor="end">{marks[1]}</text>',
    ]


def _frame(top: int, title: str, highest: str) -> list[str]:
    bottom = top + HEIGHT
    return [
        f'<text x="{LEFT}" y="{top - 6}">{escape(title)}</text>',
        f'<path d="M{LEFT},{top} V{bottom} H{LEFT + WIDTH}" fill="none" stroke="#777"/>',
        f'<text x="{LEFT - 6}" y="{top + 12}" text-anchor="end">{highest}</text>',
        f'<text x="{LEFT - 6}" y="{bottom}" text-anchor="end">0</text>',
    ]


# ---------------------------------------------------------------- waits and projects


def _waits(top: int, waits: list[float]) -> list[str]:
    """Which share of the tasks waited at most so long, from a second on, on a scale of powers."""
    bottom, longest = top + HEIGHT, max(waits[-1], 10.0)
    scale = WIDTH / math.log(longest / _SECOND)

    def across(seconds: float) -> float:
        return LEFT + scale * math.log(max(seconds, _SECOND) / _SECOND)

    every = max(len(waits) // WIDTH, 1)
    ranks = [*range(0, len(waits), every), len(waits) - 1]
    points = " ".join(f"{across(waits[at]):.1f},{bottom - HEIGHT * (at + 1) / len(waits):.1f}" for at in ranks)
    marks = [
        f'<path d="M{across(at):.1f},{top} V{bottom}" stroke="#ddd"/>'
        f'<text x="{across(at):.1f}" y="{bottom + 16}" text-anchor="middle">{text}</text>'
        for at, text in _MARKS if at <= longest
    ]  # fmt: skip
    title = f"share of the tasks that waited at most so long (longest {longest:,.0f} s)"
    return [
        *marks,
        *_frame(top, title, "100 %"),
        f'<polyline points="{points}" fill="none" stroke="#225" stroke-width="2"/>',
    ]


def _projects(top: int, had: list[Share]) -> list[str]:
    left_out = len(had) - PROJECTS_MOST
    more = f" (the largest {PROJECTS_MOST} of {len(had)})" if left_out > 0 else ""
    body = [f'<text x="{LEFT}" y="{top - 6}">what projects had of all work, and how long they waited{more}</text>']
    largest = max(one.share for one in had) or 1.0
    for at, one in enumerate(had[:PROJECTS_MOST]):
        y = top + at * _ROW
        wide = 0.5 * WIDTH * one.share / largest
        label = one.project if len(one.project) <= 12 else one.project[:11] + "…"
        words = (
            f"{100 * one.share:.1f} %, {one.tasks:,} tasks, wait {one.wait:,.0f} s, p99 {one.wait_p99:,.0f}, "
            f"longest {one.wait_longest:,.0f}"
        )
        body.append(
            f'<text x="{LEFT - 6}" y="{y + 14}" text-anchor="end">{escape(label)}</text>'
            f'<rect x="{LEFT}" y="{y}" width="{max(wide, 1.0):.1f}" height="{_ROW - 4}" fill="#d3f2d6" stroke="#555">'
            f"<title>{escape(one.project)}</title></rect>"
            f'<text x="{LEFT + wide + 8:.1f}" y="{y + 14}">{words}</text>'
        )
    return body
