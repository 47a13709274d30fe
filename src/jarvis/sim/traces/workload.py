"""A recorded workload: what was submitted when, how long it ran, and readers of the formats in which such are published."""

import csv
import gzip
import hashlib
import io
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from jarvis.core.errors import InvalidValue
from jarvis.core.resources import Resources


@dataclass(slots=True)
class Recorded:
    """A recorded submission. Instants and durations in seconds; ``limit`` is what its user asked for, if anything."""

    ident: int
    submitted: float
    run: float
    limit: float | None
    resources: Resources
    user: str = "u"
    project: str = "default"
    name: str = "t"


@dataclass(slots=True)
class Workload:
    """Submissions in order of submission, and the machine that the trace says it ran on: (count, resources) of equal nodes."""

    items: list[Recorded]
    nodes: list[tuple[int, Resources]] = field(default_factory=list)
    dropped: int = 0
    """Rows without a run time or a size."""


def read(path: Path, kind: str = "") -> Workload:
    """By the name of the file (``.swf``, ``.csv``, also compressed by gzip), or by ``kind``."""
    name = path.name.removesuffix(".gz")
    kind = kind or name.rpartition(".")[2]
    if kind not in _READERS:
        raise InvalidValue("trace", path.name, f"a file in one of the formats {', '.join(sorted(_READERS))}")
    try:
        raw = path.read_bytes()
        text = gzip.decompress(raw) if path.suffix == ".gz" else raw
        return _READERS[kind](text.decode("utf-8"))
    except (OSError, UnicodeDecodeError, EOFError):
        raise InvalidValue("trace", str(path), "a file that can be read") from None


def _swf(text: str) -> Workload:
    """The Standard Workload Format of the Parallel Workloads Archive, version 2.2: 18 fields a row, -1 for unknown."""
    items: list[Recorded] = []
    procs = dropped = 0
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith(";"):
            key, _, value = line[1:].partition(":")
            if key.strip() == "MaxProcs" and value.split():
                procs = int(value.split()[0])
            continue
        fields = line.split()
        if not fields:
            continue
        item = _swf_row(fields, number)
        if item is None:
            dropped += 1
        else:
            items.append(item)
    items.sort(key=lambda item: item.submitted)
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
    items = []
    dropped = 0
    for ident, row in enumerate(rows, start=1):
        gpus, run = int(float(row["num_gpus"])), float(row["duration"])
        if gpus <= 0 or run <= 0:
            dropped += 1
            continue
        vc = row.get("vc", "") or "default"
        items.append(Recorded(ident, float(row["timestamp"]), run, None, {"gpu": gpus * 1000}, vc, vc))
    items.sort(key=lambda item: item.submitted)
    return Workload(items, [(1, {"gpu": 448_000})], dropped)


_READERS = {"swf": _swf, "philly": _philly}


def cut(items: list[Recorded], start: int, count: int) -> list[Recorded]:
    """A sequence of consecutive items."""
    if start < 0 or start + count > len(items):
        raise InvalidValue("from", start, f"within the {len(items)} items of the trace, with {count} behind it")
    return items[start : start + count]


def drawn_starts(seed: int, draws: int, count: int, total: int) -> Iterator[int]:
    """Starts of sequences as RLScheduler (Zhang et al., SC'20) draws them: numpy's old generator, seeded as gym did."""
    words = hashlib.sha512(str(seed).encode()).digest()[:8]
    chance = random.Random(int.from_bytes(words, "little"))  # noqa: S311 - has to be this one
    span = total - 2 * count - 2
    mask = (1 << span.bit_length()) - 1
    while draws:
        value = chance.getrandbits(32) & mask
        if value <= span:
            draws -= 1
            yield count + value


def span_of(items: Iterable[Recorded]) -> float:
    submitted = [item.submitted for item in items]
    return max(submitted) - min(submitted) if submitted else 0.0
