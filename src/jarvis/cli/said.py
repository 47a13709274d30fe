"""Which options a command line has: one that would say nothing beside another is refused, and not passed over."""

from collections.abc import Container

import click
from click.core import ParameterSource


def said(*, of: Container[str] | None = None, but: Container[str] = ()) -> list[str]:
    """Options on the line of the command at hand, as people write them: those of these names, or all but those. What the
    environment says is meant for other commands, too."""
    context = click.get_current_context()
    return [
        next((form for form in option.opts if form.startswith("--")), option.opts[0])
        for option in context.command.params
        if isinstance(option, click.Option) and option.name not in but and (of is None or option.name in of)
        and context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
    ]  # fmt: skip


def refuse(options: list[str], why: str) -> None:
    """Where there are any."""
    if options:
        raise click.UsageError(f"{', '.join(options)}: {why}.")
