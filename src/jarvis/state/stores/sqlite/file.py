"""The SQLite database as a file: its owner, its connections, what is refused of it, its checked copies."""

import json
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

from jarvis.core.errors import Conflict, StoreCorrupt, StoreUnavailable
from jarvis.state import migrations, queries
from jarvis.state.ownership import claim
from jarvis.state.persistence import ID_JUMP, INCARNATION_EPOCH
from jarvis.state.stores.sqlite.writer import BUSY_MS, CHECKPOINT_PAGES, translate

Q = queries.load("sqlite")
DATABASE = "jarvis.db"
MOVED = "moved.json"
"""Says that the database lives elsewhere, or is on its way there: this one is history."""
VACUUM_PAGES = 1000
SMALL = 64 * 1024 * 1024
"""Up to this size a database is checked at every start; above, when its last owner did not close it."""


def refuse_moved(directory: Path) -> None:
    """Raise Conflict where the database was moved away: two that go on would give ids and run tasks twice."""
    with suppress(FileNotFoundError):
        there = json.loads((directory / MOVED).read_text(encoding="utf-8"))
        hint = "set store.kind to postgres and store.url to its address"
        if not there["finished"]:
            hint = "its move was cut short: finish it with 'jarvis promote URL'"
        raise Conflict(f"the database of {directory} was moved to {there['to']}", hint)


def open_database(path: Path, synchronous: str, now: float) -> sqlite3.Connection:
    """The writer's connection. What exists is looked at read-only first, so that what is refused is left as it is."""
    try:
        if path.exists():
            _inspect(path)
        else:
            _create(path, synchronous, now)
        connection = connect(path, synchronous)
        try:
            _migrate(connection, path, now)
            connection.execute(Q["cluster_set_clean"], (0,))
            # Into the file itself: if the log goes missing after a crash, the file alone says that one is missing.
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        known = translate(error)
        raise type(known)(f"{path}: {known}") from None
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be used: {error.strerror}") from None
    except ValueError as error:  # text in it that is none
        raise StoreCorrupt(f"{path} is damaged: {error}") from None
    return connection


def _create(path: Path, synchronous: str, now: float) -> None:
    """Whole before it has its name, so that a start that was cut short leaves no half of a database."""
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        raise StoreCorrupt(f"{path} is missing, but its log {log.name} is there")
    new = path.with_name(f".{path.name}.new")
    _remove(new)
    with closing(connect(new, synchronous)) as connection:
        _migrate(connection, new, now)
        connection.execute(Q["cluster_insert"], (max(1, int(now) - INCARNATION_EPOCH),))
    os.replace(new, path)
    _sync_directory(path.parent)


def _inspect(path: Path) -> None:
    """Raise StoreCorrupt unless Jarvis may go on with this file."""
    logged = path.with_name(f"{path.name}-wal").exists()
    with closing(_read_only(path)) as connection:
        if not _recognised(connection, path) and not logged:
            error = StoreCorrupt(f"{path} was not closed by its last owner, and its log {path.name}-wal is missing")
            error.hint = (
                "put the log back, or restore a backup with 'jarvis restore FILE'; if nothing is missing (another "
                f"program folds the log in), go on with 'jarvis restore --force {path}'"
            )
            raise error


