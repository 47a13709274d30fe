"""cron: schedules that make tasks and workflows at nominal times, and when something happens."""

import os
from pathlib import Path
from typing import Any

import click

from jarvis.cli.output import clean, format_option, local_time, print_data, print_table
from jarvis.cli.workflow import document_of, values_of
from jarvis.sdk.client import Client

ENDS = ("succeeded", "failed", "any")
"""Of a workflow, that a schedule may wait for."""


@click.group()
def cron() -> None:
    """Run tasks and workflows at set times, and when something happens."""


@cron.command(context_settings={"allow_interspersed_args": False})
@click.argument("name")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--cron", "rule", metavar="FIELDS", help="Minute, hour, day, month, weekday: '30 6 * * MON-FRI'.")
@click.option("--zone", help="Time zone of --cron, like Europe/Berlin.  [default: UTC]")
@click.option("--every", metavar="SPAN", help="Instead of --cron: 10m, 1h30m.")
@click.option(
    "--on-workflow",
    metavar="NAME[:STATE]",
    help="Instead of --cron: when a workflow of this name has succeeded; or failed, or any.",
)
@click.option(
    "--on-webhook", is_flag=True, help="Instead of --cron: at each signed request; its path and secret are told."
)
@click.option(
    "--on-file",
    metavar="[NODE:]PATH",
    help="Instead of --cron: when a file arrives on the server, or on a node, like 'n1:/in/*.csv'.",
)
@click.option(
    "--secret-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Secret of --on-webhook, instead of one that is made.",
)
@click.option(
    "--workflow", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Instead of a command."
)
@click.option("-P", "--param", "params", multiple=True, metavar="NAME=VALUE", help="Value of the workflow's parameter.")
@click.option("--catch-up", type=click.Choice(["skip", "last", "all"]), help="Of missed runs.  [default: last]")
@click.option(
    "--overlap", type=click.Choice(["allow", "skip"]), default="allow", show_default=True, help="While one still runs."
)
def add(
    name: str, command: tuple[str, ...], rule: str | None, zone: str | None, every: str | None, on_workflow: str | None,
    on_webhook: bool, on_file: str | None, secret_file: Path | None, file: Path | None, params: tuple[str, ...],
    catch_up: str | None, overlap: str,
) -> None:  # fmt: skip
    """Add the schedule NAME: jarvis cron add --cron '0 3 * * *' nightly -- COMMAND, or with --workflow FILE."""
    command = command[1:] if command[:1] == ("--",) else command
    if bool(command) == (file is not None):
        raise click.UsageError("give a command, or --workflow FILE")
    if secret_file is not None and not on_webhook:
        raise click.UsageError("--secret-file goes with --on-webhook")
    secret = None if secret_file is None else {"secret": secret_file.read_text(encoding="utf-8").strip()}
    rules = {
        "cron": rule, "every": every, "on_workflow": None if on_workflow is None else _end(on_workflow),
        "on_webhook": (secret or {}) if on_webhook else None, "on_file": None if on_file is None else _place(on_file),
    }  # fmt: skip
    if len(rules) - list(rules.values()).count(None) != 1:
        raise click.UsageError("give one of --cron, --every, --on-workflow, --on-webhook, --on-file")
    body: dict[str, Any] = {"name": name, "zone": zone, "catch_up": catch_up, "overlap": overlap, **rules}
    body = {key: value for key, value in body.items() if value is not None}
    if file is not None:
        body |= {"workflow": document_of(file), "params": values_of(params)}
    else:
        env = {key: os.environ[key] for key in ("PATH", "LANG", "TZ") if key in os.environ}
        body["task"] = {"command": list(command), "cwd": os.getcwd(), "env": env}
    with Client() as client:
        made = client.connection.post("/schedules", body, idempotent=True)
        url = client.connection.url
    when = f"first at {local_time(made['next_at'])}" if made["next_at"] else "when that happens"
    click.echo(f"Schedule {made['id']} runs {when}")
    if hook := made.get("on_webhook"):
        click.echo(f"POST {url}{hook['path']}")
        if hook["secret"]:
            click.echo(f"Secret {hook['secret']}")
            click.echo("The secret is not shown again", err=True)


