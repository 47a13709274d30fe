"""The speed table: Jarvis and its peers on this machine, in turns, each in a fresh directory.

``make bench`` (about 12 minutes, quiet machine wanted), ``make bench ARGS=--quick`` (about 2). Peers are installed into
``.benchmarks/peers``, pinned. Jarvis is durable in every run: synced to disk before it acknowledges; what peers promise stands
beside their figures. ``--write`` puts the table into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import uuid
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measure import MARK, fsync_p50_ms, percentile
from benchmarks.syncs import count_from_here, counted

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
ENVIRONMENTS = ROOT / ".benchmarks" / "peers"
PAGE = ROOT / "docs" / "benchmarks.md"
WORKERS = 2
PATIENCE_S = 300


@dataclass(frozen=True, slots=True)
class Side:
    """Somebody who takes part. ``pins``: what is installed for it; ``promise``: what it has on disk when it acknowledges."""

    name: str
    promise: str
    pins: tuple[str, ...] = ()

    @property
    def python(self) -> Path:
        return ENVIRONMENTS / self.name / "bin" / "python" if self.pins else Path(sys.executable)

    def command(self, mode: str, count: int, directory: Path) -> list[str]:
        if self.name in ("jarvis", "cluster"):
            script = [str(self.python), "-m", f"benchmarks.{self.name}_side"]
        else:
            script = [str(self.python), str(HERE / "peers" / f"run_{self.name}.py")]
        return [*script, mode, str(count), str(WORKERS), str(directory)]


JARVIS = Side("jarvis", "synced")
SPAWN = Side("spawn", "nothing")
PEERS = {
    side.name: side
    for side in (
        Side("ray", "nothing", ("ray==2.60.0",)),
        Side("dask", "nothing", ("distributed==2026.8.0",)),
        Side("celery", "Redis memory", ("celery[redis]==5.7.0",)),
        Side("dramatiq", "Redis memory", ("dramatiq[redis]==2.2.1",)),
        Side("dbos", "PostgreSQL, synced", ("dbos==3.4.0",)),
        Side("hyperqueue", "nothing", ("hyperqueue==0.27.0",)),
        Side("cluster", "PostgreSQL, synced"),
    )
}


@dataclass(frozen=True, slots=True)
class Row:
    """A measurement in turns. ``few``: peers that are too slow for the whole count, and how many they do."""

    name: str
    what: str
    target: str
    mode: str
    count: int
    peers: tuple[str, ...] = ()
    few: dict[str, int] = field(default_factory=dict)


ROWS = (
    Row("S1", "no-op functions, submitted to last result", "≥ 15,000/s, ≤ 100 µs CPU, 10× Ray, 20× Dask and Celery", "functions",
        10_000, ("ray", "dask", "celery", "dramatiq", "dbos"), {"celery": 3000, "dask": 5000, "dbos": 500}),
    Row("S2", "processes (`true`), output to files", "≥ 60 % of bare spawn, 4× HyperQueue and Celery", "processes", 5000,
        ("spawn", "hyperqueue", "celery"), {"celery": 1000, "hyperqueue": 2000}),
    Row("S2 isolated", "processes in control groups", "≥ 50 % of bare spawn in control groups", "isolated", 2000, ("spawn",)),
    Row("S3", "one function, submit to result", "p50 ≤ 2.5 ms, p99 ≤ 10 ms", "one", 300,
        ("ray", "dask", "celery", "dramatiq", "dbos"), {"dbos": 50}),
    Row("S5", "batches of 1,000, acknowledged", "≥ 100,000/s", "batches", 100_000),
    Row("S5 small", "batches of 100, acknowledged", "≥ 30,000/s", "small_batches", 20_000),
    Row("S5 array", "an array of 100,000", "≤ 100 ms", "array", 100_000),
    Row("S10", "functions, on PostgreSQL and Redis as well", "≥ 30 % of embedded", "functions", 10_000, ("cluster",)),
    Row("S10", "processes, likewise", "≥ 60 % of embedded", "processes", 2000, ("cluster",)),
    Row("S10", "batches of 1,000, likewise", "≥ 30 % of embedded", "batches", 100_000, ("cluster",)),
)  # fmt: skip


def install(side: Side) -> str:
    """Its environment, made once for these pins; why not, if it cannot be had."""
    marker = ENVIRONMENTS / side.name / "pins"
    if not side.pins or (marker.exists() and marker.read_text() == "\n".join(side.pins)):
        return ""
    print(f"Installing {', '.join(side.pins)}", file=sys.stderr)
    folder = ENVIRONMENTS / side.name
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True, capture_output=True)
        pip = [str(side.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *side.pins], check=True, capture_output=True, text=True, timeout=PATIENCE_S)
    except (subprocess.SubprocessError, OSError) as error:
        return f"not installed: {str(getattr(error, 'stderr', '') or error).strip().splitlines()[-1]}"
    marker.write_text("\n".join(side.pins))
    return ""


def run(command: list[str], directory: Path, env: dict[str, str]) -> dict[str, Any]:
    """What a script told, with the syncs of its whole run; ``error`` if it told nothing."""
    (directory / "out").mkdir()
    before = counted()
    env = {**os.environ, **env, MARK: uuid.uuid4().hex, "PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run(
            command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"nothing within {PATIENCE_S} s"}
    try:
        told = dict(json.loads(done.stdout.strip().splitlines()[-1]))
        return told if before is None else told | {"syncs": (counted() or 0) - before}
    except (ValueError, IndexError):
        return {"error": (done.stderr.strip().splitlines() or ["no answer"])[-1][:200]}


@dataclass(slots=True)
class Options:
    """Of one run of the table."""

    rounds: int
    scale: int
    only: str
    services: dict[str, str]
    folder: Path
    """What the runs write, removed when all is measured: where many files were removed lately, some file systems are slow to make
    new ones."""


def measure(row: Row, options: Options) -> dict[str, list[dict[str, Any]]]:
    """Everybody once a round, in turns; each in a directory of its own."""
    sides = [JARVIS, *(PEERS.get(name, SPAWN) for name in row.peers)]
    found: dict[str, list[dict[str, Any]]] = {side.name: [] for side in sides}
    for turn in range(options.rounds):
        for side in sides if turn % 2 == 0 else reversed(sides):
            why = install(side)
            if why:
                found[side.name].append({"error": why})
                continue
            count = max(row.few.get(side.name, row.count) // options.scale, 20)
            folder = Path(tempfile.mkdtemp(prefix="jb-", dir=options.folder))
            told = run(side.command(row.mode, count, folder), folder, options.services)
            found[side.name].append(told)
            print(f"  {row.name} {side.name}: {short(told)}", file=sys.stderr, flush=True)
    return found


def figure(told: dict[str, Any]) -> float | None:
    """What is compared: a rate, or milliseconds."""
    if "rate" in told:
        return float(told["rate"])
    if "times_ms" in told:
        return float(statistics.median(told["times_ms"]))
    return float(told["ms"]) if "ms" in told else None


def short(told: dict[str, Any]) -> str:
    if "error" in told:
        return str(told["error"])
    syncs = f", {told['syncs']:,} syncs" if "syncs" in told else ""
    if "rate" in told:
        return f"{told['rate']:,.0f}/s, {told['cpu_us']:,.0f} µs CPU{syncs}"
    if "times_ms" in told:
        return f"p50 {figure(told):.1f} ms, p99 {percentile(told['times_ms'], 0.99):.1f} ms{syncs}"
    return f"{told['ms']:.1f} ms{syncs}"


def middle(tolds: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The run whose figure is the median."""
    good = sorted((told for told in tolds if "error" not in told), key=lambda told: figure(told) or 0.0)
    return good[len(good) // 2] if good else None


def ratio(mine: dict[str, Any], other: dict[str, Any]) -> str:
    """How many times as fast Jarvis is."""
    a, b = figure(mine) or 0.0, figure(other) or 0.0
    factor = (a / b if "rate" in mine else b / a) if a and b else 0.0
    return f"{factor:.2f}×" if factor < 10 else f"{factor:.0f}×"


def lines_of(row: Row, found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """One for Jarvis, one for each peer."""
    mine = middle(found["jarvis"])
    said = short(mine) if mine else str(found["jarvis"][0]["error"])
    lines = [f"| {row.name} | {row.what} | {row.target} | **Jarvis** (synced) | {said} | |"]
    for name in row.peers:
        other = middle(found[name])
        promise = PEERS.get(name, SPAWN).promise
        said = short(other) if other else str(found[name][0]["error"])
        lines.append(f"| | | | {name} ({promise}) | {said} | {ratio(mine, other) if mine and other else ''} |")
    return lines


def api(options: Options) -> list[str]:
    """S4: see ``api_load``."""
    stored, count = 1_000_000 // options.scale, 10_000 // options.scale
    with tempfile.TemporaryDirectory(prefix="jb-") as folder:
        told = told_by("api_load", str(stored), str(count), str(WORKERS), folder)
    if "error" in told:
        return [f"| S4 | HTTP, 32 connections | | **Jarvis** | {told['error']} | |"]
    gets = ", ".join(f"{n} {told[f'get_{n}_p99_ms']:.0f}" for n in ("task", "list", "nodes", "health"))
    return [
        f"| S4 | `POST /tasks`, 32 connections | ≥ 2,000/s | **Jarvis** (synced) | {told['post_rate']:,.0f}/s | |",
        f"| | at 500/s, quiet; while 1,000 tasks run | p99 ≤ 20 ms | **Jarvis** (synced) | p99 {told['post_p99_ms']:.0f} ms; "
        f"{told['post_busy_p99_ms']:.0f} ms | |",
        f"| | GET with {told['stored']:,} tasks stored | p99 ≤ 50 ms | **Jarvis** | p99 in ms: {gets} | |",
    ]


def told_by(module: str, *arguments: str) -> dict[str, Any]:
    """Of a measurement that needs no peer, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="jb-") as folder:
        return run([sys.executable, "-m", f"benchmarks.{module}", *arguments], Path(folder), {})


def decisions(options: Options) -> list[str]:
    """S6: see ``placements``."""
    scale = ("--queued", str(100_000 // options.scale), "--placements", str(40_000 // options.scale))
    told = told_by("placements", "--json", *scale)
    if "error" in told:
        return [f"| S6 | decisions | | **Jarvis** | {told['error']} | |"]
    said = " / ".join(f"{told[nodes]:,.0f}" for nodes in ("100", "1000", "10000"))
    gpus = f"{told['openb']:,.0f}/s" if "openb" in told else "its trace is not here (JARVIS_TRACES)"
    target = "≥ 50,000 / 40,000 / 20,000 a second of a core"
    return [
        f"| S6 | placements decided, 100 / 1,000 / 10,000 nodes, 100 classes, 50 projects | {target} | **Jarvis** | {said} | |",
        f"| | …of openb's GPUs, by fragmentation | ≥ 5,000/s (kube-scheduler's own floor: 810) | **Jarvis** | {gpus} | |",
    ]


def queued(options: Options) -> list[str]:
    """S7: see ``queued``."""
    told = told_by("queued", str(1_000_000 // options.scale), "--kind", "own", "--kind", "array", "--json")
    if "error" in told:
        return [f"| S7 | queued tasks | | **Jarvis** (synced) | {told['error']} | |"]
    (own, until, pause), (array, _, _) = told["own"], told["array"]
    what, target = (
        "memory; of an array; read again after a kill; longest pause",
        "≤ 1,024 MiB; ≤ 200 MiB; ≤ 30 s; ≤ 100 ms",
    )
    said = f"{own:.0f} MiB; {array:.0f} MiB; {until:.0f} s; {pause:.0f} ms"
    return [f"| S7 | {told['count']:,} queued: {what} | {target} | **Jarvis** (synced) | {said} | |"]


def agents(options: Options) -> list[str]:
    """S8: see ``agents``."""
    told = told_by("agents", str(1000 // options.scale), "15" if options.scale == 1 else "3")
    if "error" in told:
        return [f"| S8 | agents | | **Jarvis** (synced) | {told['error']} | |"]
    what, target = "heartbeats; all back after a kill of the server", "≤ 30 % of a core; ≤ 60 s"
    said = f"{told['share']:.0%}; {told['back_s']:.0f} s"
    return [f"| S8 | {told['agents']:,} agents: {what} | {target} | **Jarvis** (synced) | {said} | |"]


def first_contact(_: Options) -> list[str]:
    """S9: see ``first_contact``."""
    with tempfile.TemporaryDirectory(prefix="jb-") as folder:
        told = told_by("first_contact", folder)
    if "error" in told:
        return [f"| S9 | `jarvis up` from cold | | **Jarvis** | {told['error']} | |"]
    return [
        "| S9 | `jarvis up` from cold; memory; first task; `--help`; idle | ≤ 2 s; ≤ 150 MB; ≤ 1 s; ≤ 0.15 s; ≤ 1 % | **Jarvis** | "
        f"{told['up_s']:.1f} s; {told['memory_mb']:.0f} MB; {told['first_task_s']:.2f} s; {told['help_s']:.2f} s; "
        f"{told['idle_core_share']:.1%} | |",
        f"| | `import jarvis`; wake-ups a second when idle; base install | | **Jarvis** | {told['import_s'] * 1000:.0f} ms; "
        f"{told['idle_wake_ups']:.0f}; {told['install_bytes'] / 1e6:.0f} MB in {told['install_packages']} packages | |",
    ]


def postgres(stack: ExitStack) -> dict[str, str]:
    """A PostgreSQL that syncs, for the peer that wants one; nothing where there is none."""
    try:
        from tests.servers.postgres import PostgresServer

        server = PostgresServer(sync=True)
        stack.callback(server.remove)
        server.create()
        return {"BENCH_POSTGRES": server.database()}
    except (OSError, AssertionError, subprocess.SubprocessError) as error:
        print(f"no PostgreSQL: {error}", file=sys.stderr)
        return {}


def table(options: Options) -> list[str]:
    wanted = [word for word in options.only.split(",") if word]
    lines = ["| row | what | target | who | measured | Jarvis is |", "|---|---|---|---|---|---|"]
    for row in ROWS:
        if not wanted or row.name.split()[0] in wanted:
            lines += lines_of(row, measure(row, options))
    alone = {"S4": api, "S6": decisions, "S7": queued, "S8": agents, "S9": first_contact}
    quick = alone.keys() - {"S7", "S8"}
    for name, lines_for in alone.items():
        if name in (wanted or (alone if options.scale == 1 else quick)):
            lines += lines_for(options)
    return lines


def page(lines: list[str], options: Options) -> str:
    """The generated part of docs/benchmarks.md."""
    with tempfile.TemporaryDirectory() as folder:
        fsync = fsync_p50_ms(Path(folder))
    cores = len(os.sched_getaffinity(0))
    where = f"{cores} cores, Python {platform.python_version()}, fdatasync of 4 KiB p50 {fsync:.2f} ms"
    how = f"{options.rounds} round(s) in turns, the median of each; {WORKERS} workers on every side"
    return "\n".join([f"Measured on {where}; {how}.", "", *lines])


def write(text: str, what: str = "table") -> None:
    """Between the marks of the page for this."""
    begin, end = f"<!-- {what}:begin -->\n", f"\n<!-- {what}:end -->"
    old = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(old[: old.index(begin) + len(begin)] + text + old[old.index(end) :], encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the volume, one round")
    parser.add_argument("--rounds", type=int, help="turns of everybody (default 3, quick 1)")
    parser.add_argument("--only", default="", metavar="S1,S2", help="these rows alone")
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    given = parser.parse_args()
    if given.write and given.only:
        parser.error("--write writes the whole table: leave out --only")
    with ExitStack() as stack:
        count_from_here(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jb-"))))
        services = postgres(stack)
        rounds = given.rounds or (1 if given.quick else 3)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jb-", ignore_cleanup_errors=True)))
        options = Options(rounds, 10 if given.quick else 1, given.only, services, folder)
        text = page(table(options), options)
    print(text)
    if given.write:
        write(text)


if __name__ == "__main__":
    main()
