"""doctor: test what Jarvis needs on this machine, and say what to do about what is missing."""

import asyncio
import os
import shutil
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

import click

from jarvis.config.settings import load
from jarvis.utils import server_file


@click.command()
def doctor() -> int:
    """Test what Jarvis needs on this machine."""
    settings, _ = load()
    results = [
        _python(), _state_directory(settings.state_dir), _fsync(settings.state_dir), _sqlite(), _cgroups(), _docker(),
        _gpus(), _server(settings.state_dir),
    ]  # fmt: skip
    for status, name, text in results:
        click.echo(f"{status:<5} {name:<16} {text}")
    return 1 if any(status == "FAIL" for status, _, _ in results) else 0


Result = tuple[str, str, str]


def _python() -> Result:
    return ("ok", "python", sys.version.split()[0])


def _state_directory(directory: Path) -> Result:
    existing = next(p for p in (directory, *directory.parents) if p.exists())
    if not os.access(existing, os.W_OK):
        return ("FAIL", "state directory", f"{existing} is not writable: choose another with JARVIS_HOME")
    free = shutil.disk_usage(existing).free
    status = "ok" if free > 1 << 30 else "warn"
    return (status, "state directory", f"{directory}, {free / (1 << 30):.1f} GiB free")


def _fsync(directory: Path) -> Result:
    existing = next(p for p in (directory, *directory.parents) if p.exists())
    times = []
    with tempfile.TemporaryFile(dir=existing) as file:
        for _ in range(20):
            file.write(b"x" * 4096)
            file.flush()
            begin = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - begin)
    return ("ok", "fsync", f"p50 {sorted(times)[10] * 1000:.2f} ms: what every acknowledgement costs")


def _sqlite() -> Result:
    version = sqlite3.sqlite_version_info
    fixed = version >= (3, 51, 3)
    text = sqlite3.sqlite_version + (
        "" if fixed else ": has the WAL-reset bug; Jarvis avoids it by writing from one connection"
    )
    return ("ok", "sqlite", text)


def _cgroups() -> Result:
    if Path("/sys/fs/cgroup/memory").is_dir():
        return (
            "ok" if os.geteuid() == 0 else "warn",
            "cgroups",
            "v1" + ("" if os.geteuid() == 0 else ": limits by a watchdog without root"),
        )
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        return ("ok", "cgroups", "v2")
    return ("warn", "cgroups", "none: memory limits are enforced by a watchdog")


def _docker() -> Result:
    from jarvis.worker.container_engine import find_socket, probe

    reason = asyncio.run(probe())
    if reason:
        return ("warn", "containers", f"{reason}: container tasks cannot run here")
    return ("ok", "containers", f"an engine answers at {find_socket()}")


def _gpus() -> Result:
    from jarvis.worker import gpu_devices

    return ("ok", "gpus", ", ".join(gpu_devices.names()) or "none")


def _server(directory: Path) -> Result:
    from jarvis.sdk.launch import alive

    content = server_file.read(directory)
    if alive(content):
        assert content is not None
        return ("ok", "server", f"answers at {content.url}")
    return ("warn", "server", "none of yours is running: 'jarvis up' starts one")
