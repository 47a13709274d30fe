"""The open SQLite database: one writer thread, readers that can only read, and a check that it still serves."""

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import msgspec

from jarvis.core.errors import (
    StoreCorrupt,
    StoreUnavailable,
)
from jarvis.state.ownership import claim
from jarvis.state.recent_outcomes import RecentOutcomes
from jarvis.state.stores.sqlite.file import DATABASE, Q, connect, open_database, refuse_moved
from jarvis.state.stores.sqlite.writer import Writer, translate

T = TypeVar("T")
READERS = 2
ROOM = 1024 * 1024
"""Bytes that the disk must have free to be called well."""


class SqliteDatabase:
    """The open file: one owner holds ``flock`` on the directory for life; nobody else opens the database."""

    durable = True

    def __init__(
        self, directory: Path, synchronous: str = "FULL", clock: Callable[[], float] = time.time, moving: bool = False
    ) -> None:
        """``moving``: open it although it is on its way elsewhere."""
        self.directory, self.path = directory, directory / DATABASE
        self._synchronous, self._clock, self._moving = synchronous, clock, moving
        self._lock: int | None = None
        self._recent = RecentOutcomes()
        self._told_to = self._vain_to = 0
        """The last id of tasks that were told of early, and how far these may never have been stored. The writer's own."""

    # ------------------------------------------------------------ life

    async def open(self) -> None:
        lock = claim(self.directory)
        try:
            if not self._moving:
                refuse_moved(self.directory)
            self._connection = await asyncio.to_thread(open_database, self.path, self._synchronous, self._clock())
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="jarvis-sqlite-reader")
        self._idle: SimpleQueue[sqlite3.Connection] = SimpleQueue()
        for _ in range(READERS):  # now: later there may be no descriptor left
            self._idle.put(connect(self.path, self._synchronous, read_only=True))
        self._writer = Writer(self._connection, self._pass_over)
        self._writer.start()

    async def close(self) -> None:
        """After what was asked before. What cannot be put in order now, on a full disk, is at the next start."""
        if self._lock is None:
            return
        with suppress(StoreUnavailable):
            await self._writer.do(lambda c: run(c, "cluster_set_clean", [(1,)]))
        await self._writer.stop()
        await asyncio.to_thread(self._readers.shutdown)
        while not self._idle.empty():
            self._idle.get().close()
        with suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()
        os.close(self._lock)
        self._lock = None

    def _pass_over(self, c: sqlite3.Connection) -> None:
        """What was told of early may be lost with a transaction: its ids are not given again."""
        if self._told_to:
            run(c, "task_id_begin", [()])
            run(c, "task_id_least", [(self._told_to,)])
            self._vain_to = self._told_to

    async def now(self) -> float:
        return self._clock()

    async def check(self) -> float:
        begin = time.perf_counter()
        disk = os.statvfs(self.directory)
        if disk.f_bavail * disk.f_frsize < ROOM:  # a small write may still fit where no task does
            raise StoreUnavailable("the disk that holds the database is full")
        await self._writer.do(lambda c: run(c, "cluster_set_clean", [(0,)]))
        await self._read(lambda c: c.execute(Q["cluster_get"]).fetchone())
        return time.perf_counter() - begin

    async def _read(self, unit: Callable[[sqlite3.Connection], T]) -> T:
        def work() -> T:
            connection = self._idle.get()
            try:
                return unit(connection)
            except sqlite3.Error as error:
                raise translate(error) from None
            except (msgspec.MsgspecError, ValueError) as error:
                raise StoreCorrupt(f"a row in {self.path} is damaged: {error}") from None
            finally:
                self._idle.put(connection)

        if self._lock is None:
            raise StoreUnavailable(f"{self.path} is closed")
        return await asyncio.get_running_loop().run_in_executor(self._readers, work)

    async def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[Any]:
        """For whoever moves the whole database elsewhere."""
        return await self._read(lambda c: c.execute(sql, parameters).fetchall())

    async def _many(self, name: str, make: Callable[[Any], T], parameters: Any = ()) -> list[T]:
        return await self._read(lambda c: [make(row) for row in c.execute(Q[name], parameters)])

    async def _cluster(self) -> tuple[int, ...]:
        """incarnation, epoch, next_node, last_seq, dropped_seq, clean"""
        return tuple(await self._read(lambda c: c.execute(Q["cluster_get"]).fetchone()))


def run(c: sqlite3.Connection, name: str, rows: Sequence[tuple[object, ...]]) -> None:
    """A named query, once for each row. For none the driver would still let go of the interpreter, and wait for it again."""
    if rows:
        c.executemany(Q[name], rows)
