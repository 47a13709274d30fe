"""maintenance and reservation: nodes that are set aside for a time, for nobody or for one owner."""

from typing import Any

import click

from jarvis.cli.options import slurm_time
from jarvis.cli.output import format_option, local_time, print_data, print_table
from jarvis.cli.taken import until_taken
from jarvis.sdk.client import Client
from jarvis.sdk.errors import NoSuchObject


@click.group()
def maintenance() -> None:
    """Plan times in which nodes take no tasks."""


@click.group()
def reservation() -> None:
    """Keep nodes for the tasks of a project or a user for a time."""


_nodes = click.option("--nodes", required=True, metavar="NAME,…", help="Names of nodes.")
_start = click.option("--start", metavar="TIME", help="now (the default), RFC 3339, epoch seconds or +2h.")
_span = click.option("--for", "span", required=True, metavar="TIME", help="How long: 2h, 90m, minutes or D-HH.")
_reason = click.option("--reason", default="", help="Told to those who wait.")


@maintenance.command("add")
@_nodes
@_start
@_span
@_reason
def add_maintenance(nodes: str, start: str | None, span: str, reason: str) -> None:
    """No task starts on the nodes that may run into the time; meanwhile they take none. Prints its number."""
    _add(nodes, start, span, {"reason": reason})


@reservation.command("add")
@_nodes
@_start
@_span
@_reason
@click.option("-A", "--project", help="Whose tasks may run there.")
@click.option("-u", "--user", help="Of this user alone.")
def add_reservation(
    nodes: str, start: str | None, span: str, reason: str, project: str | None, user: str | None
) -> None:
    """The nodes are for the tasks of one project or user during the time. Prints its number."""
    if not (project or user):
        raise click.UsageError("a reservation is for somebody: give --project, --user or both")
    owner = {name: value for name, value in (("project", project), ("user", user)) if value}
    _add(nodes, start, span, {"reason": reason, **owner})


def _add(nodes: str, start: str | None, span: str, more: dict[str, Any]) -> None:
    body = {"nodes": [name.strip() for name in nodes.split(",") if name.strip()], "duration": slurm_time(span), **more}
    with Client() as client:
        made = client.connection.post("/maintenance", body | ({"begin": start} if start else {}))
        until_taken(lambda: made["id"] in _known(client))
    click.echo(made["id"])


def _known(client: Client) -> set[int]:
    return {item["id"] for item in client.connection.get("/maintenance")["items"]}


def _listed(kind: str) -> click.Command:
    @click.command("ls", help=f"List what is planned or active of {kind}.")
    @format_option
    def ls(output: str) -> None:
        with Client() as client:
            found = [item for item in client.connection.get("/maintenance")["items"] if item["kind"] == kind]
        if output in ("json", "yaml"):
            print_data(found, output)
            return
        rows = [
            (i["id"], i["state"], ",".join(i["nodes"]), local_time(i["begin"]), local_time(i["end"]),
             "/".join(filter(None, (i["project"], i["user"]))), i["reason"])
            for i in found
        ]  # fmt: skip
        print_table(("ID", "STATE", "NODES", "BEGIN", "END", "FOR", "REASON"), rows)

    return ls


def _removed(kind: str) -> click.Command:
    @click.command("rm", help=f"End a {kind}, or take back what was planned.")
    @click.argument("ident", type=click.IntRange(1), metavar="ID")
    def rm(ident: int) -> None:
        with Client() as client:
            mine = {item["id"] for item in client.connection.get("/maintenance")["items"] if item["kind"] == kind}
            if ident not in mine:
                raise NoSuchObject(f"no {kind} {ident}")
            client.connection.request("DELETE", f"/maintenance/{ident}")
            until_taken(lambda: ident not in _known(client))

    return rm


for _group in (maintenance, reservation):
    _group.add_command(_listed(_group.name or ""))
    _group.add_command(_removed(_group.name or ""))
