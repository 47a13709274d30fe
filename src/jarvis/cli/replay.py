"""replay: what the scheduler decided, decided again by the same code; and why a task waited at an instant of the past."""

import time
from pathlib import Path
from typing import Any

import click

from jarvis.api.schemas.values import duration, instant, rfc3339
from jarvis.cli.output import local_time
from jarvis.config.sources import state_dir
from jarvis.core.errors import InvalidValue, JarvisError
from jarvis.core.ids import parse_element
from jarvis.scheduler.replay.replaying import Diverged, NoRecord, OtherCode, check, why_at
from jarvis.scheduler_process import DIRECTORY
from jarvis.utils.record_file import RECORD

record_option = click.option(
    "--record", type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Directory of the record; else that of this machine's server.",
)  # fmt: skip


@click.command()
@record_option
def replay(record: Path | None) -> int:
    """Decide again what the scheduler of this machine decided, from what it was told, and compare each commit.

    The record is kept by the server that leads (settings: record.what, record.max_bytes). Exit code 1 where anything differs.
    """
    try:
        done = check(record or _of_this_machine())
    except Diverged as error:
        raise click.ClickException(f"decided otherwise than recorded: {error}") from None
    except OtherCode as error:
        raise click.ClickException(str(error)) from None
    except NoRecord as error:
        raise click.ClickException(f"{error}. The server that leads keeps it, unless record.what is off") from None
    for segment in done:
        click.echo(
            f"{segment.path.name}  to {local_time(rfc3339(segment.now))}  {segment.turns} turns  {segment.commits} commits"
        )
    commits = sum(segment.commits for segment in done)
    click.echo(f"{commits} commits of {sum(s.turns for s in done)} turns: decided again, all the same")
    return 0


def why_then(ident: str, when: str, record: Path | None) -> dict[str, Any]:
    """What ``why`` answered at an instant: RFC 3339, epoch seconds, or ``-10m``."""
    now = time.time()
    try:
        at = now - duration(when[1:], "--at") if when.startswith("-") else instant(when, "--at", now)
    except InvalidValue:
        raise click.UsageError(
            f"--at: {when!r} is not an instant: RFC 3339 with its offset, seconds since 1970, or -10m"
        ) from None
    try:
        found = why_at(record or _of_this_machine(), parse_element(ident), at)
    except JarvisError as error:
        raise click.ClickException(str(error)) from None
    if found is None:
        raise click.ClickException(f"task {ident} did not wait at {local_time(rfc3339(at))}, or was not known then")
    return found


def _of_this_machine() -> Path:
    """A server may decide in a process of its own, which keeps the record then."""
    own = state_dir()
    apart = own / DIRECTORY / RECORD
    return apart if apart.is_dir() else own / RECORD
