"""sim: a recorded workload through this very scheduler: what would a policy, or other nodes, have made of it?"""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jarvis.cli.output import duration, format_option, print_data, print_table
from jarvis.cli.said import refuse, said

if TYPE_CHECKING:
    from jarvis.sim.traces.replay import History
    from jarvis.sim.traces.report import Share, Terms
    from jarvis.sim.traces.run import Answer
    from jarvis.sim.traces.workload import Workload

OF_FILLING = ("trace", "machines", "policy", "arrive", "draws", "seed", "output")


@click.command()
@click.option(
    "--trace",
    "trace",
    required=True,
    type=click.Path(path_type=Path),
    help="SWF, CSV or JSON lines, also as .gz; or what ran here: last-day, last-week, last-month, last-12h.",
)
@click.option("--kind", default="", help="Format of the trace, where its name does not tell: swf, philly, jsonl.")
@click.option("--save", type=click.Path(path_type=Path), help="Keep what ran here as JSON lines, to be replayed again.")
@click.option("--policy", default="default", help="A preset (default, throughput, fifo) or a YAML file.")
@click.option("--nodes", multiple=True, help="Like 4x64 or 4xcpu=64,memory=256Gi; else one as large as the trace says.")
@click.option("--from", "start", default=0, type=click.IntRange(0), help="First task of the trace to replay.")
@click.option("--count", type=click.IntRange(1), help="How many tasks; else all.")
@click.option("--draws", default=0, type=click.IntRange(0), help="So many sequences of --count tasks, drawn by --seed.")
@click.option("--seed", default=1, type=click.IntRange(0), help="Of the draws.")
@click.option(
    "--machines", type=click.Path(path_type=Path), help="Nodes as CSV: fill them with the GPU requests of the trace."
)
@click.option(
    "--arrive", default=1.3, type=click.FloatRange(0.01, 100), help="With --machines: times all GPUs that is asked for."
)
@click.option(
    "--restart", default=0.0, type=click.FloatRange(0, 1e6), help="Seconds that pass before what was preempted goes on."
)
@click.option("--lose", is_flag=True, help="What is preempted starts again from its beginning, not where it was.")
@click.option(
    "--price", default="", help="Of an hour: node=1.5, or gpu=2,cpu=0.04,memory=0.005 (a GiB); tells what it cost."
)
@click.option(
    "--starved", default=24.0, type=click.FloatRange(0), help="Hours after which what waits counts as starved."
)
@click.option("--projects", is_flag=True, help="Also what each project had.")
@click.option("--picture", type=click.Path(path_type=Path), help="Draw the last sequence into FILE.svg or FILE.html.")
@click.option("--single", is_flag=True, help="A turn for each event, as published simulators have it.")
@format_option
def sim(trace: Path, kind: str, save: Path | None, policy: str, nodes: tuple[str, ...], start: int, count: int | None, draws: int,
        seed: int, machines: Path | None, arrive: float, restart: float, lose: bool, price: str,
        starved: float, projects: bool, picture: Path | None, single: bool, output: str) -> None:  # fmt: skip
    """Replay a recorded workload with the scheduler's own code, on a clock that is set and workers that only count.

    Means stand beside the 99th percentile and the longest. Times are seconds of the trace. A wait is all that a task took longer
    than it ran: before its start, and while it was preempted. With --machines, requests for GPUs arrive in --draws orders, and the
    share of all GPUs given away is told.
    """
    from jarvis.sim.traces.history import span_of

    span = None if trace.exists() else span_of(str(trace))
    if picture is not None and picture.suffix not in (".svg", ".html"):
        raise click.UsageError("--picture takes a file that ends in .svg or .html.")
    _refuse_idle(span is not None, machines is not None, draws > 0)
    if machines is not None:
        _fill(trace, machines, policy, arrive, range(seed, seed + max(draws, 1)), output)
        return
    from jarvis.sim.traces.cost import HOUR_S, prices_from
    from jarvis.sim.traces.replay import Workers
    from jarvis.sim.traces.report import Terms, shares
    from jarvis.sim.traces.run import Question, answer, nodes_from, policy_from

    given_nodes = tuple(nodes_from(given) for given in nodes)
    workers, terms = Workers(restart, not lose), Terms(starved * HOUR_S, prices_from(price))
    asked = policy_from(policy)
    workload = trace if span is None else _ran_here(str(trace), span, save)
    question = Question(workload, asked, given_nodes, kind, start, count, draws, seed, single, workers, terms)
    found = answer(question, _tell if sys.stderr.isatty() else lambda done, total: None)
    if picture is not None:
        _draw(found.history, picture, f"{trace.name}, policy {policy}")
    had = shares(found.history) if projects else None
    if output in ("json", "yaml"):
        print_data(_data(found, had), output)
    else:
        _print(found, had, terms)


def _refuse_idle(ran_here: bool, fills: bool, draws: bool) -> None:
    """Options that would change nothing."""
    if fills:
        refuse(said(but=OF_FILLING), "without effect beside --machines, which fills nodes and runs nothing")
        return
    refuse(said(of=("arrive",)), "goes with --machines")
    if ran_here:
        refuse(said(of=("kind",)), "for files, not for what ran here")
    else:
        refuse(said(of=("save",)), "goes with --trace last-week and the like")
    if draws:
        refuse(said(of=("start",)), "without effect beside --draws, which begin where --seed says")
    else:
        refuse(said(of=("seed",)), "goes with --draws")


