"""cancel, hold, release, requeue, retry, signal, suspend, resume: by ids, or by filters as in ``ls``."""

from collections.abc import Callable
from typing import Any

import click

from jarvis.sdk.client import Client
from jarvis.sdk.errors import ClientError


def _action(name: str, text: str) -> Callable[[Callable[..., dict[str, Any]]], click.Command]:
    """A command that does ``name`` to each id; the decorated function turns its options into arguments."""

    def wrap(arguments: Callable[..., dict[str, Any]]) -> click.Command:
        @click.argument("ids", nargs=-1, metavar="ID...")
        @click.option("-s", "--state", "states", multiple=True, help="All tasks in this state.")
        @click.option("-n", "--name", help="All tasks of this name; * at the end is a wildcard.")
        @click.option("-p", "--queue", help="All tasks of this queue.")
        def command(
            ids: tuple[str, ...], states: tuple[str, ...], name: str | None, queue: str | None, **options: Any
        ) -> int:
            with Client() as client:
                chosen = list(ids) + _matching(client, ids, states, name, queue)
                return _each(client, chosen, verb, arguments(**options))

        verb = name
        for option in getattr(arguments, "__click_params__", []):
            command.__click_params__.append(option)  # type: ignore[attr-defined]
        return click.command(name=name, help=text)(command)

    return wrap


def _matching(
    client: Client, ids: tuple[str, ...], states: tuple[str, ...], name: str | None, queue: str | None
) -> list[str]:
    if not (states or name or queue):
        if not ids:
            raise click.UsageError("give ids, or a filter: -s STATE, -n NAME or -p QUEUE")
        return []
    found = client.tasks(state=",".join(states) or None, name=name, queue=queue)
    return [str(task["id"]) for task in found]


def _each(client: Client, ids: list[str], verb: str, args: dict[str, Any]) -> int:
    """Do it to each; one refusal never stops the others. The worst exit code is the command's."""
    worst = 0
    for ident in ids:
        try:
            answer = client.act(ident, verb, **args)
        except ClientError as error:
            click.echo(f"jarvis: {error}" + (f"\n  {error.hint}" if error.hint else ""), err=True)
            worst = max(worst, error.exit_code)
            continue
        if verb == "retry" and isinstance(answer, dict):
            click.echo(answer.get("id", ""))
    return worst


@_action("cancel", "Cancel tasks: pending ones at once, running ones by a soft signal, then a kill.")
@click.option("--grace", type=float, help="Seconds between the soft signal and the kill.")
def cancel(grace: float | None) -> dict[str, Any]:
    return {} if grace is None else {"grace": grace}


@_action("hold", "Keep tasks that have not started from starting.")
def hold() -> dict[str, Any]:
    return {}


@_action("release", "Let held tasks go on.")
def release() -> dict[str, Any]:
    return {}


@_action("requeue", "Stop running tasks and queue them again.")
def requeue() -> dict[str, Any]:
    return {}


@_action("retry", "Submit ended tasks again as new ones; prints the new ids.")
@click.option("--failed", is_flag=True, help="Of an array, only the elements that failed (always so).")
def retry(failed: bool) -> dict[str, Any]:
    return {}


@_action("signal", "Send a signal to running tasks.")
@click.option("--signal", "signal_name", default="TERM", show_default=True, help="Name or number.")
def signal(signal_name: str) -> dict[str, Any]:
    import signal as signals

    name = signal_name.upper().removeprefix("SIG")
    if name.isdigit():
        return {"signal": int(name)}
    try:
        return {"signal": int(signals.Signals[f"SIG{name}"])}
    except KeyError:
        raise click.UsageError(f"--signal {signal_name!r}: give a name like USR1 or a number") from None


@_action("suspend", "Stop running tasks where they are; they keep their room.")
def suspend() -> dict[str, Any]:
    return {}


@_action("resume", "Let suspended tasks go on.")
def resume() -> dict[str, Any]:
    return {}
