"""PURE: pictures of a workflow: its graph as Mermaid or SVG, its time as a chart, and the chain that it took its time from."""

from collections.abc import Mapping
from dataclasses import dataclass
from xml.sax.saxutils import escape

from jarvis.core.states import State
from jarvis.core.workflow import PHASES, Block, Step, StepSpec
from jarvis.dag.resolver import levels
from jarvis.utils.svg import page

MAX_DRAWN = 500
"""Steps; a picture of more is not looked at."""
COLOURS = {
    State.SUCCEEDED: "#d3f2d6", State.FAILED: "#f8c9c4", State.TIMEOUT: "#f8c9c4", State.LOST: "#f8c9c4",
    State.UPSTREAM_FAILED: "#fbe3c8", State.RUNNING: "#cfe4fb", State.HELD: "#fdf3b4", State.SKIPPED: "#ececec",
    State.CANCELLED: "#ececec",
}  # fmt: skip
_WIDTH, _HEIGHT, _ACROSS, _DOWN = 170, 34, 230, 54
_ROW, _LABELS, _CHART = 22, 220, 760
_ARROW = (
    '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0,0 L8,4 L0,8 z" fill="#777"/></marker></defs>'
)
_DASH = {"success": "", "failure": ' stroke-dasharray="6 3"', "any": ' stroke-dasharray="2 3"'}


@dataclass(frozen=True, slots=True)
class Link:
    """One step of the critical path: how long it waited after the one before it had ended, and how long it took."""

    path: str
    waited: float
    took: float


def drawn(block: Block, prefix: str = "") -> list[tuple[str, StepSpec, int]]:
    """(path, step, depth) of every declared step that is drawn."""
    out: list[tuple[str, StepSpec, int]] = []
    for phase in PHASES:
        for step in block.phase(phase):
            out.append((prefix + step.id, step, prefix.count("/")))
            for label, inner in step.blocks:
                out += drawn(inner, f"{prefix}{step.id}/{label}")
            if len(out) > MAX_DRAWN:
                return out[:MAX_DRAWN]
    return out


def _title(step: StepSpec, row: Step | None = None) -> str:
    many = " *" if step.for_each is not None or step.loop is not None else ""
    return f"{step.id}{many}" + (" (reused)" if row is not None and row.detail.reused is not None else "")


# ---------------------------------------------------------------- mermaid


def mermaid(block: Block, rows: Mapping[str, Step]) -> str:
    """A flowchart in Mermaid's language; blocks within steps are subgraphs."""
    lines = ["flowchart LR"]
    _mermaid_block(block, "", rows, lines)
    for state, colour in COLOURS.items():
        lines.append(f"    classDef {state} fill:{colour}")
    return "\n".join(lines) + "\n"


def _mermaid_block(block: Block, prefix: str, rows: Mapping[str, Step], lines: list[str]) -> None:
    for phase in PHASES:
        for step in block.phase(phase):
            if len(lines) > 4 * MAX_DRAWN:
                return
            path = prefix + step.id
            name, row = _name(path), rows.get(path)
            inner = list(step.blocks)
            if inner:
                lines.append(f'    subgraph {name}["{_title(step)}"]')
                for label, part in inner:
                    _mermaid_block(part, f"{path}/{label}", rows, lines)
                lines.append("    end")
            else:
                lines.append(f'    {name}["{_title(step, row)}"]' + (f":::{row.state}" if row is not None else ""))
            for edge in step.depends_on:
                arrow = "-->" if edge.on == "success" else f"-. {edge.on} .->"
                lines.append(f"    {_name(prefix + edge.step)} {arrow} {name}")


def _name(path: str) -> str:
    """A word that Mermaid takes, another one for each path."""
    return "".join(c if c.isalnum() else f"_{ord(c):x}_" for c in path)


# ---------------------------------------------------------------- svg


