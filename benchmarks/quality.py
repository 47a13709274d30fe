"""The quality of the scheduler on public workloads: its figures beside published ones, each by ``jarvis sim`` and a printed policy.

``make quality`` (``ARGS="q1"`` for one table). The traces are looked for in JARVIS_TRACES, else in ``../shared/traces``.
Sources: RLScheduler (Zhang et al., SC'20, tables V and VI); RICC-2010-2, Parallel Workloads Archive (our thanks to
M. Kurokawa, RIKEN).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NO_FAIRNESS = "fairness: nobody"
NO_BACKFILL = "backfill: {name: none, keep: true}"
SC20 = "backfill: {name: easy, order: submission, extra: false, keep: true}"
"""Backfilling as RLScheduler has it: in order of submission, only what ends before the first one's start, which is kept."""
EASY = "backfill: easy"


@dataclass(frozen=True, slots=True)
class Row:
    """One replay: what it is called, its policy in YAML, and the published cell that stands beside it."""

    name: str
    policy: str
    published: str = ""
    reach: str = ""
    arguments: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Table:
    """Rows over one trace."""

    title: str
    trace: str
    rows: tuple[Row, ...]
    arguments: tuple[str, ...] = ()


def _row(name: str, order: str, backfill: str, published: str = "", reach: str = "") -> Row:
    return Row(name, f"order: {order}\n{backfill}\n{NO_FAIRNESS}\n", published, reach)


SEQUENCES = ("--draws", "10", "--count", "1024", "--single")

TABLES = {
    "q1": Table(
        "Q1: average bounded slowdown, Lublin-1, 10 sequences of 1,024 (RLScheduler, SC'20)",
        "lublin/lublin_256.swf.gz",
        (
            _row("FCFS, no backfilling", "fifo", NO_BACKFILL, "7273.77"),
            _row("SJF, no backfilling", "shortest", NO_BACKFILL, "277.35"),
            _row("F1, no backfilling", "f1", NO_BACKFILL, "258.37"),
            _row("FCFS, its backfilling", "fifo", SC20, "235.82"),
            _row("SJF, its backfilling", "shortest", SC20, "73.31"),
            _row("F1, its backfilling", "f1", SC20, "75.07"),
            _row("FCFS, EASY", "fifo", EASY),
            Row("throughput", "preset: throughput\n", "58.64 (best, learned)", "34.8"),
            Row("default", "preset: default\n", "58.64 (best, learned)", "58.6, longest wait 1.5 x FCFS"),
        ),
        SEQUENCES,
    ),
    "q1b": Table(
        "The same on another list of the model (no published cells)",
        "lublin/lublin-aaroh.swf.gz",
        (
            _row("FCFS, EASY", "fifo", EASY),
            Row("throughput", "preset: throughput\n"),
            Row("default", "preset: default\n"),
        ),
        SEQUENCES,
    ),
    "hpc2n": Table(
        "HPC2N, first 3,171 tasks",
        "hpc2n/hpc2n.swf.gz",
        (
            _row("FCFS, EASY", "fifo", EASY, "18.4 (reference)"),
            _row("FCFS, EASY, shortest first behind it", "fifo", "backfill: {name: easy, order: shortest}", "16.7 (reference)"),
            Row("throughput", "preset: throughput\n"),
            Row("default", "preset: default\n"),
        ),
    ),
    "q3": Table(
        "Q3: average bounded slowdown, RICC, the whole log of 447,794 tasks",
        "ricc/RICC-2010-2.swf.gz",
        (Row("throughput", "preset: throughput\n", "208.4 (EASY), 109.1 (shortest first behind it)", "107"),),
    ),
}  # fmt: skip


def traces() -> Path:
    named = os.environ.get("JARVIS_TRACES")
    return Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "traces"


def sim(trace: Path, policy: str, arguments: tuple[str, ...]) -> dict[str, Any]:
    """The figures of one replay, from the command that anybody can type."""
    jarvis = Path(sys.executable).with_name("jarvis")
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(policy)
        file.flush()
        command = [str(jarvis), "sim", "--trace", str(trace), "--policy", file.name, *arguments, "-o", "json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)["mean"]
    return found


def show(table: Table, folder: Path) -> None:
    arguments = " ".join(table.arguments)
    _say(f"\n{table.title}\n  jarvis sim --trace {table.trace} {arguments} --policy POLICY.yaml\n")
    for row in table.rows:
        found = sim(folder / table.trace, row.policy, table.arguments + row.arguments)
        _say(
            f"  {row.name}: {found['slowdown']:.2f}"
            + (f"   published {row.published}" if row.published else "")
            + (f"   to reach {row.reach}" if row.reach else "")
            + f"\n      p99 {found['slowdown_p99']:.0f}; wait mean {found['wait']:,.0f} s, p99 {found['wait_p99']:,.0f} s, "
            f"longest {found['wait_longest']:,.0f} s; utilisation {found['utilisation']:.3f}; never {found['never']}"
            f"\n      {{{'; '.join(row.policy.strip().splitlines())}}}"
        )


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", help=f"of {', '.join(TABLES)}; all of them when none is named")
    wanted = parser.parse_args().tables or list(TABLES)
    folder = traces()
    unknown = [name for name in wanted if name not in TABLES]
    if unknown:
        parser.error(f"no such table: {', '.join(unknown)}")
    missing = sorted({TABLES[name].trace for name in wanted if not (folder / TABLES[name].trace).is_file()})
    if missing:
        sys.exit(
            f"make quality: no such traces below {folder}: {', '.join(missing)} (JARVIS_TRACES says where they are)"
        )
    for name in wanted:
        show(TABLES[name], folder)


if __name__ == "__main__":
    main()
