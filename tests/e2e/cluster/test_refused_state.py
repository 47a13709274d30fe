"""A state directory that cannot be used: one message that names it and the way out, no traceback, and nothing is left running."""

import os
import sqlite3
from pathlib import Path

import pytest
from tests.disks import small_disk
from tests.e2e.cluster.harness import Home

from jarvis.state.stores.sqlite.file import DATABASE

pytestmark = pytest.mark.timeout(180)
COMMANDS = [("up",), ("up", "--foreground"), ("server", "--no-node")]


def refused(made: Home, command: tuple[str, ...], *words: str) -> None:
    done = made.jarvis(*command, code=1)
    assert done.stdout == ""
    assert done.stderr.startswith("jarvis: ")
    assert "Traceback" not in done.stderr
    assert done.stderr.count("jarvis: ") == 1
    for word in words:
        assert word in done.stderr
    assert made.processes() == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_damaged_database(fresh: Home, command: tuple[str, ...]) -> None:
    fresh.directory.mkdir()
    path = fresh.directory / DATABASE
    path.write_bytes(b"no database" * 1000)
    refused(fresh, command, str(path), "jarvis restore FILE")
    assert path.read_bytes() == b"no database" * 1000


@pytest.mark.parametrize("command", COMMANDS)
def test_a_newer_schema_and_then_the_right_one(fresh: Home, command: tuple[str, ...]) -> None:
    fresh.jarvis("up", "--cpus", "1")
    fresh.jarvis("down")
    connection = sqlite3.connect(fresh.directory / DATABASE)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute("PRAGMA user_version = 999")
    refused(fresh, command, str(fresh.directory / DATABASE), "schema 999", "newer Jarvis")
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    fresh.jarvis("up", "--cpus", "1")


def test_what_is_told_to_stop_closes_its_database(fresh: Home) -> None:
    fresh.jarvis("up", "--cpus", "1")
    fresh.jarvis("down")
    assert not (fresh.directory / f"{DATABASE}-wal").exists()
    assert not (fresh.directory / "server.json").exists()
    connection = sqlite3.connect(fresh.directory / DATABASE)
    assert connection.execute("SELECT clean FROM cluster").fetchone() == (1,)
    connection.close()


def test_a_directory_that_another_server_has(fresh: Home, tmp_path: Path) -> None:
    fresh.jarvis("up", "--cpus", "1")
    pid = fresh.server.pid
    done = fresh.jarvis("server", "--no-node", code=1)
    assert f"pid {pid}" in done.stderr
    assert "jarvis down" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("jarvis: ") == 1
    assert fresh.server.pid == pid, "the first goes on"
    assert fresh.jarvis("run", "--", "echo", "on").stdout == "on\n"


@pytest.mark.root
@pytest.mark.parametrize("command", COMMANDS)
def test_a_read_only_directory(fresh: Home, command: tuple[str, ...]) -> None:
    with small_disk(fresh.directory, 1 << 20) as disk:
        disk.read_only()
        refused(fresh, command, str(fresh.directory), os.strerror(30))


@pytest.mark.root
@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk(fresh: Home, command: tuple[str, ...]) -> None:
    with small_disk(fresh.directory, 1 << 20) as disk:
        disk.fill()
        refused(fresh, command, str(fresh.directory))
        disk.drain()
