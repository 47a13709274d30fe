"""The schema of the PostgreSQL database: made, brought up to date, or refused."""

from dataclasses import dataclass

from jarvis.core.errors import StoreCorrupt
from jarvis.state import migrations, queries
from jarvis.state.persistence import INCARNATION_EPOCH
from jarvis.state.postgres import Connection, Postgres

Q = queries.load("postgres")
CONTRACT = "_contract_"


@dataclass(frozen=True, slots=True)
class Schema:
    """``taken`` are the numbers of the steps that the database has; ``missing`` are those that this version would take."""

    taken: frozenset[int]
    missing: tuple[str, ...]


async def look(postgres: Postgres) -> Schema:
    """What ``migrate`` would do; raises :class:`StoreCorrupt` for one that is not for this version."""
    return await postgres.transaction(_look)


async def _look(c: Connection) -> Schema:
    ours, theirs, encoding = await c.fetchrow(Q["schema_version"])
    if encoding != "UTF8":
        raise _refused(f"the database keeps text as {encoding}", "make it with ENCODING 'UTF8' TEMPLATE template0")
    if theirs and not ours:
        raise _refused("the database holds tables of another program", "give Jarvis a database of its own")
    taken = frozenset(row[0] for row in await c.fetch(Q["schema_get"])) if ours else frozenset()
    known = migrations.load("postgres")
    if max(taken, default=0) > known[-1][0]:
        said = f"the database has schema {max(taken)}; this version of Jarvis knows {known[-1][0]}"
        raise _refused(said, "use the version of Jarvis that the other servers run, or a newer one")
    return Schema(taken, tuple(name for number, name, _ in known if number not in taken))


def _refused(said: str, hint: str) -> StoreCorrupt:
    error = StoreCorrupt(said)
    error.hint = hint
    return error


async def migrate(postgres: Postgres, clock_now: float | None = None, contract: bool = False) -> Schema:
    """Take the steps that are due, all or none; servers that start together do it once. What was there before.

    A step named ``…_contract_…`` takes away what servers of the version before need: it is taken only with ``contract``, and a
    database that still needs such a step works with this version as it is. Steps after it do not need it.
    """

    async def unit(c: Connection) -> Schema:
        await c.execute(Q["schema_lock"])
        before = await _look(c)
        if not before.taken:
            await c.execute(Q["schema_create"])
        for number, name, sql in migrations.load("postgres"):
            waits = CONTRACT in name and not contract and before.taken
            if number not in before.taken and not waits:
                await c.execute(sql)
                await c.execute(Q["schema_put"], number, name)
        if not before.taken:
            await c.execute(Q["cluster_create"])
            await c.execute(Q["leadership_create"], clock_now, INCARNATION_EPOCH)
            await c.execute(Q["lease_create"])
        return before

    return await postgres.transaction(unit)
