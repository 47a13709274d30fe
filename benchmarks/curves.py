"""How what Jarvis costs grows with what it has to do: curves, the exponent of each, and a picture of them.

``make bench-curves`` (``ARGS="--most 10000"`` for small ones; ``--write`` puts table and picture into the documentation). The
scheduler's curves are of the real engine with no store below it, by the processor's clock, each point a process of its own;
arrays and workflows go through a real cluster, durable, by the clock on the wall. What is told is the cost of one, which grows
as count^e, with e fitted by least squares to the logarithms of all points: 0 is as much for the last as for the first.
"""

import argparse
import math
import multiprocessing
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from xml.sax.saxutils import escape

from benchmarks.growth import exponent, held, nodes, own
from benchmarks.placements import cluster_of, measure, tasks_of
from benchmarks.run import PAGE, write

import jarvis
from jarvis.core.inputs import TasksTaken
from jarvis.scheduler.reactor import handle
from jarvis.scheduler.turn import Turn
from jarvis.sdk.client import Client
from jarvis.utils.collector import look_seldom
from jarvis.utils.svg import page

NODES, QUEUED, CLASSES, PROJECTS, PLACEMENTS, AT_ONCE = 1000, 100_000, 100, 50, 8000, 2000
LEAST = 10_000
"""Of ``--most``: every curve has two points then."""
STEPS_MOST = 9_998
"""Between the first and the last step; a workflow has at most 10,000."""
PATIENCE_S, ARRAYS = 600.0, 9
PICTURE = PAGE.with_name("growth.svg")
ACROSS, DOWN, LEFT, TOP, GAP = 300, 140, 70, 40, 80


def taken_in(count: int) -> float:
    """Microseconds to take in one more, with so many queued."""
    cluster = cluster_of(NODES)
    for first in range(1, count + 1, AT_ONCE):
        some = tasks_of(min(AT_ONCE, count + 1 - first), CLASSES, PROJECTS, first)
        handle(Turn(cluster, 1.0, "bench"), TasksTaken("bench", some))
    more = tasks_of(AT_ONCE, CLASSES, PROJECTS, count + 1)
    begin = time.process_time()
    handle(Turn(cluster, 2.0, "bench"), TasksTaken("bench", more))
    return 1e6 * (time.process_time() - begin) / AT_ONCE


def placed_of_tasks(count: int) -> float:
    """Microseconds to place one of so many that are queued."""
    return 1e6 / measure(NODES, count, CLASSES, PROJECTS, PLACEMENTS)[1]


def placed_on_nodes(count: int) -> float:
    """Microseconds to place one on so many nodes."""
    return 1e6 / measure(count, QUEUED, CLASSES, PROJECTS, PLACEMENTS)[1]


def bytes_of_task(count: int) -> float:
    return held(own, count) / count


def bytes_of_node(count: int) -> float:
    return held(nodes, count) / count


def array_submitted(client: Client, count: int) -> float:
    """Milliseconds until it is durable, all of it; the median of some."""
    seconds = []
    for _ in range(ARRAYS):
        begin = time.perf_counter()
        client.submit(command=["true"], array=f"0-{count - 1}", hold=True)
        seconds.append(time.perf_counter() - begin)
    return 1e3 * median(seconds)


def step_done(client: Client, count: int) -> float:
    """Milliseconds a step of a workflow as wide, from its submission to its end."""
    steps = [{"id": f"s{at}", "sleep": 0, "depends_on": ["first"]} for at in range(count)]
    last = {"id": "last", "sleep": 0, "depends_on": [step["id"] for step in steps]}
    begin = time.perf_counter()
    found = client.submit_workflow({"name": "wide", "steps": [{"id": "first", "sleep": 0}, *steps, last]}).wait(
        PATIENCE_S
    )
    if found["state"] != "succeeded":
        raise RuntimeError(f"the workflow ended {found['state']}: {found['reason']}")
    return 1e3 * (time.perf_counter() - begin) / (count + 2)


@dataclass(frozen=True, slots=True)
class Curve:
    """``points``: count and cost."""

    what: str
    unit: str
    across: str
    points: list[tuple[int, float]]

    @property
    def exponent(self) -> float:
        return exponent(self.points)

    def row(self) -> str:
        told = ", ".join(f"{count:,}: {value:,.{0 if value >= 100 else 2}f}" for count, value in self.points)
        return f"| {self.what} | {self.across} | {told} {self.unit} | {self.exponent:+.2f} |"


