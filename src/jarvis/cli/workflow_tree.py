"""The picture of a workflow on a terminal: a tree of its steps with their states, live while it runs."""

import datetime as dt
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import click

from jarvis.cli.output import clean, duration
from jarvis.sdk.client import TERMINAL, Client

MARKS = {
    "succeeded": "✓", "failed": "✗", "timeout": "✗", "lost": "✗", "upstream_failed": "✗", "cancelled": "-",
    "skipped": "-", "running": "▶", "held": "?", "waiting": "·",
}  # fmt: skip
COLOURS = {"✓": "green", "✗": "red", "▶": "cyan", "?": "yellow"}
LINES_MOST = 40
"""A tree that is longer shows what runs and what went wrong."""
LOOK_S = 0.5


def tree_lines(steps: list[dict[str, Any]], indent: int = 0, most: int | None = None) -> list[str]:
    """One line for each step; with ``most``, what is waiting or went well gives way first."""
    found = list(_lines(steps, indent))
    if most is None or len(found) <= most:
        return [line for _, line in found]
    shown = [(state, line) for state, line in found if state not in ("succeeded", "waiting", "skipped")][:most]
    hidden = Counter(state for state, _ in found)
    hidden.subtract(Counter(state for state, _ in shown))
    rest = ", ".join(f"{count} {state}" for state, count in sorted(hidden.items()) if count)
    return [line for _, line in shown] + ([f"  … and {rest}"] if rest else [])


def _lines(steps: list[dict[str, Any]], indent: int) -> Iterator[tuple[str, str]]:
    for step in steps:
        mark = MARKS.get(step["state"], "·")
        name = step["id"] + (" *" if step["for_each"] or step["loop"] else "")
        after = ", ".join(
            edge["step"] + ("" if edge["on"] == "success" else f" ({edge['on']})") for edge in step["depends_on"]
        )
        told = [step["state"], duration(_seconds(step)), f"task {step['task']}" if step["task"] else ""]
        told += [f"reused from workflow {step['reused']}" if step.get("reused") else ""]
        told += [f"after {after}" if after else "", step["reason"]]
        words = "  ".join(part for part in told if part)
        line = f"{'  ' * indent}{click.style(mark, fg=COLOURS.get(mark))} {clean(name):<{max(24 - 2 * indent, 8)}}  {clean(words)}"
        yield step["state"], line
        yield from _lines(step["steps"], indent + 1)


def _seconds(step: dict[str, Any]) -> float | None:
    if not step["started_at"]:
        return None
    begin = dt.datetime.fromisoformat(step["started_at"])
    end = dt.datetime.fromisoformat(step["ended_at"]) if step["ended_at"] else dt.datetime.now(dt.UTC)
    return max((end - begin).total_seconds(), 0.0)


def watch(client: Client, ident: int, quiet: bool = False) -> int:
    """Until it has ended; 0 when it succeeded. Live on a terminal, else one line at the end."""
    if quiet or not sys.stderr.isatty():
        one = _wait(client, ident, 20.0)
        while one["state"] not in TERMINAL:
            one = _wait(client, ident, 20.0)
    else:
        one = _live(client, ident)
    click.echo(f"Workflow {ident} {one['state']}" + (f": {clean(one['reason'])}" if one["reason"] else ""), err=True)
    return 0 if one["state"] == "succeeded" else 1


def _wait(client: Client, ident: int, seconds: float) -> dict[str, Any]:
    return dict(client.connection.get(f"/workflows/{ident}", wait=f"{seconds}s", timeout=seconds + 30))


def _live(client: Client, ident: int) -> dict[str, Any]:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(stderr=True), auto_refresh=False) as live:
        while True:
            one = _wait(client, ident, LOOK_S)
            graph = client.connection.get(f"/workflows/{ident}/graph")["steps"]
            lines = [*tree_lines(graph, most=LINES_MOST), _bar(graph)]
            live.update(Text.from_ansi("\n".join(lines)), refresh=True)
            if one["state"] in TERMINAL:
                return one


def _bar(steps: list[dict[str, Any]], width: int = 30) -> str:
    """How many of the outermost steps are over."""
    over = sum(step["state"] in TERMINAL for step in steps)
    filled = width * over // max(len(steps), 1)
    return f"[{'█' * filled}{'░' * (width - filled)}] {over}/{len(steps)} steps"
