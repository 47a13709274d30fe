"""artifacts, and what ``--push`` and ``--pull`` do: files that go with a task, and those that come back from it."""

import contextlib
import os
import re
from typing import Any

import click

from jarvis.cli.options import PULL_POLICIES, glob
from jarvis.cli.output import clean, format_option, print_data, print_table
from jarvis.sdk import pushing
from jarvis.sdk.artifacts import elements, fetch, listed
from jarvis.sdk.client import Client
from jarvis.sdk.errors import NoSuchObject


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


def with_files(client: Client, spec: dict[str, Any], where: str, push_limit: str | None) -> dict[str, Any]:
    """A task of a file: what its ``push`` names is pushed (digests stay what they are), and ``pull`` is the word of the
    command line for ``artifacts``, but for the three that an image's engine knows."""
    spec = dict(spec)
    pulls = spec.get("pull")
    if pulls is not None and not (spec.get("image") is not None and pulls in PULL_POLICIES):
        globs = [glob(pull) for pull in _words(spec.pop("pull"), f"{where}: pull")]
        spec["artifacts"] = [*_words(spec.get("artifacts", []), f"{where}: artifacts"), *globs]
    if spec.get("push"):
        words = _words(spec["push"], f"{where}: push")
        digests = [word for word in words if re.fullmatch("[0-9a-f]{64}", word)]
        paths = [word for word in words if word not in digests]
        given = {"pushes": paths, "push_limit": push_limit, "project": spec.get("project")}
        spec["push"] = digests + pushed(client, given).get("push", [])
    return spec


def _words(given: object, where: str) -> list[str]:
    found = [given] if isinstance(given, str) else given
    if not isinstance(found, list) or not all(isinstance(word, str) and word for word in found):
        raise click.UsageError(f"{where}: {given!r} is not a text or a list of texts")
    return found


def _size(text: str) -> int:
    from jarvis.core.errors import InvalidValue
    from jarvis.core.resources import parse_bytes

    try:
        return parse_bytes(text)
    except InvalidValue as error:
        raise click.UsageError(f"--push-limit {text!r}: {error.hint}") from None


def _is_array(client: Client, ident: int | str) -> bool:
    return client.show(ident).get("spec", {}).get("array") is not None


def bring_all_back(client: Client, ident: int, patterns: list[str], apart: bool) -> None:
    """What a task left into this directory, or into one of its own below it, as for each element of an array."""
    if not _is_array(client, ident):
        bring_back(client, ident, patterns, str(ident) if apart else ".")
        return
    for element in elements(client.connection, ident):
        bring_back(client, element, patterns, element)


def bring_back(client: Client, ident: int | str, patterns: list[str], directory: str = ".") -> None:
    """What a task left into a directory; what matched nothing, or could not be kept, is told of."""
    page = listed(client.connection, ident)
    _tell_left_out(page)
    if page["items"]:
        fetch(client.connection, ident, directory, attempt=page["attempt"])
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
    """Bring the files that task ID left into a directory: all of them, or those that match GLOB. Those of an array's elements come
    into a directory each, named like 42_7."""
    with Client() as client:
        if not _is_array(client, ident):
            _get(client, ident, output_dir, patterns, attempt, "")
            return
        for element in elements(client.connection, ident):
            with contextlib.suppress(NoSuchObject):  # another one may have what this one has not
                _get(client, element, os.path.join(output_dir, element), patterns, attempt, f"{element}/")


def _get(
    client: Client, ident: str, directory: str, patterns: tuple[str, ...], attempt: int | None, before: str
) -> None:
    fetch(
        client.connection, ident, directory, patterns, attempt=attempt,
        told=lambda item: click.echo(before + clean(item["path"])),
    )  # fmt: skip