def _recognised(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the last owner closed it; raises when it is no sound database of this version or an older one."""
    size = path.stat().st_size
    if not size:
        raise StoreCorrupt(f"{path} is empty")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    newest = migrations.load("sqlite")[-1][0]
    if version > newest:
        error = StoreCorrupt(f"{path} has schema {version}; this version of Jarvis knows {newest}: use a newer Jarvis")
        error.hint = "run the Jarvis that wrote it, or restore a backup of before with 'jarvis restore FILE'"
        raise error
    if not version or connection.execute(Q["is_ours"]).fetchone() is None:
        raise StoreCorrupt(f"{path} is not a database of Jarvis")
    row = connection.execute(Q["cluster_get"]).fetchone()
    if row is None:
        raise StoreCorrupt(f"{path} is damaged: it does not know its own cluster")
    if not row[5] or size <= SMALL:
        _check_integrity(connection, path)
    return bool(row[5])


def _migrate(connection: sqlite3.Connection, path: Path, now: float) -> None:
    """Each step whole or not at all; a database that holds anything is copied before each."""
    have = begun_at = connection.execute("PRAGMA user_version").fetchone()[0]
    for number, _, sql in migrations.load("sqlite"):
        if number <= have:
            continue
        if begun_at:
            folder = path.parent / "backups"
            folder.mkdir(mode=0o700, exist_ok=True)
            back_up(connection, folder / f"before-{number:04}-{int(now)}.db")
        connection.executescript(f"BEGIN IMMEDIATE;\n{sql}\nPRAGMA user_version = {number};\nCOMMIT;")
        have = number


def connect(path: Path, synchronous: str, read_only: bool = False) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    try:
        if not read_only:
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
            connection.execute("PRAGMA journal_mode=WAL")
            os.chmod(path, 0o600)
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute(f"PRAGMA wal_autocheckpoint={0 if read_only else CHECKPOINT_PAGES}")
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")
        connection.execute("PRAGMA journal_size_limit=67108864")
        connection.execute(f"PRAGMA query_only={int(read_only)}")
    except BaseException:
        connection.close()
        raise
    return connection


def _read_only(path: Path) -> sqlite3.Connection:
    """Changes nothing: a log that another process left is read and not folded in; where there is none, none is made."""
    how = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "immutable=1"
    return sqlite3.connect(f"file:{quote(str(path))}?{how}", uri=True)


def _check_integrity(connection: sqlite3.Connection, path: Path) -> None:
    problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if problem != "ok":
        raise StoreCorrupt(f"{path} is damaged: {' '.join(problem.split())}")


def back_up(source: sqlite3.Connection, path: Path) -> None:
    """A consistent copy, checked, which takes its name only when it is whole and on disk."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        _remove(temporary)
        with closing(sqlite3.connect(temporary)) as target:
            source.backup(target)
            _check_integrity(target, temporary)
        os.chmod(temporary, 0o600)
        os.replace(temporary, path)
        _sync_directory(path.parent)
    except (sqlite3.Error, OSError) as error:
        temporary.unlink(missing_ok=True)
        raise StoreUnavailable(f"no backup was made in {path}: {error}") from None


def restore(backup: Path, directory: Path, force: bool = False, clock: Callable[[], float] = time.time) -> int:
    """Put a checked copy of a backup in the place of a database; returns the new incarnation."""
    lock = claim(directory)
    try:
        target, new = directory / DATABASE, directory / f"{DATABASE}.restoring"
        if target.exists() and not force:
            raise Conflict(f"{target} exists", "say --force to put the backup in its place (it is kept beside it)")
        _remove(new)
        try:
            incarnation = _new_life(backup, new, int(clock()) - INCARNATION_EPOCH)
        except sqlite3.Error as error:
            _remove(new)
            raise StoreCorrupt(f"{backup} is not a usable backup: {error}") from None
        for suffix in ("", "-wal", "-shm"):
            old = directory / f"{DATABASE}{suffix}"
            if old.exists():
                os.replace(old, directory / f"replaced-{int(clock())}.db{suffix}")
        os.replace(new, target)
        _sync_directory(directory)
        return incarnation
    finally:
        os.close(lock)


def vacuum_step(c: sqlite3.Connection) -> int:
    """Give some free pages back to the file system; how many were left before."""
    free = int(c.execute("PRAGMA freelist_count").fetchone()[0])
    for _ in range(min(free, VACUUM_PAGES)):
        # One page each: it has no columns, so the driver steps it once, whatever number it is given.
        c.execute("PRAGMA incremental_vacuum(1)")
    return free


def _new_life(backup: Path, new: Path, at_least: int) -> int:
    with closing(_read_only(backup)) as source:
        _recognised(source, backup)
        back_up(source, new)
    with closing(connect(new, "FULL")) as copy:
        copy.execute("BEGIN IMMEDIATE")
        incarnation = bump(copy, at_least)
        copy.execute(Q["cluster_set_clean"], (1,))
        copy.execute("COMMIT")
        copy.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return incarnation


def bump(c: sqlite3.Connection, at_least: int) -> int:
    c.execute(Q["incarnation_bump"], (at_least,))
    c.execute(Q["task_id_begin"])
    c.execute(Q["task_id_jump"], (ID_JUMP,))
    return int(c.execute(Q["cluster_get"]).fetchone()[0])


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(f"{path.name}{suffix}").unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    """A name is durable when its directory is."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
