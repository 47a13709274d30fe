"""The quality of the scheduler on public workloads: its figures beside published ones, each by ``jarvis sim`` and a printed policy.

``make quality`` (``ARGS="q1"`` for one table). The traces are looked for in JARVIS_TRACES, else in ``../shared/traces``.
Sources: RLScheduler (Zhang et al., SC'20, tables V and VI); FGD (Weng et al., ATC'23, on Alibaba's cluster-trace-gpu-v2023);
RICC-2010-2, Parallel Workloads Archive (our thanks to M. Kurokawa, RIKEN).
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

from benchmarks import workflows

NO_FAIRNESS = "fairness: nobody"
NO_BACKFILL = "backfill: {name: none, keep: true}"
SC20 = "backfill: {name: easy, order: submission, extra: false, keep: true}"
"""Backfilling as RLScheduler has it: in order of submission, only what ends before the first one's start, which is kept."""
EASY = "backfill: easy"
EASY_PREDICTED = "backfill: {name: easy, times: predicted}"


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
    foresight: bool = False
    """Whether to tell how good predictions were."""


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
    "predict-hpc2n": Table(
        "Predictions, HPC2N, first 3,171 tasks: average bounded slowdown, by limits and by predictions",
        "hpc2n/hpc2n.swf.gz",
        (
            _row("smallest area by limits", "smallest_area", EASY, "18.4 (EASY), 16.7 (shortest first behind it)"),
            _row("smallest area by predictions", "{name: smallest_area, times: predicted}", EASY),
            _row("shortest by predictions", "{name: shortest, times: predicted}", EASY),
            _row("and reservations by predictions", "{name: smallest_area, times: predicted}", EASY_PREDICTED),
        ),
        foresight=True,
    ),
    "predict-ricc": Table(
        "Predictions, RICC, the whole log of 447,794 tasks: average bounded slowdown, by limits and by predictions",
        "ricc/RICC-2010-2.swf.gz",
        (
            _row("smallest area by limits", "smallest_area", EASY, "208.4 (EASY), 109.1 (shortest first behind it)"),
            _row("smallest area by predictions", "{name: smallest_area, times: predicted}", EASY, "", "60"),
        ),
        foresight=True,
    ),
    "q3": Table(
        "Q3: average bounded slowdown, RICC, the whole log of 447,794 tasks",
        "ricc/RICC-2010-2.swf.gz",
        (
            Row("throughput", "preset: throughput\n", "208.4 (EASY), 109.1 (shortest first behind it)", "107"),
            Row("default", "preset: default\nfairness: nobody\n", "208.4 (EASY), 109.1 (shortest first behind it)", "107"),
            Row("default by predictions", "preset: default\nfairness: nobody\norder: {times: predicted}\n", "", "60"),
        ),
    ),
}  # fmt: skip


PATIENT = "order: {name: least_attained, patience: 1209600}\nbackfill: skip\n"
LAS = "order: least_attained\nbackfill: skip\n"
TAKING_TURNS = "preemption: {attained: true, times: 100000, most: 1000, protect: 0, grace: 0}\n"
PHILLY_ROWS = (
    Row("first come, what fits passes", f"order: fifo\nbackfill: skip\n{NO_FAIRNESS}\n", "560,906 (reference)"),
    Row("fair between virtual clusters, no preemption", "order: fifo\nbackfill: skip\n"),
    Row("least attained, free preemption", f"{LAS}{NO_FAIRNESS}\n{TAKING_TURNS}", "90,337 (two levels, reference)", "90,000"),
    Row("…60 s for each preemption", f"{LAS}{NO_FAIRNESS}\n{TAKING_TURNS}", arguments=("--restart", "60")),
    Row("…and two weeks of waiting make up for a level", f"{PATIENT}{NO_FAIRNESS}\n{TAKING_TURNS}", arguments=("--restart", "60")),
)  # fmt: skip


def show_philly(folder: Path) -> None:
    """Q4: 82,247 tasks of Microsoft's Philly on one pool of 448 GPUs, of which nobody says beforehand how long they take."""
    _say(
        "\nQ4: mean completion time, Philly (Jeon et al., ATC'19), 448 GPUs in one pool, no oracle\n"
        "  jarvis sim --trace philly/philly.csv.gz --kind philly --projects --policy POLICY.yaml\n"
    )
    for row in PHILLY_ROWS:
        found = sim(folder / "philly/philly.csv.gz", row.policy, ("--kind", "philly", "--projects", *row.arguments))
        _say(
            f"  {row.name}: {found['turnaround']:,.0f} s"
            + (f"   beside {row.published}" if row.published else "")
            + (f"   to reach {row.reach}" if row.reach else "")
            + f"\n      median {found['turnaround_p50']:,.0f} s; wait mean {found['wait']:,.0f} s, p99 {found['wait_p99']:,.0f} s, "
            f"longest {found['wait_longest']:,.0f} s\n      utilisation {found['utilisation']:.3f}; "
            f"{found['preemptions']:,} preemptions, of one task at most {found['preempted_most']:,}; fairness between those that "
            f"wait {found['fairness']:.3f}"
            f"\n      {{{'; '.join(row.policy.strip().splitlines())}}} {' '.join(row.arguments)}"
        )
        for one in found["projects"]:
            _say(
                f"        {one['project']}: {one['tasks']:,} tasks, {100 * one['share']:.1f} % of all GPU time; completion "
                f"{one['turnaround']:,.0f} s, wait mean {one['wait']:,.0f} s, p99 {one['wait_p99']:,.0f} s, longest "
                f"{one['wait_longest']:,.0f} s"
            )


