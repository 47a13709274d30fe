"""The power goes while a process acknowledges writes: what it acknowledged is there when the disk comes back.

The disk is an ext4 image that is stopped at once, without its journal; the judge is the list of what the process printed.
The same test with ``synchronous=NORMAL`` must lose rows: that shows that the cut is one.
"""

import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.disks import CuttableDisk, cuttable_disk

from jarvis.state.stores.sqlite.file import DATABASE

SOAK = bool(os.environ.get("JARVIS_SOAK"))
CUTS = int(os.environ.get("JARVIS_CUTS") or (200 if SOAK else 15))
pytestmark = [pytest.mark.root, pytest.mark.timeout(7200 if SOAK else 600)]

ROWS = """
import asyncio, sys
from pathlib import Path
from tests.contract.harness import insert, new
from jarvis.state.stores.sqlite import SqliteStore

async def client(store):
    while True:
        for ident in await insert(store, new(env={"pad": "x" * 500})):
            print(ident, flush=True)

async def main():
    store = SqliteStore(Path(sys.argv[1]), synchronous=sys.argv[2])
    await store.open()
    await asyncio.gather(*(client(store) for _ in range(4)))

asyncio.run(main())
"""
BLOBS = """
import asyncio, os, sys
from pathlib import Path
from tests.contract.harness import chunks
from jarvis.state.blob_stores.directory import DirectoryBlobStore

async def main():
    blobs = DirectoryBlobStore(Path(sys.argv[1]))
    while True:
        print(await blobs.put(os.urandom(4).hex(), os.urandom(20_000)), flush=True)
        print((await blobs.put_stream("p", chunks(os.urandom(9_000), os.urandom(9_000)), 1 << 20))[0], flush=True)

asyncio.run(main())
"""


def acknowledged_until_cut(disk: CuttableDisk, script: str, *args: str) -> list[str]:
    """Run a process that prints what it has acknowledged; cut the power at a random moment once it does.

    What it says while the power goes counts for nothing: here the machine outlives its disk, and a sync that is under way
    at that moment may come back as if it had been done.
    """
    root = Path(__file__).parents[2]
    child = subprocess.Popen(
        [sys.executable, "-c", script, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stderr is not None
    lines = [child.stdout.readline()]
    assert lines[0], f"it ended before it acknowledged anything: {child.stderr.read()}"
    reader = threading.Thread(target=lambda: lines.extend(child.stdout or ()))
    reader.start()
    time.sleep(random.uniform(0.0, 0.4))
    heard = len(lines)
    disk.cut()
    child.kill()
    child.wait()
    reader.join()
    child.stdout.close()
    child.stderr.close()
    return [line.strip() for line in lines[:heard]]


def rows_lost(disk: CuttableDisk, synchronous: str) -> tuple[int, int]:
    """(acknowledged, of those lost) in one cut."""
    state = disk.path / "state"
    acknowledged = {int(line) for line in acknowledged_until_cut(disk, ROWS, str(state), synchronous)}
    disk.unmount()
    disk.mount()
    connection = sqlite3.connect(state / DATABASE)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        found = {row[0] for row in connection.execute("SELECT id FROM task")}
        connection.execute("DELETE FROM task")  # ids go on rising, so that no cut is answered for by an older one
        connection.execute("UPDATE cluster SET clean = 1")
        connection.commit()
    finally:
        connection.close()
    assert acknowledged
    return len(acknowledged), len(acknowledged - found)


def test_no_acknowledged_row_is_lost(tmp_path: Path) -> None:
    total = 0
    with cuttable_disk(tmp_path) as disk:
        for cut in range(CUTS):
            acknowledged, lost = rows_lost(disk, "FULL")
            assert lost == 0, f"cut {cut}: {lost} of {acknowledged}"
            total += acknowledged
    print(f"cuts={CUTS} acknowledged={total} lost=0")  # noqa: T201 - the figure is the point


def test_a_disk_comes_back_although_another_mount_namespace_holds_it(tmp_path: Path) -> None:
    """As services and containers that start meanwhile do."""
    with cuttable_disk(tmp_path) as disk:
        (disk.path / "file").write_text("kept")
        os.sync()
        with subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", "echo; exec sleep 60"], stdout=subprocess.PIPE
        ) as holder:
            assert holder.stdout is not None
            holder.stdout.readline()
            disk.cut()
            disk.unmount()
            disk.mount()
            found = (disk.path / "file").read_text()
            holder.kill()
        assert found == "kept"


def test_without_a_sync_at_each_commit_rows_are_lost(tmp_path: Path) -> None:
    with cuttable_disk(tmp_path) as disk:
        for cut in range(1, 2 * CUTS + 1):
            acknowledged, lost = rows_lost(disk, "NORMAL")
            if lost:
                print(f"cuts={cut} acknowledged={acknowledged} lost={lost}")  # noqa: T201 - the figure is the point
                return
    pytest.fail("no cut lost anything without syncs: it is no power cut")


def test_an_acknowledged_blob_is_whole(tmp_path: Path) -> None:
    import hashlib

    total = 0
    with cuttable_disk(tmp_path) as disk:
        for cut in range(CUTS):
            root = disk.path / f"blobs{cut % 3}"
            acknowledged = acknowledged_until_cut(disk, BLOBS, str(root))
            disk.unmount()
            disk.mount()
            found = {}
            for path in (p for p in root.rglob("*") if p.is_file() and not p.name.startswith(".")):
                found[path.parent.name + path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
                path.unlink()
            assert all(digest == content for digest, content in found.items()), "a name is given to whole content alone"
            lost = [digest for digest in acknowledged if digest not in found]
            assert acknowledged and not lost, f"cut {cut}: {len(lost)} of {len(acknowledged)}"
            total += len(acknowledged)
    print(f"cuts={CUTS} acknowledged={total} lost=0")  # noqa: T201 - the figure is the point
