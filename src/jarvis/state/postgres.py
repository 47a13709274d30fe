"""Connections to PostgreSQL: a bounded pool, whole transactions that are tried again, and errors in the words of the domain.

Source of the classes of SQLSTATE: PostgreSQL documentation, appendix A.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import asyncpg

from jarvis.core.errors import InvalidValue, JarvisError, StoreCorrupt, StoreUnavailable

T = TypeVar("T")
Connection = Any
"""What the pool lends: asyncpg has no public name for it."""
POOL = 10
CONNECT_S = 5.0
STATEMENT_S = 30.0
IDLE_S = 5.0
"""In a transaction without a statement: below the lease, so that a frozen server cannot hold up a takeover for long."""
LOCK_S = 5.0
TRIES = 6
FIRST_WAIT_S = 0.01
_AGAIN = frozenset({"40001", "40P01"})
"""Serialisation failure and deadlock: the transaction did nothing, and may do it again."""
FAILURES = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What the driver raises: the last one when the server hung up while nobody listened, as in a process that was frozen."""
_CORRUPT = ("XX001", "XX002")
_NOT_OURS = frozenset({"3D000", "28P01", "28000", "42501"})


class Postgres:
    """One database. ``url`` may name several hosts: the one that takes writes is used, also after a failover."""

    def __init__(self, url: str, pool: int = POOL) -> None:
        self.url, self._size = url, pool
        self._pool: Any = None

    async def open(self) -> None:
        """Raises :class:`StoreUnavailable` when it cannot be reached."""
        if self._pool is None:
            self._pool = await self._translated(self._make_pool())

    async def _make_pool(self) -> Any:
        if not self.url.startswith(("postgresql://", "postgres://")):
            raise StoreUnavailable(
                f"store.url must begin with postgresql:// and does not: {self.url.partition('@')[2]}"
            )
        return await asyncpg.create_pool(self.url, min_size=1, max_size=self._size, **_options())

    async def connect(self) -> Connection:
        """A connection of its own, which its owner closes."""
        return await self._translated(asyncpg.connect(self.url, **_options()))

    async def close(self) -> None:
        if self._pool is not None:
            pool, self._pool = self._pool, None
            try:
                async with asyncio.timeout(CONNECT_S):
                    await pool.close()
            except FAILURES:
                pool.terminate()

    async def transaction(self, unit: Callable[[Connection], Awaitable[T]]) -> T:
        """All of it or nothing; synced when it returns. Raises StoreUnavailable also when the answer to its commit was lost."""
        return await self._translated(self._tried(unit))

    async def fetch(self, query: str, *args: object) -> list[Any]:
        """The rows of one statement."""
        return await self._translated(self._fetch(query, args))

    async def _fetch(self, query: str, args: tuple[object, ...]) -> list[Any]:
        async with self._lend() as connection:
            return list(await connection.fetch(query, *args))

    async def _tried(self, unit: Callable[[Connection], Awaitable[T]]) -> T:
        for nth in range(TRIES):
            try:
                async with self._lend() as connection, connection.transaction():
                    return await unit(connection)
            except asyncpg.PostgresError as error:
                if error.sqlstate not in _AGAIN or nth == TRIES - 1:
                    raise
            await asyncio.sleep(random.uniform(0, FIRST_WAIT_S * 2**nth))  # noqa: S311 - to be apart, not to be secret
        raise AssertionError("unreachable")

    def _lend(self) -> Any:
        if self._pool is None:
            raise StoreUnavailable("the database is closed")
        return self._pool.acquire(timeout=CONNECT_S)

    async def _translated(self, work: Awaitable[T]) -> T:
        try:
            return await work
        except FAILURES as error:
            raise translate(error) from None
        except ValueError as error:
            raise StoreUnavailable(f"store.url is not usable: {error}") from None


def _options() -> dict[str, Any]:
    settings = {
        "application_name": "jarvis",
        "statement_timeout": str(int(STATEMENT_S * 1000)),
        "idle_in_transaction_session_timeout": str(int(IDLE_S * 1000)),
        "lock_timeout": str(int(LOCK_S * 1000)),
        "synchronous_commit": "on",
        "tcp_keepalives_idle": "5",
        "tcp_keepalives_interval": "2",
        "tcp_keepalives_count": "3",
    }
    return {
        "timeout": CONNECT_S, "command_timeout": STATEMENT_S + 5.0, "target_session_attrs": "read-write",
        "server_settings": settings,
    }  # fmt: skip


def translate(error: Exception) -> JarvisError:
    """The word of the domain for an error of the driver or the server."""
    state = getattr(error, "sqlstate", None) or ""
    if state in _CORRUPT:
        return StoreCorrupt(f"the database is damaged: {error}")
    if isinstance(error, asyncpg.DataError):
        return InvalidValue("value", str(error)[:200], "something that the database can hold")
    if state in _NOT_OURS:
        refused = StoreUnavailable(f"the database refuses: {error}")
        refused.hint = "see store.url: the database, the user and its rights"
        return refused
    if state == "53100":
        return StoreUnavailable("the disk that holds the database is full")
    said = " ".join(str(error).split()) or type(error).__name__
    return StoreUnavailable(f"the database cannot be used: {said}")