def svg(block: Block, rows: Mapping[str, Step]) -> str:
    """The outermost steps from left to right, each under the level that it runs in; handlers stand at the right."""
    columns = [list(level) for phase in PHASES for level in levels(block.phase(phase))]
    steps = {step.id: step for phase in PHASES for step in block.phase(phase)}
    place: dict[str, tuple[int, int]] = {}
    for x, column in enumerate(columns):
        for y, ident in enumerate(column):
            if len(place) < MAX_DRAWN:
                place[ident] = (20 + x * _ACROSS, 20 + y * _DOWN)
    body = [_edge(place[e.step], place[i], e.on) for i in place for e in steps[i].depends_on if e.step in place]
    body += [_box(place[ident], steps[ident], rows.get(ident)) for ident in place]
    width = max((x for x, _ in place.values()), default=0) + _WIDTH + 20
    height = max((y for _, y in place.values()), default=0) + _HEIGHT + 20
    left_out = len(steps) - len(place)
    if left_out:
        body.append(f'<text x="20" y="{height + 10}">… and {left_out} more steps</text>')
    return page(width, height + (30 if left_out else 0), [_ARROW, *body])


def _edge(begin: tuple[int, int], end: tuple[int, int], on: str) -> str:
    x1, y1, x2, y2 = begin[0] + _WIDTH, begin[1] + _HEIGHT // 2, end[0], end[1] + _HEIGHT // 2
    middle = (x1 + x2) // 2
    curve = f"M{x1},{y1} C{middle},{y1} {middle},{y2} {x2},{y2}"
    return f'<path d="{curve}" fill="none" stroke="#777"{_DASH[on]} marker-end="url(#arrow)"/>'


def _box(at: tuple[int, int], step: StepSpec, row: Step | None) -> str:
    colour = "#ffffff" if row is None else COLOURS.get(row.state, "#ffffff")
    title = _title(step, row) if len(step.id) <= 20 else step.id[:19] + "…"
    state = "waiting" if row is None else str(row.state)
    return (
        f'<g><title>{escape(step.id)}: {state}</title><rect x="{at[0]}" y="{at[1]}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'rx="6" fill="{colour}" stroke="#555"/><text x="{at[0] + 10}" y="{at[1] + 22}">{escape(title)}</text></g>'
    )


# ---------------------------------------------------------------- time


def critical_path(block: Block, rows: Mapping[str, Step], begun: float) -> list[Link]:
    """From the outermost step that ended last back to the beginning, always by the one before it that ended last."""
    steps = {step.id: step for phase in PHASES for step in block.phase(phase)}
    ended = {
        i: row
        for i in steps
        if (row := rows.get(i)) is not None and row.ended_at is not None and row.started_at is not None
    }
    if not ended:
        return []
    at: str | None = max(ended, key=lambda ident: ended[ident].ended_at or 0.0)
    chain: list[Link] = []
    while at is not None:
        row = ended[at]
        before = [edge.step for edge in steps[at].depends_on if edge.step in ended]
        last = max(before, key=lambda ident: ended[ident].ended_at or 0.0, default=None)
        free = begun if last is None else ended[last].ended_at or begun
        chain.append(
            Link(at, max((row.started_at or free) - free, 0.0), (row.ended_at or 0.0) - (row.started_at or 0.0))
        )
        at = last
    return chain[::-1]


def gantt(rows: Mapping[str, Step], begun: float, now: float) -> str:
    """One bar for each step that has begun, elements and iterations included, in the order in which they did."""
    bars = sorted((r for r in rows.values() if r.started_at is not None), key=lambda r: (r.started_at or 0.0, r.path))
    shown = bars[:MAX_DRAWN]
    end = max([row.ended_at or now for row in shown], default=now)
    scale = _CHART / max(end - begun, 0.001)
    body = []
    for at, row in enumerate(shown):
        left = _LABELS + ((row.started_at or begun) - begun) * scale
        width = max(((row.ended_at or now) - (row.started_at or begun)) * scale, 1.0)
        y = 10 + at * _ROW
        colour = COLOURS.get(row.state, "#ffffff")
        seconds = (row.ended_at or now) - (row.started_at or begun)
        label = row.path if len(row.path) <= 30 else "…" + row.path[-29:]
        body.append(
            f'<text x="10" y="{y + 14}">{escape(label)}</text><rect x="{left:.1f}" y="{y}" width="{width:.1f}" height="{_ROW - 4}" '
            f'fill="{colour}" stroke="#555"><title>{escape(row.path)}: {row.state}, {seconds:.3f} s</title></rect>'
        )
    return page(_LABELS + _CHART + 20, 20 + len(shown) * _ROW, body)