ENGINE: tuple[tuple[str, str, str, Callable[[int], float], int, int], ...] = (
    ("taking in one more task", "µs", "tasks queued", taken_in, 1000, 1_000_000),
    ("placing one, on 1,000 nodes", "µs", "tasks queued", placed_of_tasks, 1000, 1_000_000),
    ("placing one of 100,000", "µs", "nodes", placed_on_nodes, 10, 10_000),
    ("memory of a task with a spec of its own", "bytes", "tasks queued", bytes_of_task, 1000, 1_000_000),
    ("memory of a node", "bytes", "nodes", bytes_of_node, 100, 10_000),
)
"""What, unit, what it grows with, how it is measured, and the smallest and largest count."""


def counts(first: int, last: int, most: int) -> list[int]:
    """Powers of ten, and the last one whatever it is."""
    steps = [first * 10**step for step in range(8) if first * 10**step < last]
    return [count for count in [*steps, last] if count <= most]


def alone(measured: Callable[[int], float], count: int) -> float:
    with multiprocessing.get_context("spawn").Pool(1, look_seldom) as process:
        return process.apply(measured, (count,))


def measured(most: int) -> list[Curve]:
    found = []
    for what, unit, across, of, first, last in ENGINE:
        found.append(Curve(what, unit, across, [(count, alone(of, count)) for count in counts(first, last, most)]))
        _say(found[-1].row())
    with jarvis.local() as client:
        array_submitted(client, 10)
        step_done(client, 100)
        arrays = [(count, array_submitted(client, count)) for count in counts(100, 1_000_000, most)]
        found.append(Curve("submitting an array, durable", "ms", "elements", arrays))
        _say(found[-1].row())
        wide = [(count, step_done(client, count)) for count in counts(10, STEPS_MOST, most)]
        found.append(Curve("a step of a workflow, submitted to ended", "ms", "steps side by side", wide))
        _say(found[-1].row())
    return found


# ---------------------------------------------------------------- the picture


def picture(curves: list[Curve]) -> str:
    """A chart for each, both axes by powers of ten and as long for each power, so that slopes can be compared."""
    body = []
    for at, curve in enumerate(curves):
        body += _chart(curve, LEFT + at % 2 * (ACROSS + LEFT + 30), TOP + at // 2 * (DOWN + GAP))
    rows = -(-len(curves) // 2)
    return page(2 * (ACROSS + LEFT + 30), TOP + rows * (DOWN + GAP), body)


def _chart(curve: Curve, left: int, top: int) -> list[str]:
    xs, ys = ([math.log10(point[axis]) for point in curve.points] for axis in (0, 1))
    low, decades = math.floor(min(ys)), 3
    tens = ACROSS / max(xs[-1] - xs[0], 1.0)

    def spot(x: float, y: float) -> tuple[float, float]:
        return left + tens * (x - xs[0]), top + DOWN - DOWN / decades * (y - low)

    places = [spot(x, y) for x, y in zip(xs, ys, strict=True)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    marks = [
        f'<text x="{left - 6}" y="{spot(xs[0], low + up)[1] + 4:.1f}" text-anchor="end">{10.0 ** (low + up):,g}</text>'
        f'<path d="M{left},{spot(xs[0], low + up)[1]:.1f} H{left + ACROSS}" stroke="#ddd"/>'
        for up in range(decades + 1)
    ]
    below = [
        f'<text x="{x:.1f}" y="{top + DOWN + 16}" text-anchor="middle">{count:,}</text>'
        for (count, _), (x, _) in zip(curve.points, places, strict=True)
    ]
    return [
        f'<text x="{left}" y="{top - 8}">{escape(curve.what)}, {curve.unit} (e = {curve.exponent:+.2f})</text>',
        *marks,
        *below,
        f'<text x="{left + ACROSS / 2}" y="{top + DOWN + 34}" text-anchor="middle">{curve.across}</text>',
        f'<path d="M{left},{top} V{top + DOWN} H{left + ACROSS}" fill="none" stroke="#777"/>',
        f'<polyline points="{line}" fill="none" stroke="#225" stroke-width="2"/>',
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#225"/>' for x, y in places),
    ]


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=1_000_000, help="the largest count of anything")
    parser.add_argument("--write", action="store_true", help="put table and picture into the documentation")
    options = parser.parse_args()
    if options.most < LEAST:
        parser.error(f"--most {options.most}: at least {LEAST:,}, for two points of each curve")
    curves = measured(options.most)
    if options.write:
        head = ["| cost | grows with | measured | exponent |", "|---|---|---|---|"]
        write("\n".join([*head, *(curve.row() for curve in curves)]), "curves")
        PICTURE.write_text(picture(curves), encoding="utf-8")


if __name__ == "__main__":
    main()
