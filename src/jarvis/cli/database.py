"""migrate, promote: the schema of the cluster's database, and the way of an embedded one into it."""

import asyncio

import click

from jarvis.config.settings import load


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def migrate(dry_run: bool, yes: bool) -> None:
    """Bring the schema of a PostgreSQL database to this version.

    A server takes steps that expand the schema by itself; servers of the version before go on meanwhile. Steps that
    contract it are taken here alone, when every server runs this version. A SQLite database is migrated, after a copy
    into its folder of backups, by the server that opens it.
    """
    settings, _ = load()
    if settings.store.kind != "postgres":
        raise click.ClickException(f"store.kind is {settings.store.kind}: its server migrates it when it starts")
    from jarvis.state.stores.postgres.schema import CONTRACT

    due = asyncio.run(_steps(settings.store.url, take=False))
    for name in due:
        click.echo(name)
    if not due:
        click.echo("the schema is up to date")
    if not due or dry_run:
        return
    if any(CONTRACT in name for name in due):
        click.echo("A step that contracts stops servers of the version before.", err=True)
    if not yes:
        click.confirm(f"Take {len(due)} step(s)?", abort=True)
    click.echo(f"took {len(asyncio.run(_steps(settings.store.url, take=True)))} step(s)")


async def _steps(url: str, take: bool) -> tuple[str, ...]:
    from jarvis.state.postgres import Postgres
    from jarvis.state.stores.postgres import schema

    postgres = Postgres(url)
    await postgres.open()
    try:
        return (await (schema.migrate(postgres, contract=True) if take else schema.look(postgres))).missing
    finally:
        await postgres.close()


@click.command()
@click.argument("url")
@click.option("--yes", is_flag=True, help="Do not ask.")
def promote(url: str, yes: bool) -> None:
    """Move everything of this state directory into the empty PostgreSQL database at URL.

    Jarvis must be down ('jarvis down --keep' lets tasks run on). Nothing is deleted, but the SQLite database is marked as
    moved and is not opened any more. Cut short, the command is given again.
    """
    from jarvis.promotion import place
    from jarvis.promotion import promote as move
    from jarvis.state.stores.sqlite.file import DATABASE

    settings, _ = load()
    directory = settings.state_dir
    if not (directory / DATABASE).exists():
        raise click.ClickException(f"{directory} has no database")
    if not yes:
        click.confirm(f"Move the database of {directory} to {place(url)}?", abort=True)
    done = asyncio.run(move(directory, url))
    click.echo(f"moved {done.tasks:,} tasks and {done.bodies:,} bodies; incarnation {done.incarnation}")
    for node, elements in done.running.items():
        more = f" and {len(elements) - 20} more" if len(elements) > 20 else ""
        click.echo(f"running on {node}: {' '.join(elements[:20])}{more}")
    if done.running:
        click.echo("They go on when their nodes connect to the new server.")
    click.echo("Now set store.kind to postgres and store.url to that address, and start: jarvis up")
