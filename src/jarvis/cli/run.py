"""run: a command attached, on a live server of this user or on a private one that ends with it."""

import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from jarvis.cli.options import task_fields, task_options
from jarvis.cli.tasks import exit_code_of
from jarvis.sdk.client import Client


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@task_options
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(command: tuple[str, ...], **options: Any) -> int:
    """Run COMMAND and print its output; ends with its exit code. Ctrl-C stops it, twice kills it."""
    from jarvis.config.settings import load
    from jarvis.sdk.launch import alive
    from jarvis.utils import server_file

    settings, _ = load()
    fields = task_fields(options, dict(os.environ), os.getcwd()) | {"command": list(command)}
    if os.environ.get("JARVIS_URL") or alive(server_file.read(settings.state_dir)):
        with Client() as client:
            return _attached(client, fields)
    from jarvis.sdk.local import local

    with tempfile.TemporaryDirectory(prefix="jarvis-run-") as directory, local(Path(directory)) as client:
        return _attached(client, fields)


def _attached(client: Client, fields: dict[str, Any]) -> int:
    handle = client.submit(**fields)
    interrupts = 0

    def interrupted(signum: int, frame: object) -> None:
        nonlocal interrupts
        interrupts += 1
        client.act(handle.id, "cancel", **({"grace": 0} if interrupts > 1 else {}))

    signal.signal(signal.SIGINT, interrupted)
    with client.connection.stream(f"/tasks/{handle.id}/logs", follow="1") as chunks:
        for chunk in chunks:
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
    task = handle.wait()
    if task["state"] == "cancelled":
        return 130
    if task["state"] != "succeeded":
        _explain(client, handle.id, task)
    return exit_code_of(task)


def _explain(client: Client, ident: int, task: dict[str, Any]) -> None:
    attempts = client.connection.get(f"/tasks/{ident}/attempts")["items"]
    message = attempts[-1].get("message") if attempts else ""
    if message or task["state"] != "failed":
        click.echo(f"jarvis: task {ident} {task['state']}" + (f": {message}" if message else ""), err=True)
