"""A file that is larger than what anybody may keep in memory of it: up to a task, through it, and down again."""

import hashlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.e2e.cluster.harness import Home

MB = 10**6
ROOM = 80 * MB
"""What a large file may take more than a small one, of client, server and agent each: pieces on their way and what allocators
keep of them."""


def peak(pid: int) -> int:
    """Bytes that a process had resident at most."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def make(path: Path, size: int) -> str:
    """Bytes that do not repeat; their digest."""
    whole, left = hashlib.sha256(), size
    with path.open("wb") as out:
        while left:
            block = os.urandom(min(left, 4 * MB))
            whole.update(block)
            out.write(block)
            left -= len(block)
    return whole.hexdigest()


def digest_of(path: Path) -> str:
    with path.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def run(home: Home, cwd: Path) -> int:
    """Send the file along and bring a copy back; the most memory that the client had."""
    command = [sys.executable, "-m", "jarvis.cli", "run", "--push", "big", "--push-limit", "20G", "--pull", "copy"]
    with (cwd / "said").open("wb") as said:
        client = subprocess.Popen(
            [*command, "--", "mv", "big", "copy"], env=home.env, cwd=cwd, stdout=said, stderr=said
        )
        _, status, used = os.wait4(client.pid, 0)
        client.returncode = os.waitstatus_to_exitcode(status)
    assert client.returncode == 0, (cwd / "said").read_text() + home.logs()
    return used.ru_maxrss * 1024


def there_and_back(home: Home, folder: Path, size: int) -> None:
    small = folder / "small"
    small.mkdir()
    make(small / "big", 3 * MB)
    home.jarvis("up", "--cpus", "2")
    agent, server = home.agent(), home.server.pid
    assert agent is not None
    before = (run(home, small), peak(server), peak(agent))
    digest, begun = make(folder / "big", size), time.monotonic()
    after = (run(home, folder), peak(server), peak(agent))
    took = time.monotonic() - begun
    assert digest_of(folder / "copy") == digest
    grown = [int((b - a) / MB) for a, b in zip(before, after, strict=True)]
    print(  # noqa: T201 - the figure is the point
        f"{size / MB:,.0f} MB there and back in {took:.0f} s; client, server, agent: {after} bytes, grown by {grown} MB"
    )
    assert max(grown) * MB < ROOM


@pytest.mark.timeout(300)
def test_a_large_file_takes_no_more_memory_than_a_small_one(fresh: Home, tmp_path: Path) -> None:
    there_and_back(fresh, tmp_path, 256 * MB)


@pytest.mark.soak
@pytest.mark.skipif(not os.environ.get("JARVIS_SOAK"), reason="10 GB there and back: set JARVIS_SOAK=1")
@pytest.mark.timeout(7200)
def test_ten_gigabytes_take_no_more_memory_either(fresh: Home, tmp_path: Path) -> None:
    there_and_back(fresh, tmp_path, 10_000 * MB)
