"""workflow: validate, run, list, show and act on workflows."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from jarvis.cli.output import clean, duration, format_option, local_time, print_data, print_table
from jarvis.sdk.client import TERMINAL, Client
from jarvis.sdk.connection import Connection


@click.group()
def workflow() -> None:
    """Run steps that depend on one another."""


_file = click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
_params = click.option("-P", "--param", "params", multiple=True, metavar="NAME=VALUE", help="Value of a parameter.")


def document_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{file}: not UTF-8: {error.reason} at byte {error.start}") from None


def values_of(given: tuple[str, ...]) -> dict[str, Any]:
    """``n=3`` is a number and ``n=[1, 2]`` a list, as in JSON; what is no JSON is a text."""
    out: dict[str, Any] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise click.UsageError(f"--param {item!r}: give NAME=VALUE")
        try:
            out[name] = json.loads(value)
        except ValueError:
            out[name] = value
    return out


def checked(file: Path, text: str, params: dict[str, Any]) -> dict[str, Any]:
    """What a document means; without a server. Exits with every mistake named when it means nothing."""
    import time

    from jarvis.api.workflow_documents import InvalidDocument, Rules, checked_draft, given_of, refuse
    from jarvis.dag.building import build
    from jarvis.dag.resolver import levels

    try:
        given = given_of(json.dumps({"document": text, "params": params}).encode(), "application/json")
        draft = checked_draft(given)
        spec, problems = build(draft, given.params, Rules(time.time()))
        refuse(given, problems)
    except InvalidDocument as error:
        for path, line, message in error.problems:
            where = f"{file}:{line}" if line is not None else str(file)
            click.echo(f"{where}: {clean(message)}" + (f" ({clean(path)})" if path else ""), err=True)
        count = len(error.problems)
        raise click.ClickException(f"{file} has {count} mistake{'s' if count > 1 else ''}") from None
    assert spec is not None
    return {"name": spec.name, "steps": draft.steps, "levels": levels(spec.block.steps), "spec": spec}


@workflow.command()
@_file
@_params
@format_option
def validate(file: Path, params: tuple[str, ...], output: str) -> None:
    """Check a FILE without running anything; every mistake is told with its line. Needs no server."""
    found = checked(file, document_of(file), values_of(params))
    if output in ("json", "yaml"):
        print_data({key: found[key] for key in ("name", "steps", "levels")}, output)
    else:
        click.echo(f"{file} is valid: {found['steps']} steps in {len(found['levels'])} levels")


@workflow.command()
@_file
@_params
@format_option
def plan(file: Path, params: tuple[str, ...], output: str) -> None:
    """Show the order in which the steps of a FILE may run: those of a line wait for the lines above alone."""
    found = checked(file, document_of(file), values_of(params))
    if output in ("json", "yaml"):
        print_data({"name": found["name"], "levels": found["levels"]}, output)
        return
    for at, level in enumerate(found["levels"], 1):
        shown = level if len(level) <= 20 else [*level[:20], f"… {len(level) - 20} more"]
        click.echo(f"{at:>4}  {'  '.join(shown)}")


@workflow.command()
@_file
@_params
@click.option("--detach", is_flag=True, help="Print the id and do not wait.")
@click.option("-q", "--quiet", is_flag=True, help="Print the id alone, and wait without a picture.")
@click.option("--no-cache", is_flag=True, help="Run steps with a cache, whatever is kept of earlier ones.")
@click.option("--idempotency-key", help="The same key and document give the same workflow.")
def run(
    file: Path, params: tuple[str, ...], detach: bool, quiet: bool, no_cache: bool, idempotency_key: str | None
) -> int:
    """Submit a FILE and watch it to its end; exit code 0 when it succeeded."""
    from jarvis.cli.workflow_tree import watch

    with Client() as client:
        ident = submit_document(client.connection, document_of(file), values_of(params), idempotency_key, not no_cache)
        click.echo(ident if quiet else f"Submitted workflow {ident}")
        if detach:
            return 0
        return watch(client, ident, quiet)


def submit_document(
    connection: Connection, text: str, params: dict[str, Any], key: str | None = None, reuse: bool = True
) -> int:
    body = {"document": text, "params": params} | ({} if reuse else {"reuse": False})
    answer = connection.request("POST", "/workflows", json_body=body, idempotent=True, idempotency_key=key)
    return int(answer.json()["id"])


@workflow.command()
@click.argument("what", metavar="FILE|ID")
@_params
@click.option(
    "-o", "--output", "form", type=click.Choice(["mermaid", "svg", "png", "gantt"]), default="mermaid",
    show_default=True, help="How to draw it; gantt shows the time of a workflow that runs or ran; png needs an extra.",
)  # fmt: skip
def graph(what: str, params: tuple[str, ...], form: str) -> None:
    """Draw a FILE, or the workflow with this ID, on standard output."""
    if form == "png":
        if sys.stdout.isatty():
            raise click.UsageError("a PNG is nothing for a terminal: write it to a file, as in -o png > graph.png")
        from jarvis.cli.picture import png

        sys.stdout.buffer.write(png(picture_of(what, params, "svg")))
    else:
        click.echo(picture_of(what, params, form), nl=False)


def picture_of(what: str, params: tuple[str, ...], form: str) -> str:
    if what.isdigit():
        with Client() as client:
            return client.connection.request("GET", f"/workflows/{what}/graph", params={"format": form}).text
    from jarvis.dag import drawing

    file = Path(what)
    if not file.is_file():
        raise click.UsageError(f"there is no file {file}, and it is no id")
    if form == "gantt":
        raise click.UsageError("a file has no time; give the id of a workflow")
    block = checked(file, document_of(file), values_of(params))["spec"].block
    return drawing.mermaid(block, {}) if form == "mermaid" else drawing.svg(block, {})


@workflow.command("ls")
@click.option("--all", "everything", is_flag=True, help="Ended ones, too.")
@click.option("-s", "--state", "states", multiple=True, help="Only in this state.")
@click.option("-n", "--name", help="Only of this name; * at the end is a wildcard.")
@click.option("-u", "--user", help="Only of this user; me is you.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="At most so many.")
@format_option
def list_workflows(
    everything: bool, states: tuple[str, ...], name: str | None, user: str | None, limit: int, output: str
) -> None:
    """List workflows, newest first."""
    state = ",".join(states) or (None if everything else "active")
    with Client() as client:
        found = client.connection.get("/workflows", state=state, name=name, user=user, limit=limit)["items"]
    if output in ("json", "yaml"):
        print_data(found, output)
    elif output == "name":
        for one in found:
            click.echo(one["id"])
    else:
        rows = [
            (one["id"], one["name"], one["user"], one["state"], local_time(one["submitted_at"]), one["reason"])
            for one in found
        ]
        print_table(("ID", "NAME", "USER", "STATE", "SUBMITTED", "REASON"), rows)


@workflow.command()
@click.argument("ident", metavar="ID")
@format_option
def show(ident: str, output: str) -> None:
    """Show a workflow with its steps."""
    from jarvis.cli.workflow_tree import tree_lines

    with Client() as client:
        one = client.connection.get(f"/workflows/{ident}")
        graph = client.connection.get(f"/workflows/{ident}/graph")
    if output in ("json", "yaml"):
        print_data(one | {"graph": graph["steps"]}, output)
        return
    for key in ("id", "name", "description", "state", "reason", "user", "project", "rerun_of", "params", "output"):
        if one.get(key) not in (None, "", {}, []):
            click.echo(f"{key:>14}  {clean(one[key])}")
    for key in ("submitted_at", "started_at", "ended_at"):
        if one.get(key):
            click.echo(f"{key:>14}  {local_time(one[key])}")
    click.echo()
    for line in tree_lines(graph["steps"]):
        click.echo(line)
    chain = [f"{clean(link['path'])} {duration(link['took_s'])}" for link in graph["critical_path"]]
    if len(chain) > 1:
        click.echo("\nLongest chain: " + " → ".join(chain[:20]))


@workflow.command()
@click.argument("ident", metavar="ID")
@click.option("--failed", is_flag=True, help="Only those that failed.")
@format_option
def steps(ident: str, failed: bool, output: str) -> None:
    """List the steps of a workflow, elements of fan-outs and iterations of loops among them."""
    found: list[dict[str, Any]] = []
    cursor: str | None = ""
    with Client() as client:
        while cursor is not None:
            page = client.connection.get(f"/workflows/{ident}/steps", cursor=cursor, limit=1000)
            found += page["items"]
            cursor = page["next"]
    if failed:
        found = [one for one in found if one["state"] in TERMINAL - {"succeeded", "skipped"}]
    if output in ("json", "yaml"):
        print_data(found, output)
    else:
        rows = [(s["path"], s["state"], s["task"], duration(_took(s)), s["reused"], s["reason"]) for s in found]
        print_table(("STEP", "STATE", "TASK", "TOOK", "REUSED FROM", "REASON"), rows)


def _took(step: dict[str, Any]) -> float | None:
    import datetime as dt

    if not step["started_at"] or not step["ended_at"]:
        return None
    begin, end = (dt.datetime.fromisoformat(step[key]) for key in ("started_at", "ended_at"))
    return (end - begin).total_seconds()


def _act(ident: str, verb: str, body: dict[str, Any] | None = None) -> None:
    with Client() as client:
        client.connection.post(f"/workflows/{ident}/{verb}", body)


@workflow.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
def cancel(ids: tuple[str, ...]) -> None:
    """End workflows: what runs is stopped, 'finally' still runs. Said again, that is stopped, too."""
    for ident in ids:
        _act(ident, "cancel")


@workflow.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
def pause(ids: tuple[str, ...]) -> None:
    """Begin no more tasks; what runs goes on."""
    for ident in ids:
        _act(ident, "pause")


@workflow.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
def resume(ids: tuple[str, ...]) -> None:
    """Let paused workflows go on."""
    for ident in ids:
        _act(ident, "resume")


@workflow.command()
@click.argument("ident", metavar="ID")
@click.option("--from", "again", multiple=True, metavar="STEP", help="Run this step and all behind it again, too.")
@click.option("--detach", is_flag=True, help="Print the id and do not wait.")
@click.option("-q", "--quiet", is_flag=True, help="Print the id alone, and wait without a picture.")
def retry(ident: str, again: tuple[str, ...], detach: bool, quiet: bool) -> int:
    """Run an ended workflow again as a new one, which takes over what went well."""
    from jarvis.cli.workflow_tree import watch

    with Client() as client:
        body = {"again": list(again)}
        new = int(client.connection.post(f"/workflows/{ident}/retry", body, idempotent=True)["id"])
        click.echo(new if quiet else f"Submitted workflow {new}")
        return 0 if detach else watch(client, new, quiet)


@workflow.command()
@click.argument("ident", metavar="ID")
@click.argument("step")
def approve(ident: str, step: str) -> None:
    """Let a STEP that waits for an approval go on."""
    _act(ident, "decide", {"step": step, "approve": True})


@workflow.command()
@click.argument("ident", metavar="ID")
@click.argument("step")
def reject(ident: str, step: str) -> None:
    """Let a STEP that waits for an approval fail."""
    _act(ident, "decide", {"step": step, "approve": False})
