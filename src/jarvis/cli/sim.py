"""sim: a recorded workload through this very scheduler: what would a policy, or other nodes, have made of it?"""

import sys
from pathlib import Path

import click

from jarvis.cli.output import duration, format_option, print_data, print_table


@click.command()
@click.option("--trace", "trace", required=True, type=click.Path(path_type=Path), help="SWF or CSV, also as .gz.")
@click.option("--kind", default="", help="Format of the trace, where its name does not tell: swf, philly.")
@click.option("--policy", default="default", help="A preset (default, throughput, fifo) or a YAML file.")
@click.option("--nodes", multiple=True, help="Like 4x64 or 4xcpu=64,memory=256Gi; else one as large as the trace says.")
@click.option("--from", "start", default=0, type=click.IntRange(0), help="First task of the trace to replay.")
@click.option("--count", type=click.IntRange(1), help="How many tasks; else all.")
@click.option("--draws", default=0, type=click.IntRange(0), help="So many sequences of --count tasks, drawn by --seed.")
@click.option("--seed", default=1, type=click.IntRange(0), help="Of the draws.")
@click.option("--single", is_flag=True, help="A turn for each event, as published simulators have it.")
@format_option
def sim(trace: Path, kind: str, policy: str, nodes: tuple[str, ...], start: int, count: int | None, draws: int,
        seed: int, single: bool, output: str) -> None:  # fmt: skip
    """Replay a recorded workload with the scheduler's own code, on a clock that is set and workers that only count.

    Means stand beside the 99th percentile and the longest. Times are seconds of the trace.
    """
    from jarvis.sim.traces.run import Question, answer, nodes_from, policy_from

    machines = tuple(nodes_from(given) for given in nodes)
    question = Question(trace, policy_from(policy), machines, kind, start, count, draws, seed, single)
    found = answer(question, _tell if sys.stderr.isatty() else lambda done, total: None)
    mean = found.mean
    if output in ("json", "yaml"):
        data = {"mean": mean.as_dict(), "each": [one.as_dict() for one in found.each], "dropped": found.dropped}
        print_data(data, output)
        return
    rows = [
        ("bounded slowdown", f"{mean.slowdown:.2f}", f"{mean.slowdown_p99:.0f}", ""),
        ("wait", duration(mean.wait), duration(mean.wait_p99), duration(mean.wait_longest)),
        ("turnaround", duration(mean.turnaround), "", ""),
    ]
    print_table(("FIGURE", "MEAN", "P99", "LONGEST"), rows)
    click.echo(
        f"{mean.tasks:,} tasks ran, {mean.never:,} never; utilisation {mean.utilisation:.3f}; "
        f"makespan {duration(mean.makespan)}"
        + (f"; mean of {len(found.each)} sequences" if len(found.each) > 1 else "")
    )


def _tell(done: int, total: int) -> None:
    click.echo(f"\r{done + 1} of {total}", nl=done + 1 == total, err=True)
