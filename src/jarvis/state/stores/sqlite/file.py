"""The SQLite database as a file: its owner, its connections, its checked copies."""

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from jarvis.core.errors import Conflict, StateDirectoryInUse, StoreCorrupt, StoreUnavailable
from jarvis.state import queries
from jarvis.state.persistence import ID_JUMP, INCARNATION_EPOCH

Q = queries.load("sqlite")
DATABASE = "jarvis.db"
VACUUM_PAGES = 1000
BUSY_MS = 10_000


def lock_directory(directory: Path) -> int:
    """Own the state directory for life; raises :class:`StateDirectoryInUse` naming who does."""
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        error = StateDirectoryInUse(f"{directory} is in use by the server with pid {owner}")
        error.hint = "use that server (jarvis ls), stop it (jarvis down), or choose another directory with JARVIS_HOME"
        raise error from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def connect(path: Path, synchronous: str, read_only: bool = False) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    if not read_only:
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        connection.execute("PRAGMA journal_mode=WAL")
        os.chmod(path, 0o600)
    connection.execute(f"PRAGMA synchronous={synchronous}")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")
    connection.execute("PRAGMA journal_size_limit=67108864")
    connection.execute(f"PRAGMA query_only={int(read_only)}")
    return connection


def check_integrity(connection: sqlite3.Connection, path: Path) -> None:
    problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if problem != "ok":
        raise StoreCorrupt(f"{path} is damaged: {problem}")


def back_up(source: sqlite3.Connection, path: Path) -> None:
    """A consistent copy, checked, which takes its name only when it is whole."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        target = sqlite3.connect(temporary)
        try:
            source.backup(target)
            check_integrity(target, temporary)
        finally:
            target.close()
        os.chmod(temporary, 0o600)
        os.replace(temporary, path)
    except (sqlite3.Error, OSError) as error:
        temporary.unlink(missing_ok=True)
        raise StoreUnavailable(f"no backup was made in {path}: {error}") from None


def restore(backup: Path, directory: Path, force: bool = False, clock: Callable[[], float] = time.time) -> int:
    """Put a checked copy of a backup in the place of a database; returns the new incarnation."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = lock_directory(directory)
    try:
        target, new = directory / DATABASE, directory / f"{DATABASE}.restoring"
        if target.exists() and not force:
            raise Conflict(f"{target} exists", "say --force to put the backup in its place (it is kept beside it)")
        new.unlink(missing_ok=True)
        try:
            source = sqlite3.connect(f"file:{backup}?mode=ro", uri=True)
            check_integrity(source, backup)
            back_up(source, new)
            source.close()
            copy = connect(new, "FULL")
            copy.execute("BEGIN IMMEDIATE")
            incarnation = bump(copy, int(clock()) - INCARNATION_EPOCH)
            copy.execute("COMMIT")
            copy.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            copy.close()
        except sqlite3.Error as error:
            raise StoreCorrupt(f"{backup} is not a usable backup: {error}") from None
        for suffix in ("", "-wal", "-shm"):
            old = directory / f"{DATABASE}{suffix}"
            if old.exists():
                os.replace(old, directory / f"replaced-{int(clock())}.db{suffix}")
        os.replace(new, target)
        return incarnation
    finally:
        os.close(lock)


def vacuum_step(c: sqlite3.Connection) -> int:
    """Give some free pages back to the file system; how many were left before."""
    free = int(c.execute("PRAGMA freelist_count").fetchone()[0])
    if free:
        c.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()
    return free


def bump(c: sqlite3.Connection, at_least: int) -> int:
    c.execute(Q["incarnation_bump"], (at_least,))
    c.execute(Q["task_id_jump"], (ID_JUMP,))
    return int(c.execute(Q["cluster_get"]).fetchone()[0])
