"""artifacts, and what ``--push`` and ``--pull`` do: files that go with a task, and those that come back from it."""

from typing import Any

import click

from jarvis.cli.output import clean, format_option, print_data, print_table
from jarvis.sdk import pushing
from jarvis.sdk.artifacts import fetch, listed
from jarvis.sdk.client import Client


def pushed(client: Client, given: dict[str, Any]) -> dict[str, Any]:
    """The field ``push`` for a task, whose files are on the server when this returns; nothing without ``--push``."""
    paths = given.get("pushes") or ()
    if not paths:
        if given.get("push_all"):
            raise click.UsageError("--push-all says how --push is meant: give a --push, too")
        return {}
    limit = _size(given["push_limit"]) if given.get("push_limit") else pushing.LIMIT
    digest = client.push(
        *paths, take_all=bool(given.get("push_all")), limit=limit, project=given.get("project"),
        tell=lambda report: click.echo(f"jarvis: push: {report}", err=True),
    )  # fmt: skip
    return {"push": [digest]}


def _size(text: str) -> int:
    from jarvis.core.errors import InvalidValue
    from jarvis.core.resources import parse_bytes

    try:
        return parse_bytes(text)
    except InvalidValue as error:
        raise click.UsageError(f"--push-limit {text!r}: {error.hint}") from None


def bring_back(client: Client, ident: int | str, patterns: list[str]) -> None:
    """What a task left into this directory; what matched nothing, or could not be kept, is told of."""
    page = listed(client.connection, ident)
    _tell_left_out(page)
    if page["items"]:
        fetch(client.connection, ident, attempt=page["attempt"])
        click.echo(f"jarvis: pull: {_summary(page['items'])}", err=True)
    elif page["attempt"] is not None:
        click.echo(f"jarvis: pull: nothing matches {' '.join(map(clean, patterns))}", err=True)


def _tell_left_out(page: dict[str, Any]) -> None:
    for text in page["left_out"]:
        click.echo(f"jarvis: left out: {clean(text)}", err=True)


def _summary(items: list[dict[str, Any]]) -> str:
    return pushing.amount(len(items), sum(item["size"] for item in items))


@click.group()
def artifacts() -> None:
    """Files that tasks left: those that match --pull (field artifacts) when an attempt ends."""


@artifacts.command()
@click.argument("ident", metavar="ID")
@click.option("--attempt", type=click.IntRange(1), help="Of this attempt; default: the newest that left any.")
@format_option
def ls(ident: str, attempt: int | None, output: str) -> None:
    """List the files that task ID left."""
    with Client() as client:
        page = listed(client.connection, ident, attempt)
    if output in ("json", "yaml"):
        print_data(page, output)
        return
    if output == "name":
        for item in page["items"]:
            click.echo(clean(item["path"]))
        return
    rows = [(item["path"], item["size"], item["digest"][: None if output == "wide" else 12]) for item in page["items"]]
    print_table(("PATH", "SIZE", "SHA256"), rows)
    _tell_left_out(page)


@artifacts.command()
@click.argument("ident", metavar="ID")
@click.argument("patterns", nargs=-1, metavar="[GLOB]...")
@click.option(
    "-o", "--output-dir", default=".", type=click.Path(file_okay=False), help="Into this directory; default: here."
)
@click.option("--attempt", type=click.IntRange(1), help="Of this attempt; default: the newest that left any.")
def get(ident: str, patterns: tuple[str, ...], output_dir: str, attempt: int | None) -> None:
    """Bring the files that task ID left into a directory: all of them, or those that match GLOB."""
    with Client() as client:
        fetch(
            client.connection,
            ident,
            output_dir,
            patterns,
            attempt=attempt,
            told=lambda item: click.echo(clean(item["path"])),
        )
