"""Power cuts on a real file system: what was acknowledged is there after the journal's replay.

A loop-mounted ext4 is shut down without flushing its journal (FS_IOC_SHUTDOWN with NOLOGFLUSH, as xfstests do): from then on
nothing reaches the disk, and what was only in the page cache is gone at the next mount.
"""

import contextlib
import fcntl
import os
import random
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

SOAK = bool(os.environ.get("JARVIS_SOAK"))
CUTS = 200 if SOAK else 12
FS_IOC_SHUTDOWN, NOLOGFLUSH = 0x8004587D, 2
pytestmark = [
    pytest.mark.timeout(1800 if SOAK else 300),
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system needs uid 0"),
]

COMMITTER = """
import asyncio, os, sys
from pathlib import Path
from jarvis.core.task import NewTask, TaskSpec
from jarvis.state.blob_stores.directory import DirectoryBlobStore
from jarvis.state.store import Submission
from jarvis.state.stores.sqlite import SqliteStore

async def main():
    place = Path(sys.argv[1])
    store, blobs = SqliteStore(place, synchronous=sys.argv[2]), DirectoryBlobStore(place / "blobs")
    await store.open()
    spec = TaskSpec(name="x", env={"pad": "x" * 500})
    async def tasks(name):
        while True:
            (told,) = await store.task_insert_many([Submission([NewTask(uuid=name, project="p", user="u", spec=spec)] * 3)])
            print("task", *told.ids, flush=True)
    async def bodies():
        while True:
            print("blob", await blobs.put("p", os.urandom(5000)), flush=True)
    await asyncio.gather(bodies(), *(tasks(str(n)) for n in range(8)))

asyncio.run(main())
"""


class Disk:
    """An ext4 in a file."""

    def __init__(self, folder: Path) -> None:
        self.image, self.place = folder / "image", folder / "mount"
        self.place.mkdir()
        with self.image.open("wb") as file:
            file.truncate(512 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", str(self.image)], check=True)
        self.mount()

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", str(self.image), str(self.place)], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", str(self.place)], check=True)

    def cut(self) -> None:
        descriptor = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, FS_IOC_SHUTDOWN, struct.pack("I", NOLOGFLUSH))
        finally:
            os.close(descriptor)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path)
    yield made
    made.unmount()


class Ledger:
    """What a process said that it had stored."""

    def __init__(self) -> None:
        self.tasks: set[int] = set()
        self.blobs: set[str] = set()

    def read(self, lines: Iterator[str]) -> None:
        for line in lines:
            if line.endswith("\n"):  # a line that was cut in the middle told nobody anything
                kind, *words = line.split()
                self.tasks.update(map(int, words)) if kind == "task" else self.blobs.update(words)


def one_cut(disk: Disk, synchronous: str, ledger: Ledger, seconds: float) -> None:
    """Write, cut the power after so many seconds of writing, and mount again."""
    before = len(ledger.tasks)
    process = subprocess.Popen(
        [sys.executable, "-c", COMMITTER, str(disk.place / "state"), synchronous], stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    reader = threading.Thread(target=ledger.read, args=(process.stdout,))
    reader.start()
    deadline = time.monotonic() + 30
    while len(ledger.tasks) <= before and time.monotonic() < deadline:
        time.sleep(0.005)
    assert len(ledger.tasks) > before, "it never stored anything"
    time.sleep(seconds)
    disk.cut()
    process.kill()
    process.wait()
    reader.join()
    process.stdout.close()
    disk.unmount()
    disk.mount()


def lost_tasks(disk: Disk, ledger: Ledger) -> set[int]:
    with contextlib.closing(sqlite3.connect(disk.place / "state" / "jarvis.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return ledger.tasks - {row[0] for row in database.execute("SELECT id FROM task")}


def lost_blobs(disk: Disk, ledger: Ledger) -> set[str]:
    whole = set()
    for path in (disk.place / "state" / "blobs").rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            whole.add(sha256(path.read_bytes()).hexdigest())
    return ledger.blobs - whole


def test_nothing_acknowledged_is_lost(disk: Disk) -> None:
    rng, ledger = random.Random(), Ledger()
    for _ in range(CUTS):
        one_cut(disk, "FULL", ledger, rng.uniform(0.0, 0.3))
        assert lost_tasks(disk, ledger) == set()
        assert lost_blobs(disk, ledger) == set()
    print(f"cuts={CUTS} tasks={len(ledger.tasks)} bodies={len(ledger.blobs)} lost=0")  # noqa: T201 - the figure


def test_the_test_sees_a_store_that_does_not_sync(disk: Disk) -> None:
    """``synchronous=NORMAL`` leaves commits in the page cache: a test that finds nothing lost would prove nothing."""
    for cut in range(1, CUTS + 1):
        ledger = Ledger()
        one_cut(disk, "NORMAL", ledger, 0.1)
        if lost := lost_tasks(disk, ledger):
            print(f"cut {cut}: {len(lost)} of {len(ledger.tasks)} acknowledged tasks lost")  # noqa: T201 - the figure
            return
    pytest.fail(f"{CUTS} cuts without a sync lost nothing: the cuts are no cuts")
