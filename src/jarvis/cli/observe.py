"""events, stats, version: what happened and how things stand."""

import json
import time

import click

from jarvis import __version__
from jarvis.cli.output import clean, format_option, local_time, print_data, print_table
from jarvis.sdk.client import Client
from jarvis.sdk.errors import ClientError


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on as things happen.")
@click.option("--after", help="Cursor to go on from; default: the oldest kept.")
@click.option("--task", type=int, help="Only this task's.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def events(follow: bool, after: str | None, task: int | None, as_json: bool) -> None:
    """Print what happened."""
    with Client() as client:
        path = "/events" if task is None else f"/tasks/{task}/events"
        while True:
            page = client.connection.get(path, after=after, limit=500)
            for event in page["items"]:
                click.echo(json.dumps(event) if as_json else _line(event))
            after = page.get("next") or page.get("cursor") or after
            if len(page["items"]) < 500:
                if not follow:
                    return
                time.sleep(0.5)


def _line(event: dict[str, object]) -> str:
    task = event.get("id") or event.get("task") or ""
    detail = " ".join(f"{k}={v}" for k, v in dict(event.get("detail") or {}).items())  # type: ignore[call-overload]
    node = f"node {event['node']}" if event.get("node") else ""
    return "  ".join(
        clean(p) for p in (event["seq"], local_time(str(event["at"])), task, event["kind"], node, detail) if p
    )


@click.command()
@click.option("--disk", is_flag=True, help="Only what is stored.")
@format_option
def stats(disk: bool, output: str) -> None:
    """Print counts and figures."""
    with Client() as client:
        figures = client.connection.get("/stats")
    if disk:
        figures = {k: v for k, v in figures.items() if k.endswith("bytes")}
    if output in ("json", "yaml"):
        print_data(figures, output)
        return
    for name, value in figures.items():
        click.echo(f"{name:>20}  {clean(value)}")


@click.group()
def cluster() -> None:
    """The servers of the cluster."""


@cluster.command()
@format_option
def show(output: str) -> None:
    """Show each server, which of them leads, and the last ones that began to."""
    with Client() as client:
        found = client.connection.get("/cluster")
    if output in ("json", "yaml"):
        print_data(found, output)
        return
    rows = [
        (
            "leader" if s["leads"] else "-" if s["role"] == "api" else "standby", s["name"], s["role"], s["epoch"],
            s["lag"], s["url"], s["version"], local_time(s["seen_at"]),
        )
        for s in found["servers"]
    ]  # fmt: skip
    print_table(("STATE", "SERVER", "ROLE", "EPOCH", "LAG", "URL", "VERSION", "SEEN"), rows)
    checks = ", ".join(f"{name} {check['status']}" for name, check in found["checks"].items())
    click.echo(f"\nepoch {found['epoch']} of incarnation {found['incarnation']}; {checks}\n")
    took = [
        (t["epoch"], t["leader"], local_time(t["at"]), f"{t['silent_s']:.1f}s", t["cause"]) for t in found["takeovers"]
    ]
    print_table(("EPOCH", "LEADER", "SINCE", "SILENT", "CAUSE"), took)


@click.command()
def version() -> None:
    """Print the versions of client and server."""
    click.echo(f"client {__version__}")
    try:
        with Client() as client:
            click.echo(f"server {client.connection.get('/version')['version']} at {client.connection.url}")
    except ClientError:
        click.echo("server not reached")
