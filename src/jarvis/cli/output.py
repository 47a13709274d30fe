"""How things are printed: tables for people, json and yaml for programs; nothing from outside can move the cursor."""

import datetime as dt
import json
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import click

FORMATS = ("table", "wide", "json", "yaml", "name")


def format_option(command: Any) -> Any:
    return click.option(
        "-o", "--output", "output", type=click.Choice(FORMATS), default="table", envvar="JARVIS_OUTPUT_FORMAT",
        help="How to print it.",
    )(command)  # fmt: skip


def clean(value: object) -> str:
    """Text without control characters, so that a name cannot paint over a table."""
    text = "" if value is None else str(value)
    return "".join(c if unicodedata.category(c)[0] != "C" else "�" for c in text)


def print_data(data: Any, output: str) -> None:
    """json or yaml of exactly what the server said."""
    if output == "yaml":
        import yaml

        click.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=True).rstrip())
    else:
        click.echo(json.dumps(data, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], header: bool = True) -> None:
    """Left-aligned columns, as wide as they need to be."""
    cells = [[clean(value) for value in row] for row in rows]
    lines = [list(columns), *cells] if header else cells
    widths = [max((len(line[i]) for line in lines), default=0) for i in range(len(columns))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def local_time(text: str | None) -> str:
    """An instant in local time with its offset."""
    if not text:
        return ""
    instant = dt.datetime.fromisoformat(text)
    return instant.astimezone().strftime("%Y-%m-%dT%H:%M:%S%z")


def duration(seconds: float | None) -> str:
    """``1-02:03:04``, ``02:03:04`` or ``3.2s``."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return (f"{days}-" if days else "") + f"{hours:02}:{minutes:02}:{rest:02}"
