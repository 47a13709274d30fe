"""The one thread that writes to a SQLite database: group commit, and the only one that checkpoints.

One writer, because SQLite before 3.51.3 can lose commits when two connections checkpoint and commit at once in WAL mode
(sqlite.org/wal.html, "the WAL-reset bug").
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from jarvis.core.errors import JarvisError, StoreCorrupt, StoreUnavailable

T = TypeVar("T")
Unit = Callable[[sqlite3.Connection], Any]

BUSY_MS = 10_000
"""How long a statement waits for a lock of another process."""
QUEUE_LIMIT = 10_000
"""Units that may wait; beyond, submissions are refused rather than kept in memory."""
FOLLOW_S = 0.002
"""How long a commit waits for what is done about a unit that was told of early: a turn of an idle leader takes a tenth of that."""
CHECKPOINT_PAGES = 1000
"""Pages in the WAL after which a commit of the writer, once synced, copies them back into the database: few, as what comes next
waits meanwhile."""


class Work(NamedTuple):
    """A unit, and who waits for it."""

    unit: Unit
    future: asyncio.Future[Any]
    early: Callable[[Any], None] | None
    """Told what came of it before that is durable."""


Result = tuple[Any, BaseException | None]


class Writer:
    """Runs units of work, each in its own savepoint, as many as have gathered in one synced transaction."""

    def __init__(self, connection: sqlite3.Connection, mend: Unit = lambda connection: None) -> None:
        """``mend`` is the first thing in the transaction after one that failed."""
        self._connection, self._mend = connection, mend
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="jarvis-sqlite-writer", daemon=True)
        self._stopped = self._over = self._failed = False
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

    async def do(self, unit: Callable[[sqlite3.Connection], T], early: Callable[[T], None] | None = None) -> T:
        """Run a unit; durable when it returns. Its error is its own; a failed commit fails all that shared it. Where nothing else
        waits with it ``early`` is told, on this loop, what came of it, and the commit waits a moment for what is done about it."""
        if self._stopped:
            raise StoreUnavailable("the store is closed")
        if self._queue.qsize() >= QUEUE_LIMIT:
            raise StoreUnavailable("too many writes are waiting")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.put(Work(unit, future, early))
        return await future

    # ------------------------------------------------------------ in the thread

    def _run(self) -> None:
        while not self._over:
            if batch := self._gather():
                self._finish(batch, self._transaction(batch))

    def _gather(self) -> list[Work]:
        """Wait for one, then take what has gathered meanwhile: never a fixed window."""
        batch: list[Work] = []
        work = self._queue.get()
        while work is not None:
            batch.append(work)
            try:
                work = self._queue.get_nowait()
            except queue.Empty:
                return batch
        self._over = True
        return batch

    def _transaction(self, batch: list[Work]) -> list[Result]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            if self._failed:
                self._mend(self._connection)
            results = self._alone(batch) if len(batch) == 1 else [self._unit(work) for work in batch]
            self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - as in ``_unit``
            self._roll_back()
            self._failed = True
            return [(None, translate(error) if isinstance(error, sqlite3.Error) else error)] * len(batch)
        self._failed = False
        self.commits += 1
        self._shrink()
        return results

    def _alone(self, batch: list[Work]) -> list[Result]:
        """One that nothing else waits with needs no savepoint: it is the transaction. After one that was told of early the next
        one goes along, which is what is done about it unless there is something else to do."""
        (work,) = batch
        results: list[Result] = [(work.unit(self._connection), None)]
        if work.early is not None:
            _soon(work, work.early, results[0][0])
            if (following := self._next()) is not None:
                batch.append(following)
                results.append(self._unit(following))
        return results

    def _next(self) -> Work | None:
        try:
            work = self._queue.get(timeout=FOLLOW_S)
        except queue.Empty:
            return None
        self._over = work is None
        return work

    def _unit(self, work: Work) -> Result:
        self._connection.execute("SAVEPOINT unit")
        try:
            result = work.unit(self._connection)
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
    def _finish(batch: list[Work], results: list[Result]) -> None:
        """Resolve all futures of a loop with one wake-up."""

        def resolve() -> None:
            for work, (result, error) in zip(batch, results, strict=True):
                if work.future.done():
                    continue
                if error is not None:
                    work.future.set_exception(error)
                else:
                    work.future.set_result(result)

        _soon(batch[0], resolve)


def _soon(work: Work, call: Callable[..., None], *args: object) -> None:
    """On the loop where somebody waits for this."""
    try:
        work.future.get_loop().call_soon_threadsafe(call, *args)
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
