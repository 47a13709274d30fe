"""What the leader was asked to do, and does within moments."""

import time
from collections.abc import Callable

import click

TAKEN_S = 5.0


def until_taken(done: Callable[[], object]) -> None:
    """Wait until it shows that the leader has acted; raises :class:`click.ClickException` when it does not."""
    deadline = time.monotonic() + TAKEN_S
    while not done():
        if time.monotonic() > deadline:
            raise click.ClickException("the leader has not acted on it yet")
        time.sleep(0.05)