def _data(found: "Answer", had: "list[Share] | None") -> dict[str, Any]:
    data = {"mean": found.mean.as_dict(), "each": [one.as_dict() for one in found.each], "dropped": found.dropped}
    data |= {"foresight": None if found.foresight is None else found.foresight.as_dict()}
    return data | ({} if had is None else {"projects": [one.as_dict() for one in had]})


def _print(found: "Answer", had: "list[Share] | None", terms: "Terms") -> None:
    mean = found.mean
    rows = [
        ("bounded slowdown", f"{mean.slowdown:.2f}", f"{mean.slowdown_p99:,.0f}", f"{mean.slowdown_longest:,.0f}"),
        ("wait", duration(mean.wait), duration(mean.wait_p99), duration(mean.wait_longest)),
        ("turnaround", *map(duration, (mean.turnaround, mean.turnaround_p99, mean.turnaround_longest))),
    ]
    print_table(("FIGURE", "MEAN", "P99", "LONGEST"), rows)
    click.echo(
        f"{mean.tasks:,} tasks ran, {mean.never:,} never; utilisation {mean.utilisation:.3f}; "
        f"makespan {duration(mean.makespan)}"
        + (f"; mean of {len(found.each)} sequences" if len(found.each) > 1 else "")
    )
    if found.dropped:
        click.echo(f"left out: {found.dropped:,} of the rows, which ask for nothing or ran for no time")
    if mean.preemptions:
        click.echo(f"{mean.preemptions:,} preemptions, of one task at most {mean.preempted_most:,g}")
    if mean.contested:
        click.echo(
            f"fairness between waiting projects {mean.fairness:.3f} (1 at best), over {duration(mean.contested)}"
        )
    if mean.starved:
        click.echo(f"{mean.starved:,} tasks waited for more than {duration(terms.starved_s)}, or for ever")
    unused = (
        f"; cost {mean.cost:,.2f}, {100 * mean.cost_unused:.1f} % of it for what nobody held" if terms.prices else ""
    )
    click.echo(f"{mean.node_hours:,.1f} node-hours{unused}")
    if had is not None:
        _print_shares(had)
    seen = found.foresight
    if seen is not None:
        click.echo(
            f"predicted at submission, of the later half: {100 * seen.covered:.1f} % of ends within their interval, which is "
            f"{duration(seen.width)} wide in the median; off by a factor of {seen.factor:.2f}, limits by {seen.factor_limit:.2f}"
        )


def _ran_here(word: str, seconds: int, save: "Path | None") -> "Workload":
    """What the cluster has run of what was submitted in so many seconds, which ``word`` says, told by its server."""
    from jarvis.core.errors import InvalidValue
    from jarvis.core.resources import parse_resources
    from jarvis.sdk.client import Client
    from jarvis.sim.traces.history import equal_nodes, lines, workload_of

    rows: list[dict[str, Any]] = []
    with Client() as client:
        nodes = equal_nodes(parse_resources(one["resources"]) for one in client.connection.get("/nodes")["items"])
        begin = time.time() - seconds
        cursor: str | None = ""
        while cursor is not None:
            page = client.connection.get("/history", submitted_after=f"{begin:.3f}", cursor=cursor)
            rows, cursor = rows + page["items"], page["next"]
    workload = workload_of(rows, nodes)
    if not workload.items:
        raise InvalidValue("trace", word, "a span in which a task was submitted here that has run to its end")
    if save is not None:
        _write("save", save, "".join(lines(rows, nodes)))
    return workload


def _draw(history: "History", picture: Path, title: str) -> None:
    from jarvis.sim.traces.picture import html, svg

    _write("picture", picture, (svg if picture.suffix == ".svg" else html)(history, title))


def _write(field: str, path: Path, text: str) -> None:
    from jarvis.core.errors import InvalidValue

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidValue(field, str(path), f"a file that can be written ({error.strerror})") from None


def _print_shares(found: "list[Share]") -> None:
    rows = [
        (
            one.project, f"{one.tasks:,}", f"{100 * one.share:.1f} %", f"{one.slowdown:.2f}", duration(one.wait),
            duration(one.wait_p99), duration(one.wait_longest), duration(one.turnaround),
        )
        for one in found
    ]  # fmt: skip
    columns = ("PROJECT", "TASKS", "OF ALL WORK", "SLOWDOWN", "WAIT", "WAIT P99", "LONGEST", "TURNAROUND")
    print_table(columns, rows)


def _fill(trace: Path, machines: Path, policy: str, arrive: float, seeds: range, output: str) -> None:
    from jarvis.config.policies import policy_of
    from jarvis.sim.traces.filling import fill
    from jarvis.sim.traces.run import policy_from

    found = fill(trace, machines, policy_of(policy_from(policy)), arrive, seeds)
    mean = {name: sum(getattr(one, name) for one in found) / len(found) for name in found[0].as_dict()}
    if output in ("json", "yaml"):
        print_data({"mean": mean, "each": [one.as_dict() for one in found]}, output)
        return
    orders = f"{len(found)} order{'s' if len(found) > 1 else ''}"
    click.echo(
        f"{mean['allocated']:.2f} % of all GPUs given away when {100 * arrive:.0f} % were asked for, "
        f"{mean['allocated_at_100']:.2f} % at 100 %; {mean['left']:.0f} left; mean of {orders} of arrival"
    )


def _tell(done: int, total: int) -> None:
    click.echo(f"\r{done + 1} of {total}", nl=done + 1 == total, err=True)