OTHERS = ("q2", "q4", "q6")
TOGETHER = {"predict": ("predict-hpc2n", "predict-ricc")}

PUBLISHED_GPUS = {
    "default": ("93.08", "95.39"), "gpushare40": ("91.7", "94.15"), "gpushare80": ("87.0", "89.30"),
    "multigpu20": ("93.9", "95.65"), "multigpu40": ("95.2", "96.99"), "gpuspec10": ("93.3", "94.95"),
    "gpuspec25": ("93.2", "94.74"), "cpu100": ("93.4", "95.35"),
}  # fmt: skip
"""List → share of all GPUs that BestFit and FGD give away when 130 % are asked for (Weng et al., ATC'23, its own results)."""
GPU_ROWS = (("BestFit", "best_fit", 0), ("FGD", "fgd", 1), ("default", "gpu_fit", 1))
FILLINGS = ("--draws", "10", "--seed", "42", "--arrive", "1.3")


def show_gpus(folder: Path) -> None:
    """Q2: Alibaba's openb, 1,213 nodes with 6,212 GPUs, filled by lists of requests in ten orders of nodes and arrival each."""
    nodes = folder / "openb" / "openb_node_list_gpu_node.csv.gz"
    _say(
        "\nQ2: share of all GPUs given away at 130 % asked, openb, mean of 10 orders of nodes and arrival (FGD, ATC'23)\n"
        f"  jarvis sim --trace PODS.csv.gz --machines NODES.csv.gz {' '.join(FILLINGS)} --policy POLICY.yaml\n"
    )
    for name, published in PUBLISHED_GPUS.items():
        for title, balancer, column in GPU_ROWS:
            policy = (
                "preset: default\n"
                if title == "default"
                else f"gpu_balancer: {balancer}\nbackfill: skip\n{NO_FAIRNESS}\n"
            )
            pods = folder / "openb" / f"openb_pod_list_{name}.csv.gz"
            found = sim(pods, policy, ("--machines", str(nodes), *FILLINGS))
            _say(
                f"  {name}, {title}: {found['allocated']:.2f} %   published {published[column]}"
                f"   (at 100 % asked {found['allocated_at_100']:.2f} %; {found['left']:.0f} GPUs left)"
                f"   {{{'; '.join(policy.strip().splitlines())}}}"
            )


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
    answer: dict[str, Any] = json.loads(done.stdout)
    found: dict[str, Any] = answer["mean"]
    return found | {"foresight": answer.get("foresight"), "projects": answer.get("projects")}


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
        if table.foresight:
            _say_foresight(found["foresight"])


def _say_foresight(seen: dict[str, Any]) -> None:
    _say(
        f"      predicted at submission, of the later half: {100 * seen['covered']:.1f} % of {seen['tasks']:,} ends within their "
        f"interval (meant: 90); width median {seen['width']:,.0f} s, mean {seen['width_mean']:,.0f} s (limits: mean "
        f"{seen['limit_mean']:,.0f} s)\n      off by a factor of {seen['factor']:.2f} in the median, limits by "
        f"{seen['factor_limit']:.2f}"
    )


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "tables",
        nargs="*",
        help=f"of {', '.join(TABLES)}, predict (both of it), {', '.join(OTHERS)}; all of them when none is named",
    )
    parser.add_argument("--most", type=int, default=10_000, help="q6: workflows of at most so many tasks")
    options = parser.parse_args()
    named = options.tables or [*TABLES, *OTHERS]
    wanted = [one for name in named for one in TOGETHER.get(name, (name,))]
    folder = traces()
    unknown = [name for name in wanted if name not in (*TABLES, *OTHERS)]
    if unknown:
        parser.error(f"no such table: {', '.join(unknown)}")
    needed = {TABLES[name].trace for name in wanted if name in TABLES}
    if "q2" in wanted:
        needed |= {"openb/openb_node_list_gpu_node.csv.gz"} | {
            f"openb/openb_pod_list_{n}.csv.gz" for n in PUBLISHED_GPUS
        }
    if "q4" in wanted:
        needed.add("philly/philly.csv.gz")
    if "q6" in wanted:
        needed.add("workflows/instances.jsonl.gz")
    missing = sorted(name for name in needed if not (folder / name).is_file())
    if missing:
        sys.exit(
            f"make quality: no such traces below {folder}: {', '.join(missing)} (JARVIS_TRACES says where they are)"
        )
    for name in wanted:
        if name == "q2":
            show_gpus(folder)
        elif name == "q4":
            show_philly(folder)
        elif name == "q6" and not workflows.show(folder, options.most):
            sys.exit("q6: not within reach")
        elif name in TABLES:
            show(TABLES[name], folder)


if __name__ == "__main__":
    main()
