"""A real PostgreSQL server of a test's own: a private data directory and port, ended with the test that started it."""

import atexit
import functools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

PATIENCE_S = 30.0
PROGRAMS = ("postgres", "initdb", "pg_isready", "psql")


def binaries() -> Path:
    """Where ``postgres`` and ``initdb`` are; skips, or fails where nothing may be skipped, when they are not here."""
    found = shutil.which("postgres")
    folders = [*sorted(Path("/usr/lib/postgresql").glob("*/bin")), *([Path(found).resolve().parent] if found else [])]
    folders = [folder for folder in folders if all((folder / program).exists() for program in PROGRAMS)]
    if folders:
        return folders[-1]
    reason = "PostgreSQL is not installed (Debian: apt-get install postgresql)"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PostgresServer:
    """``sync``: whether a commit waits for the disk, which only tests of durability need; ``address``: where it listens."""

    def __init__(self, sync: bool = False, address: str = "127.0.0.1") -> None:
        self._binaries, self._sync, self.address = binaries(), sync, address
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="jpg-"))
        self._user = _unprivileged()
        self._process: subprocess.Popen[bytes] | None = None
        self._count = 0

    # ------------------------------------------------------------ life

    def create(self) -> None:
        """Make the cluster of databases and start it."""
        if self._user is not None:
            os.chown(self.directory, self._user.pw_uid, self._user.pw_gid)
        initdb = [
            self._binaries / "initdb",
            "-D",
            self._data,
            "-U",
            "jarvis",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-locale",
            "-N",
        ]
        subprocess.run(list(map(str, initdb)), check=True, capture_output=True, **as_unprivileged())
        with (self._data / "pg_hba.conf").open("a") as doors:
            doors.write(f"host all all {self.address}/24 trust\n")
        self.start()

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def start(self) -> None:
        """And wait until it answers."""
        settings = {
            "listen_addresses": self.address, "port": self.port, "unix_socket_directories": "",
            "fsync": "on" if self._sync else "off", "full_page_writes": "on" if self._sync else "off",
            "max_connections": 200, "shared_buffers": "64MB", "logging_collector": "off",
        }  # fmt: skip
        command = [str(self._binaries / "postgres"), "-D", str(self._data)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, **as_unprivileged())
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        ready = [str(self._binaries / "pg_isready"), "-q", "-h", self.address, "-p", str(self.port)]
        while subprocess.run(ready, check=False).returncode:
            assert self._process is not None
            assert self._process.poll() is None, (self.directory / "log").read_text()
            assert time.monotonic() < deadline, "PostgreSQL does not get ready"
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: end all sessions, then orderly; SIGTERM waits for them; SIGQUIT does not even write a checkpoint."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(PATIENCE_S)
            self._process = None

    def kill(self) -> None:
        """Every process of it at once, with -9."""
        assert self._process is not None
        for pid in [*_children(self._process.pid), self._process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait(PATIENCE_S)
        self._process = None
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    def pause(self, on: bool) -> None:
        """SIGSTOP or SIGCONT to every process of it."""
        assert self._process is not None
        for pid in [self._process.pid, *_children(self._process.pid)]:
            os.kill(pid, signal.SIGSTOP if on else signal.SIGCONT)

    def remove(self) -> None:
        """Nothing is left of it."""
        if self._process is not None and self._process.poll() is None:
            self.pause(on=False)
            self.stop(signal.SIGQUIT)
        shutil.rmtree(self.directory, ignore_errors=True)

    # ------------------------------------------------------------ databases

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://jarvis@{self.address}:{self.port}/{database}"

    def database(self) -> str:
        """The URL of a fresh, empty database."""
        self._count += 1
        name = f"jarvis{self._count}"
        self.psql(f"CREATE DATABASE {name}")
        return self.url(name)

    def psql(self, statement: str, database: str = "postgres") -> str:
        """What it answers, unaligned."""
        command = [str(self._binaries / "psql"), "-XAtq", self.url(database), "-c", statement]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@functools.cache
def shared() -> PostgresServer:
    """One for all tests of this process that only need databases; it ends with the process."""
    server = PostgresServer()
    atexit.register(server.remove)
    server.create()
    return server


def _unprivileged() -> pwd.struct_passwd | None:
    """PostgreSQL does not run as root."""
    if os.geteuid():
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return None


def as_unprivileged() -> dict[str, Any]:
    """How to start what refuses to be root."""
    user = _unprivileged()
    return {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": "/"}


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []
