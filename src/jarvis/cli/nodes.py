"""node: list, show, cordon, drain and resume nodes."""

import time
from typing import Any

import click

from jarvis.cli.output import clean, format_option, local_time, print_data, print_table
from jarvis.core.resources import format_amount
from jarvis.sdk.client import Client

GONE_S = 5.0
SHOWN_MOST = 20
"""Of what a node holds, the largest; the others are in ``-o json``."""


@click.group()
def node() -> None:
    """List, show, cordon and drain nodes."""


@node.command("ls")
@format_option
def list_nodes(output: str) -> None:
    """List nodes with what they have for tasks, and how much of it is in use (USED/ALL)."""
    with Client() as client:
        nodes = client.connection.get("/nodes", used="true")["items"]
    if output in ("json", "yaml"):
        print_data(nodes, output)
    elif output == "name":
        for one in nodes:
            click.echo(one["name"])
    else:
        print_table(
            ("NODE", "STATE", "CPUS", "MEM", "GPUS", "LOAD", "VERSION", "SEEN", "REASON"), [_row(n) for n in nodes]
        )


def _row(one: dict[str, Any]) -> list[object]:
    state = one["state"] + ("*" if not one.get("schedulable", True) and one["state"] == "ready" else "")
    closed = f"maintenance {one['maintenance']}" if one.get("maintenance") else ""
    reason = "; ".join(text for text in (one["reason"], one.get("unfit", ""), closed) if text)
    return [
        one["name"], state, *(_use(one, name) for name in ("cpu", "memory", "gpu")),
        f"{one.get('health', {}).get('load1', 0):.2f}", one["version"], local_time(one.get("seen_at")), reason,
    ]  # fmt: skip


def _use(one: dict[str, Any], name: str) -> str:
    """``USED/ALL``; all alone where the use is not known, or there is nothing to use."""
    whole = one["resources"].get(name, "" if name == "memory" else "0")
    used = one.get("used")
    return str(whole) if used is None or name not in one["resources"] else f"{used.get(name, 0)}/{whole}"


@node.command()
@click.argument("name")
@format_option
def show(name: str, output: str) -> None:
    """Show one node."""
    with Client() as client:
        one = client.connection.get(f"/nodes/{name}")
    if output in ("json", "yaml"):
        print_data(one, output)
        return
    for key, value in one.items():
        if key == "holds":
            for held in (value or [])[:SHOWN_MOST]:
                click.echo(f"{'holds':>14}  {clean(held['what'])} ({format_amount('memory', held['size'])})")
        elif value not in (None, "", {}, [], False):
            click.echo(f"{key:>14}  {clean(local_time(value) if key.endswith('_at') else value)}")


@node.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--reason", required=True, help="Why; shown to everybody who waits for it.")
@click.option("--deadline", type=float, help="Seconds that running tasks may still take; then they are requeued.")
def drain(names: tuple[str, ...], reason: str, deadline: float | None) -> None:
    """Take nodes out of service: no new tasks, unstarted ones go elsewhere, running ones may finish."""
    body = {"reason": reason} | ({} if deadline is None else {"deadline": deadline})
    _post(names, "drain", body)


@node.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def resume(names: tuple[str, ...]) -> None:
    """Put drained or cordoned nodes back into service."""
    _post(names, "resume", None)


@node.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def cordon(names: tuple[str, ...]) -> None:
    """Give nodes no new tasks; what runs goes on."""
    _post(names, "cordon", None)


@node.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def uncordon(names: tuple[str, ...]) -> None:
    """Give cordoned nodes tasks again."""
    _post(names, "uncordon", None)


@node.command("rm")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "--force", is_flag=True, help="Although tasks run there: they are lost with it, and run elsewhere if they may."
)
def remove(names: tuple[str, ...], force: bool) -> None:
    """Remove nodes from the cluster: what they joined with is worth nothing any more."""
    with Client() as client:
        for name in names:
            client.connection.post(f"/nodes/{name}/remove", {"force": force})
            deadline = time.monotonic() + GONE_S
            while any(one["name"] == name for one in client.connection.get("/nodes")["items"]):
                if time.monotonic() > deadline:
                    why = "it has tasks (drain it first, or say --force), or it is the own node of a server"
                    raise click.ClickException(f"{name} was not removed: {why}")
                time.sleep(0.1)
            click.echo(f"{name} is removed")


def _post(names: tuple[str, ...], verb: str, body: dict[str, Any] | None) -> None:
    with Client() as client:
        for name in names:
            client.connection.post(f"/nodes/{name}/{verb}", body)
