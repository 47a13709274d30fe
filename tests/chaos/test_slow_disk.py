"""A disk that takes seconds for each sync under a running server: nobody is lied to, no node is given up, nothing is lost, and
it goes on by itself when the disk does. The slowness is put in front of the C library, since no file system here has any."""

import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.chaos.load import Load, ends
from tests.chaos.test_full_disk import ask, status_of
from tests.e2e.cluster.harness import Home, home, wait_for

pytestmark = pytest.mark.timeout(180)
SOURCE = Path(__file__).with_name("slow_sync.c")


class SlowDisk:
    """``ms`` more for each sync of whatever is started with it."""

    def __init__(self, directory: Path) -> None:
        self.library, self._told = directory / "slow_sync.so", directory / "ms"
        self.take(0)

    def take(self, ms: int) -> None:
        fresh = self._told.with_suffix(".new")
        fresh.write_text(str(ms))
        fresh.rename(self._told)

    @property
    def env(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.library), "SLOW_SYNC": str(self._told)}


@pytest.fixture
def disk(tmp_path: Path) -> SlowDisk:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler, so no disk can be made slow")
    made = SlowDisk(tmp_path)
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", str(made.library), str(SOURCE)], check=True)
    return made


@pytest.fixture
def slow(disk: SlowDisk) -> Iterator[Home]:
    """A cluster on that disk."""
    with home() as made:
        made.env |= disk.env
        made.jarvis("up", "--cpus", "16")
        yield made
        disk.take(0)


def node_states(made: Home) -> set[str]:
    return {node["state"] for node in ask(made, "/nodes")[1]["items"]}


@pytest.mark.parametrize(("ms", "seconds"), [(300, 4.0), (8_000, 10.0)])
def test_a_disk_that_takes_its_time(ms: int, seconds: float, slow: Home, disk: SlowDisk, tmp_path: Path) -> None:
    """Slower than a heartbeat is answered, and so slow that whoever waits gives up."""
    written = tmp_path / "written"
    load = Load([slow], written)
    try:
        wait_for(lambda: len(load.acknowledged) > 50, "the load runs")
        disk.take(ms)
        begun, before = time.monotonic(), len(load.acknowledged)
        seen: Counter[str] = Counter()
        while time.monotonic() - begun < seconds:
            seen.update(node_states(slow))
            seen[f"health {status_of(slow, 'database')}"] += 1
            time.sleep(0.2)
        during = len(load.acknowledged) - before
        disk.take(0)
        after = len(load.acknowledged)
        wait_for(lambda: len(load.acknowledged) > after + 50, "it takes tasks again")
        wait_for(lambda: status_of(slow, "database") == "ok", "its health sees it")
    finally:
        load.stop()
    print(f"{ms} ms a sync: {during} acknowledged in {seconds:g} s, then {len(load.acknowledged) - after} more; {seen}")  # noqa: T201
    assert ms < 5_000 or seen["health down"], "health says so"
    assert set(node_states(slow)) == {"ready"}
    assert "lost" not in seen and "suspect" not in seen, seen
    with slow.client() as client:
        assert set(ends(client, load.acknowledged).values()) == {"succeeded"}
    ran = Counter(map(int, written.read_text().split()))
    assert [i for i in load.acknowledged if i not in ran] == [], "nothing acknowledged is lost"
    assert [i for i, n in ran.items() if n > 1] == [], "nothing ran twice"
