"""run, exec: commands attached to this terminal; run on a live server of this user or on a private one that ends with it."""

import os
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import click

from jarvis.cli import terminal
from jarvis.cli.files import bring_back, pushed
from jarvis.cli.options import task_fields, task_options
from jarvis.cli.tasks import exit_code_of
from jarvis.core.states import TERMINAL
from jarvis.sdk.client import Client
from jarvis.sdk.errors import ClientError, WrongState
from jarvis.sdk.streams import TaskStream

_COMMAND = {"allow_interspersed_args": False}


@click.command(context_settings=_COMMAND)
@task_options
@click.option("--pty", is_flag=True, help="Give it a terminal: for programs that want to be typed to.")
@click.option("--no-stdin", is_flag=True, help="Leave standard input alone; the command reads nothing.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(command: tuple[str, ...], pty: bool, no_stdin: bool, **options: Any) -> int:
    """Run COMMAND attached: input, output and exit code are its own. Ctrl-C stops it, twice kills it.

    With --push and --pull it runs in a directory of its own, which holds what was pushed; what matches --pull is brought into
    this directory when it has ended, well or not.
    """
    from jarvis.config.sources import state_dir
    from jarvis.sdk.connection import logged_in
    from jarvis.sdk.launch import alive
    from jarvis.utils import server_file

    fields = task_fields(options, dict(os.environ), os.getcwd()) | {"command": list(command)}
    if pty:
        fields["pty"] = True
    elif not no_stdin and not fields.get("image") and terminal.has_input():
        fields["stdin"] = "-"
    if os.environ.get("JARVIS_URL") or logged_in() is not None or alive(server_file.read(state_dir())):
        with Client() as client:
            return _attached(client, fields | pushed(client, options))
    from jarvis.sdk.local import local

    with tempfile.TemporaryDirectory(prefix="jarvis-run-") as directory, local(Path(directory)) as client:
        return _attached(client, fields | pushed(client, options))


def _attached(client: Client, fields: dict[str, Any]) -> int:
    ident = client.submit(**fields).id
    _cancel_on_interrupt(client, ident)
    if fields.get("pty"):
        _in_terminal(client, ident)
    else:
        if "stdin" in fields:
            threading.Thread(target=_feed, args=(client, ident), daemon=True).start()
        _print_log(client, ident, 0)
    task = client.wait(ident)
    if task["state"] == "cancelled":
        return 130
    if task["state"] != "succeeded":
        _explain(client, ident, task)
    if fields.get("artifacts"):
        bring_back(client, ident, fields["artifacts"])
    return exit_code_of(task)


def _cancel_on_interrupt(client: Client, ident: int) -> None:
    interrupts = 0

    def interrupted(signum: int, frame: object) -> None:
        nonlocal interrupts
        interrupts += 1
        client.act(ident, "cancel", **({"grace": 0} if interrupts > 1 else {}))

    signal.signal(signal.SIGINT, interrupted)


def _feed(client: Client, ident: int) -> None:
    """This standard input into the task's, as fast as it reads. A task that ends first wants no more."""
    try:
        with TaskStream(client.connection, f"/tasks/{ident}/attach", kind="stdin") as stream:
            terminal.feed_in_background(stream)
            for _ in stream:
                pass
            error = stream.error
    except WrongState:
        return
    except ClientError as problem:
        error = str(problem)
    if error and client.show(ident)["state"] not in TERMINAL:
        click.echo(f"jarvis: task {ident} gets no more input: {error}", err=True)


def _in_terminal(client: Client, ident: int) -> None:
    """Keys and screen until the task has ended; what a broken connection left out comes from its log."""
    shown, tries = 0, 0
    with terminal.raw_mode():
        while client.show(ident)["state"] not in TERMINAL and tries < 100:
            rows, columns = terminal.size()
            where = {"kind": "pty", "rows": rows, "columns": columns, "offset": shown}
            try:
                with TaskStream(client.connection, f"/tasks/{ident}/attach", **where) as stream:
                    terminal.feed_in_background(stream)
                    with terminal.following_size(stream.resize):
                        shown += terminal.show(stream)
                    ended = not stream.error
            except WrongState:
                ended = True
            if ended:
                client.wait(ident, 60.0)
            tries += 1
        _print_log(client, ident, shown)


def _print_log(client: Client, ident: int, offset: int) -> None:
    with client.connection.stream(f"/tasks/{ident}/logs", follow="1", offset=offset) as chunks:
        for chunk in chunks:
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()


def _explain(client: Client, ident: int, task: dict[str, Any]) -> None:
    attempts = client.connection.get(f"/tasks/{ident}/attempts")["items"]
    message = attempts[-1].get("message") if attempts else ""
    if message or task["state"] != "failed":
        click.echo(f"jarvis: task {ident} {task['state']}" + (f": {message}" if message else ""), err=True)


@click.command(name="exec", context_settings=_COMMAND)
@click.option("--pty/--no-pty", "wanted", default=None, help="With a terminal or without; default: if this is one.")
@click.option("--rank", type=click.IntRange(0), help="Beside this rank of a task on several nodes; default: 0.")
@click.argument("ident", metavar="ID")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(ident: str, command: tuple[str, ...], wanted: bool | None, rank: int | None) -> int:
    """Run COMMAND beside the running task ID, with its environment and directory; ends with its exit code."""
    command = command[1:] if command[0] == "--" else command
    if not command:
        raise click.UsageError("give the command to run: jarvis exec ID -- COMMAND")
    pty = os.isatty(0) and os.isatty(1) if wanted is None else wanted
    rows, columns = terminal.size() if pty else (None, None)
    with Client() as client:
        path = f"/tasks/{ident}/exec"
        with TaskStream(client.connection, path, argv=list(command), rows=rows, columns=columns, rank=rank) as stream:
            if terminal.has_input():
                terminal.feed_in_background(stream)
            else:
                stream.end()
            if pty:
                with terminal.raw_mode(), terminal.following_size(stream.resize):
                    terminal.show(stream)
            else:
                terminal.show(stream)
    if stream.error:
        click.echo(f"jarvis: {stream.error}", err=True)
    return stream.code if stream.code is not None else 1
