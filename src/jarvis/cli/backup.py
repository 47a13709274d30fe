"""backup, restore: the database into a file and back, checked."""

from pathlib import Path

import click

from jarvis.config.settings import Settings, load
from jarvis.sdk.client import Client


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
def backup(file: Path) -> None:
    """Copy the database into FILE; a live server goes on meanwhile. Never overwrites."""
    from jarvis.sdk.launch import alive
    from jarvis.utils import server_file

    settings, _ = load()
    target = file.absolute()
    if alive(server_file.read(settings.state_dir)):
        with Client(directory=settings.state_dir) as client:
            client.connection.post("/backups", {"path": str(target)})
    else:
        import asyncio

        _embedded_only(settings)
        asyncio.run(_offline(settings.state_dir, target))
    click.echo(f"backed up into {target} ({target.stat().st_size:,} bytes, checked)")


def _embedded_only(settings: Settings) -> None:
    if settings.store.kind == "postgres":
        tools = "use PostgreSQL's own: pg_dump and pg_restore, or base backups with an archive of the WAL"
        raise click.ClickException(f"store.kind is postgres: {tools}")


async def _offline(directory: Path, target: Path) -> None:
    from jarvis.state.stores.sqlite import SqliteStore
    from jarvis.state.stores.sqlite.file import DATABASE

    if not (directory / DATABASE).exists():
        raise click.ClickException(f"{directory} has no database")
    store = SqliteStore(directory)
    await store.open()
    try:
        await store.backup(target)
    finally:
        await store.close()


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--force", is_flag=True, help="Put it in the place of a database that is there; that one is kept beside it."
)
def restore(file: Path, force: bool) -> None:
    """Put the backup FILE in the place of the database. Jarvis must be down."""
    from jarvis.state.stores.sqlite.file import restore as restore_file

    settings, _ = load()
    _embedded_only(settings)
    incarnation = restore_file(file, settings.state_dir, force)
    click.echo(f"restored {file} into {settings.state_dir} as incarnation {incarnation}")
