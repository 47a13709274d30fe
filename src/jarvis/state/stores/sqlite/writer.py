"""The one thread that writes to a SQLite database: group commit, and the only one that checkpoints.

One writer, because SQLite before 3.51.3 can lose commits when two connections checkpoint and commit at once in WAL mode
(sqlite.org/wal.html, "the WAL-reset bug").
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from jarvis.core.errors import JarvisError, StoreCorrupt, StoreUnavailable

T = TypeVar("T")
Unit = Callable[[sqlite3.Connection], Any]

BUSY_MS = 10_000
"""How long a statement waits for a lock of another process."""
QUEUE_LIMIT = 10_000
"""Units that may wait; beyond, submissions are refused rather than kept in memory."""
CHECKPOINT_PAGES = 1000
"""Pages in the WAL after which a commit of the writer, once synced, copies them back into the database: few, as what comes next
waits meanwhile."""


class Writer:
    """Runs units of work, each in its own savepoint, as many as have gathered in one synced transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._queue: queue.SimpleQueue[tuple[Unit, asyncio.Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="jarvis-sqlite-writer", daemon=True)
        self._stopped = False
        self.commits = 0
        self.shrink_wal = False
        """Set to cut the WAL back after the next commit."""

    def start(self) -> None:
        self._thread.start()

    async def stop(self) -> None:
        """After everything that was asked before."""
        self._stopped = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    async def do(self, unit: Callable[[sqlite3.Connection], T]) -> T:
        """Run a unit; durable when it returns. Its error is its own; a failed commit fails all that shared it."""
        if self._stopped:
            raise StoreUnavailable("the store is closed")
        if self._queue.qsize() >= QUEUE_LIMIT:
            raise StoreUnavailable("too many writes are waiting")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.put((unit, future))
        return await future

    # ------------------------------------------------------------ in the thread

    def _run(self) -> None:
        while True:
            batch, last = self._gather()
            if batch:
                self._finish(batch, self._transaction([unit for unit, _ in batch]))
            if last:
                return

    def _gather(self) -> tuple[list[tuple[Unit, asyncio.Future[Any]]], bool]:
        """Wait for one, then take what has gathered meanwhile: never a fixed window."""
        batch: list[tuple[Unit, asyncio.Future[Any]]] = []
        item = self._queue.get()
        while item is not None:
            batch.append(item)
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True

    def _transaction(self, units: list[Unit]) -> list[tuple[Any, BaseException | None]]:
        if len(units) == 1:
            return [self._alone(units[0])]
        results: list[tuple[Any, BaseException | None]] = []
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            results += [self._unit(unit) for unit in units]
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            return [(None, translate(error))] * len(units)
        self.commits += 1
        self._shrink()
        return results

    def _alone(self, unit: Unit) -> tuple[Any, BaseException | None]:
        """One that nothing else waits with needs no savepoint: it is the transaction."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            result = unit(self._connection)
            self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - as in ``_unit``
            self._roll_back()
            return None, translate(error) if isinstance(error, sqlite3.Error) else error
        self.commits += 1
        self._shrink()
        return result, None

    def _unit(self, unit: Unit) -> tuple[Any, BaseException | None]:
        self._connection.execute("SAVEPOINT unit")
        try:
            result = unit(self._connection)
        except sqlite3.Error as error:
            if not self._connection.in_transaction:
                raise
            self._connection.execute("ROLLBACK TO unit")
            return None, translate(error)
        except Exception as error:  # noqa: BLE001 - a unit fails alone, whatever it raises
            self._connection.execute("ROLLBACK TO unit")
            return None, error
        finally:
            if self._connection.in_transaction:
                self._connection.execute("RELEASE unit")
        return result, None

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except sqlite3.Error:
                return

    def _shrink(self) -> None:
        """Waits for no reader; a failure is as good as none."""
        if not self.shrink_wal:
            return
        self.shrink_wal = False
        try:
            self._connection.execute("PRAGMA busy_timeout=0")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")
        except sqlite3.Error:
            return

    @staticmethod
    def _finish(batch: list[tuple[Unit, asyncio.Future[Any]]], results: list[tuple[Any, BaseException | None]]) -> None:
        """Resolve all futures of a loop with one wake-up."""

        def resolve() -> None:
            for (_, future), (result, error) in zip(batch, results, strict=True):
                if future.done():
                    continue
                if error is not None:
                    future.set_exception(error)
                else:
                    future.set_result(result)

        try:
            batch[0][1].get_loop().call_soon_threadsafe(resolve)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return


def translate(error: sqlite3.Error) -> JarvisError:
    """The word of the domain for an error of the driver."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreCorrupt(f"the database is damaged: {error}")
    if code == sqlite3.SQLITE_FULL:
        return StoreUnavailable("the disk that holds the database is full")
    return StoreUnavailable(f"the database cannot be used: {error}")
