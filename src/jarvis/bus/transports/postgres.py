"""Entries through a table of the database: the way that is there whenever the database is, and fast enough for a small cluster.

An unlogged table, because a message may be lost; LISTEN/NOTIFY wakes the receiver, a poll stands behind it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from jarvis.bus.transport import TransportDown
from jarvis.core.errors import JarvisError
from jarvis.state import queries
from jarvis.state.postgres import FAILURES, Connection, Postgres

Q = queries.load("postgres")
POLL_S = 2.0
PAGE = 100
OLD_S = 60.0
"""An entry that nobody has taken by then is for a server that is gone."""
RETRY_S = 0.5
CHANNEL = "jarvis_bus"


class PostgresTransport:
    """See the port. Shares the connections of ``postgres``, which the store opens and closes."""

    name = "postgres"

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres
        self._arrived = asyncio.Event()
        self._listener: Connection | None = None
        self._closed = False

    async def send(self, to: str, entry: bytes) -> None:
        try:
            await self._postgres.fetch(Q["bus_send"], to, entry, CHANNEL)
        except JarvisError as error:
            raise TransportDown(str(error)) from None

    async def ping(self) -> float:
        started = asyncio.get_running_loop().time()
        try:
            await self._postgres.fetch("SELECT 1")
        except JarvisError as error:
            raise TransportDown(str(error)) from None
        return asyncio.get_running_loop().time() - started

    async def receive(self, inbox: str) -> AsyncIterator[bytes]:
        first = True
        while not self._closed:
            self._arrived.clear()
            try:
                await self._listen(inbox)
                if first:
                    await self._postgres.fetch(Q["bus_forget"], inbox, OLD_S)
                    first = False
                page = await self._postgres.fetch(Q["bus_take"], inbox, PAGE)
            except JarvisError:
                await asyncio.sleep(RETRY_S)
                continue
            for _, body in sorted(page):
                yield body
            if len(page) < PAGE:
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await self._arrived.wait()

    async def _listen(self, inbox: str) -> None:
        """On a connection of its own; a broken one is replaced, and what was sent meanwhile is in the table."""
        if self._listener is not None and not self._listener.is_closed():
            return
        self._listener = await self._postgres.connect()

        def heard(_connection: Any, _pid: int, _channel: str, payload: str) -> None:
            if payload == inbox:
                self._arrived.set()

        try:
            await self._listener.add_listener(CHANNEL, heard)
        except FAILURES:
            self._listener.terminate()
            self._listener = None
            await asyncio.sleep(RETRY_S)

    async def close(self) -> None:
        self._closed = True
        self._arrived.set()
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(*FAILURES):
                await listener.close(timeout=2.0)
