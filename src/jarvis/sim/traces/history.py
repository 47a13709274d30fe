"""Jarvis's own history as a trace: JSON lines, the first one about the nodes, then a submission a line.

``{"trace": "jarvis", "version": 1, "nodes": [[4, {"cpu": 64000}]]}``, then rows as ``GET /history`` has them.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from jarvis.core.errors import InvalidValue
from jarvis.core.resources import Resources
from jarvis.sim.traces.workload import Recorded, Workload, gathered

VERSION = 1
SPANS = {"day": 86_400, "week": 7 * 86_400, "month": 30 * 86_400}
UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
T = TypeVar("T")


def span_of(word: str) -> int | None:
    """Seconds back from now that are meant by ``last-week``, ``last-12h`` and the like; None where it is no such word."""
    last, dash, span = word.partition("-")
    if last != "last" or not dash:
        return None
    count, unit = span[:-1], UNITS.get(span[-1:], 0)
    seconds = SPANS.get(span) or (int(count) * unit if count.isdecimal() and len(count) < 6 else 0)
    if not seconds:
        raise InvalidValue("trace", word, "a file or a span like last-day, last-week, last-month or last-12h")
    return seconds


def workload_of(rows: Iterable[dict[str, Any]], nodes: list[tuple[int, Resources]]) -> Workload:
    """What ran, in order of submission; rows of what never began are counted."""
    oldest_first = sorted(rows, key=lambda row: int(row["task"]))
    items, dropped = gathered(_item(row) if row["ran_s"] > 0 else None for row in oldest_first)
    return Workload(items, nodes, dropped)


def _item(row: dict[str, Any]) -> Recorded:
    limit = row["limit_s"]
    ran = float(row["ran_s"])
    return Recorded(
        int(row["task"]), float(row["submitted_at"]), ran, None if limit is None else max(float(limit), ran),
        {str(name): int(amount) for name, amount in row["resources"].items()}, str(row["user"]), str(row["project"]),
        str(row["name"]), str(row["queue"]), int(row["priority"]), int(row["nodes"]),
    )  # fmt: skip


def equal_nodes(resources: Iterable[Resources]) -> list[tuple[int, Resources]]:
    """Nodes of the same size together, in the order in which a size is met first."""
    counted = Counter(tuple(sorted(one.items())) for one in resources)
    return [(count, dict(size)) for size, count in counted.items()]


def lines(rows: Iterable[dict[str, Any]], nodes: list[tuple[int, Resources]]) -> Iterator[str]:
    """What :func:`read_history` reads, each with its end of line."""
    yield json.dumps({"trace": "jarvis", "version": VERSION, "nodes": nodes}) + "\n"
    for row in rows:
        yield json.dumps(row, ensure_ascii=False) + "\n"


def read_history(text: str) -> Workload:
    """What ``jarvis sim --trace last-week --save FILE`` wrote."""
    first, *rest = text.splitlines() or [""]
    nodes = _line(1, first, _nodes)
    rows = [_line(number, line, _checked) for number, line in enumerate(rest, start=2)]
    return workload_of(rows, nodes)


def _line(number: int, line: str, read: Callable[[Any], T]) -> T:
    try:
        return read(json.loads(line))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InvalidValue("trace", f"line {number}", "a line as 'jarvis sim --save' writes it") from None


def _nodes(head: Any) -> list[tuple[int, Resources]]:
    if (head["trace"], head["version"]) != ("jarvis", VERSION):
        raise InvalidValue("trace", f"version {head['version']}", f"a history of version {VERSION}")
    return [(int(count), {str(n): int(a) for n, a in size.items()}) for count, size in head["nodes"]]


def _checked(row: dict[str, Any]) -> dict[str, Any]:
    _item(row)
    return row
