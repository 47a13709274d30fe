"""Readers of the formats in which workloads are published, and of Jarvis's own."""

import csv
import gzip
import io
from datetime import UTC, datetime
from pathlib import Path

from jarvis.core.errors import InvalidValue
from jarvis.sim.traces.history import read_history
from jarvis.sim.traces.workload import Recorded, Workload, gathered

PHILLY_GPUS = 448
"""Of the machine that its rows are replayed on where nobody says otherwise: somewhat more than they ask for on average."""


def read(path: Path, kind: str = "") -> Workload:
    """By the name of the file (``.swf``, ``.jsonl``, also compressed by gzip), or by ``kind``."""
    name = path.name.removesuffix(".gz")
    kind = kind or name.rpartition(".")[2]
    if kind not in _READERS:
        known = ", ".join(sorted(_READERS))
        raise InvalidValue(
            "trace", path.name, f"a file that is named by one of the formats {known}, or --kind with one"
        )
    try:
        raw = path.read_bytes()
        text = gzip.decompress(raw) if path.suffix == ".gz" else raw
        return _READERS[kind](text.decode("utf-8"))
    except (OSError, UnicodeDecodeError, EOFError):
        raise InvalidValue("trace", str(path), "a file that can be read") from None


def _swf(text: str) -> Workload:
    """The Standard Workload Format of the Parallel Workloads Archive, version 2.2: 18 fields a row, -1 for unknown."""
    rows: list[Recorded | None] = []
    procs = 0
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith(";"):
            key, _, value = line[1:].partition(":")
            if key.strip() == "MaxProcs" and value.split():
                procs = int(value.split()[0])
            continue
        if fields := line.split():
            rows.append(_swf_row(fields, number))
    items, dropped = gathered(rows)
    machine = procs or max((item.resources["cpu"] // 1000 for item in items), default=1)
    return Workload(items, [(1, {"cpu": machine * 1000})], dropped)


def _swf_row(fields: list[str], number: int) -> Recorded | None:
    try:
        figures = [float(value) for value in fields]
        run, procs, wanted = figures[3], max(int(figures[4]), int(figures[7])), figures[8]
    except (ValueError, IndexError):
        raise InvalidValue("trace", f"line {number}", "a row of at least 9 numbers, as SWF has them") from None
    if run <= 0 or procs <= 0:
        return None
    limit = wanted if wanted > 0 else run
    user, group = (int(figures[11]), int(figures[12])) if len(figures) > 12 else (-1, -1)
    return Recorded(
        int(figures[0]), figures[1], min(run, limit), limit, {"cpu": procs * 1000}, f"u{user}", f"g{group}",
        f"x{int(figures[13])}" if len(figures) > 13 else "t",
    )  # fmt: skip


def _philly(text: str) -> Workload:
    """Rows of timestamp, duration, GPUs, virtual cluster (after Jeon et al., ATC'19)."""
    rows = csv.DictReader(io.StringIO(text))
    items, dropped = gathered(_philly_row(row, number) for number, row in enumerate(rows, start=2))
    return Workload(items, [(1, {"gpu": PHILLY_GPUS * 1000})], dropped)


def _philly_row(row: dict[str, str], number: int) -> Recorded | None:
    """Timestamps are taken as UTC. Nobody asked for a limit, and nothing tells who within a virtual cluster submitted."""
    try:
        submitted = datetime.fromisoformat(row["timestamp"]).replace(tzinfo=UTC).timestamp()
        gpus, run, cluster = int(float(row["num_gpus"])), float(row["duration"]), row["cluster"]
    except (KeyError, TypeError, ValueError):
        wanted = "a row with timestamp, duration, num_gpus and cluster"
        raise InvalidValue("trace", f"line {number}", wanted) from None
    if gpus <= 0 or run <= 0:
        return None
    return Recorded(number - 1, submitted, run, None, {"gpu": gpus * 1000}, "u", cluster or "default")


_READERS = {"swf": _swf, "philly": _philly, "jsonl": read_history}
