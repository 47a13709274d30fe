"""config: the settings and where they come from."""

from typing import Any

import click

from jarvis.config.settings import load
from jarvis.utils.places import config_path


@click.group()
def config() -> None:
    """Show the settings and where they come from."""


@config.command()
@click.option("--origin", is_flag=True, help="Where each value comes from.")
def show(origin: bool) -> None:
    """Print every setting."""
    settings, origins = load()
    for key, value in _flat(settings.model_dump(mode="json")):
        text = f"{key} = {value}"
        click.echo(f"{text:<60} {origins.get(key, 'default')}" if origin else text)


@config.command()
def path() -> None:
    """Print where the file is looked for."""
    click.echo(config_path())


def _flat(data: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    out: list[tuple[str, Any]] = []
    for key, value in data.items():
        name = f"{prefix}{key}"
        out += _flat(value, f"{name}.") if isinstance(value, dict) and value else [(name, value)]
    return out
