"""up, down, server: Jarvis on this machine."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import click

from jarvis.config.sources import merged, state_dir
from jarvis.sdk.launch import alive, start_server
from jarvis.utils import server_file


def _flags(
    host: str | None, port: int | None, listen: str | None, memory: bool, cpus: float | None, name: str | None
) -> dict[str, Any]:
    flags: dict[str, Any] = {}
    if listen is not None:
        flags.setdefault("server", {})["listen"] = listen
    if host is not None:
        flags.setdefault("server", {})["host"] = host
    if port is not None:
        flags.setdefault("server", {})["port"] = port
    if memory:
        flags["store"] = {"kind": "memory"}
    if cpus is not None:
        flags.setdefault("worker", {})["cpus"] = cpus
    if name is not None:
        flags.setdefault("worker", {})["name"] = name
    return flags


def _server_options(command: Any) -> Any:
    for option in reversed(
        [
            click.option("--host", help="Address to listen on."),
            click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one."),
            click.option(
                "--listen", metavar="ADDRESS[:PORT]", help="Let other machines in, by TLS; 0.0.0.0: everywhere."
            ),
            click.option("--memory", is_flag=True, help="Keep everything in memory: nothing survives."),
            click.option("--cpus", type=float, help="CPUs that tasks may use; default: all."),
            click.option("--node-name", "name", help="Name of this node; default: the host's."),
        ]
    ):
        command = option(command)
    return command


@click.command()
@_server_options
@click.option("--foreground", is_flag=True, help="Stay in the foreground; Ctrl-C stops it.")
@click.option(
    "--env", "environment", is_flag=True, help='Print JARVIS_URL and JARVIS_TOKEN: eval "$(jarvis up --env)".'
)
def up(
    host: str | None, port: int | None, listen: str | None, memory: bool, cpus: float | None, name: str | None,
    foreground: bool, environment: bool,
) -> None:  # fmt: skip
    """Start Jarvis on this machine: server, node and everything they need. Running tasks of before go on."""
    flags = _flags(host, port, listen, memory, cpus, name)
    directory = state_dir()
    content = server_file.read(directory)
    if alive(content):
        assert content is not None
        if environment:
            _tell_environment(content)
        else:
            click.echo(f"Jarvis is up already at {content.url} (pid {content.pid})")
            _warn_of_other(content)
        return
    if merged(flags)[0].get("server", {}).get("role") == "scheduler":
        raise click.ClickException("server.role scheduler runs no tasks and takes none: start it by 'jarvis server'")
    if foreground:
        _serve(flags, None)
        return
    begin = time.monotonic()
    content, process = start_server(directory, flags)
    process.returncode = 0  # it stays when this command ends
    if environment:
        _tell_environment(content)
        return
    click.echo(f"Jarvis is up at {content.url} after {time.monotonic() - begin:.1f} s, state in {directory}")
    if memory:
        click.echo("Everything is kept in memory: nothing survives 'jarvis down'.", err=True)
    _warn_of_other(content)
    if content.public:
        _tell_how_to_join(content)
    click.echo("Try: jarvis submit --wait -- echo hello      Stop: jarvis down")


def _tell_how_to_join(content: server_file.ServerFile) -> None:
    from jarvis.cli.join import join_line
    from jarvis.sdk.client import Client

    with Client(content.url, content.token) as client:
        click.echo(f"On another machine, within the hour: {join_line(client, {})}")


def _warn_of_other(content: server_file.ServerFile) -> None:
    """A shell that was told an address goes on using it, whatever starts here."""
    set_to = os.environ.get("JARVIS_URL", content.url)
    if set_to.rstrip("/") != content.url:
        hint = 'eval "$(jarvis up --env)" changes that'
        click.echo(f"JARVIS_URL is set to {set_to}, so that commands in this shell go there: {hint}", err=True)


def _tell_environment(content: server_file.ServerFile) -> None:
    click.echo(f"export JARVIS_URL={content.url}\nexport JARVIS_TOKEN={content.token}")


@click.command()
@_server_options
@click.option("--no-node", is_flag=True, help="Run no tasks on this machine.")
@click.option("--flags", "more", hidden=True)
@click.option("--owner-fd", type=int, hidden=True)
@click.option("--own-nodes", type=click.IntRange(1), default=1, hidden=True)
@click.option("--parent", type=click.Path(path_type=Path), hidden=True)
@click.option(
    "--role",
    type=click.Choice(["all", "api", "scheduler"]),
    help="Among several servers: api takes requests and never leads, scheduler leads and takes none; default: all.",
)
@click.option("--log-file", type=click.Path(path_type=Path), help="Log there, rotated; default: stderr.")
def server(
    host: str | None, port: int | None, listen: str | None, memory: bool, cpus: float | None, name: str | None,
    no_node: bool, more: str | None, owner_fd: int | None, own_nodes: int, parent: Path | None, role: str | None,
    log_file: Path | None,
) -> None:  # fmt: skip
    """Run a server in the foreground, with a node on this machine."""
    flags = json.loads(more) if more else _flags(host, port, listen, memory, cpus, name)
    if role is not None:
        flags.setdefault("server", {})["role"] = role
    if own_nodes > 1 and owner_fd is None:
        raise click.UsageError("--own-nodes is for servers that end with their owner")
    _serve(flags, log_file, not no_node, owner_fd, parent, own_nodes)


def _serve(
    flags: dict[str, Any], log_file: Path | None, with_node: bool = True, owner_fd: int | None = None,
    parent: Path | None = None, nodes: int = 1,
) -> None:  # fmt: skip
    from jarvis.utils.collector import keep_what_is_here, look_seldom

    look_seldom()
    import asyncio

    from jarvis.config.settings import load
    from jarvis.utils.logs import configure
    from jarvis.wiring import PortInUse, Server

    settings, _ = load(flags)
    keep_what_is_here()
    configure(settings.log.level, log_file, settings.log.max_bytes, settings.log.keep)
    try:
        asyncio.run(Server(settings, with_node, owner_fd, log_file=log_file, parent=parent, nodes=nodes).run())
    except PortInUse as error:
        raise click.ClickException(str(error)) from None


@click.command()
@click.option("--keep", is_flag=True, help="Leave running tasks running: the next 'jarvis up' takes them over.")
@click.option("--purge", is_flag=True, help="Delete the state directory afterwards.")
@click.option("--yes", is_flag=True, help="Do not ask before deleting.")
def down(keep: bool, purge: bool, yes: bool) -> None:
    """Stop Jarvis on this machine."""
    import shutil

    directory = state_dir()
    if purge and not yes:
        click.confirm(f"Delete {directory} with every task, log and result in it?", abort=True)
    stopped = _stop_server(directory)
    if not keep:
        from jarvis.own_node import stop_node

        stopped = stop_node(directory) or stopped
    if purge and directory.is_dir():
        shutil.rmtree(directory)
        click.echo(f"deleted {directory}")
    click.echo("Jarvis is down" if stopped else "Jarvis was not up")


def _stop_server(directory: Path) -> bool:
    content = server_file.read(directory)
    if content is None or not alive(content):
        return False
    os.kill(content.pid, signal.SIGTERM)
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            os.kill(content.pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    raise click.ClickException(f"the server (pid {content.pid}) does not stop: see {directory}/server.log")