def _end(given: str) -> dict[str, str]:
    name, colon, state = given.rpartition(":")
    if not colon:
        return {"name": given, "state": "succeeded"}
    if state not in ENDS:
        raise click.UsageError(f"--on-workflow {given}: the end {state!r} is not one of {', '.join(ENDS)}")
    return {"name": name, "state": state}


def _place(given: str) -> dict[str, str]:
    """A path, behind the name of a node where it is not on the server."""
    node, colon, path = given.partition(":/")
    return {"node": node, "path": f"/{path}"} if colon and not given.startswith("/") else {"path": given}


def _rule(one: dict[str, Any]) -> str:
    if (on := one.get("on_workflow")) is not None:
        return f"on workflow {on['name']} {on['state']}"
    if one.get("on_webhook") is not None:
        return "on webhook"
    if one.get("on_file") is not None:
        node, path = one["on_file"]["node"], one["on_file"]["path"]
        return f"on file {node}:{path}" if node else f"on file {path}"
    return str(one["cron"] or f"every {one['every']:g}s")


@cron.command("ls")
@format_option
def list_schedules(output: str) -> None:
    """List schedules with their next runs."""
    with Client() as client:
        found = client.connection.get("/schedules")["items"]
    if output in ("json", "yaml"):
        print_data(found, output)
    else:
        rows = [
            (s["id"], s["name"], s["user"], s["kind"], _rule(s), s["zone"] if s["cron"] else "",
             "paused" if s["paused"] else local_time(s["next_at"]), s["last_run"], s["runs"], s["skipped"])
            for s in found
        ]  # fmt: skip
        print_table(("ID", "NAME", "USER", "KIND", "RULE", "ZONE", "NEXT", "LAST RUN", "RUNS", "SKIPPED"), rows)


@cron.command()
@click.argument("name")
@format_option
def show(name: str, output: str) -> None:
    """Show a schedule, by NAME or id."""
    with Client() as client:
        one = client.connection.get(f"/schedules/{name}")
    if output in ("json", "yaml"):
        print_data(one, output)
        return
    hidden = {"cron", "every", "on_workflow", "on_webhook", "on_file"} | (set() if one["cron"] else {"zone"})
    hook = one.get("on_webhook") or {}
    told = {"name": one["name"], "rule": _rule(one), "hook": hook.get("path")} | {
        key: one[key] for key in one if key not in hidden
    }
    for key, value in told.items():
        if value not in (None, "", {}, [], False):
            shown = (
                ", ".join(map(local_time, value))
                if key == "upcoming"
                else local_time(value)
                if key.endswith("_at")
                else value
            )
            click.echo(f"{key:>14}  {clean(shown)}")


def _plain(verb: str, text: str) -> None:
    @click.argument("names", nargs=-1, required=True, metavar="NAME...")
    def act(names: tuple[str, ...]) -> None:
        with Client() as client:
            for name in names:
                if verb == "rm":
                    client.connection.request("DELETE", f"/schedules/{name}")
                else:
                    client.connection.post(f"/schedules/{name}/{verb}")

    cron.command(verb, help=text)(act)


_plain("pause", "Make no runs until resumed.")
_plain("resume", "Go on; what passed meanwhile is caught up with as the schedule says.")
_plain("trigger", "Make one run now.")
_plain("rm", "Remove schedules; the runs that they made stay.")


@cron.command()
@click.argument("name")
@click.option("--from", "begin", required=True, help="First nominal time: RFC 3339 or epoch seconds.")
@click.option("--until", "end", required=True, help="Before this one.")
def backfill(name: str, begin: str, end: str) -> None:
    """Make a run for each nominal time of a span that has passed, at most 1,000."""
    with Client() as client:
        client.connection.post(f"/schedules/{name}/backfill", {"begin": begin, "end": end})
