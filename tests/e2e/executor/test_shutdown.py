"""How pools end: CPython's tests of shutdown, anew."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.e2e.cluster.harness import Home, wait_for
from tests.e2e.executor import calls

from jarvis.sdk.client import Client
from jarvis.sdk.functions import Executor

PATIENCE = 60.0
pytestmark = pytest.mark.timeout(120)
ABS = [5, 4, 3, 2, 1, 0, 1, 2, 3, 4]


def program(cluster: Home, text: str) -> subprocess.CompletedProcess[str]:
    """A program of its own on the cluster, which must end by itself and say no word of errors unless the test expects it."""
    return subprocess.run(
        [sys.executable, "-c", text], env=cluster.env, capture_output=True, text=True, timeout=90, check=False,
        cwd=Path(__file__).parents[3],
    )  # fmt: skip


def caller_threads(pool: Executor) -> list[threading.Thread]:
    return pool._caller._threads


def test_no_call_after_shutdown(client: Client) -> None:
    pool = Executor(client=client)
    pool.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(pow, 2, 5)


WRITES = """
import sys, time
from jarvis import Executor
def write(path, text):
    time.sleep(0.5)
    open(path, "w").write(text)
pool = Executor(max_workers=3)
pool.submit(write, {path!r}, "apple")
"""


def test_a_program_waits_for_its_calls_before_it_ends(cluster: Home, tmp_path: Path) -> None:
    done = program(cluster, WRITES.format(path=str(tmp_path / "out")))
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out").read_text() == "apple"


def test_a_program_waits_for_its_calls_after_shutdown_without_waiting(cluster: Home, tmp_path: Path) -> None:
    done = program(cluster, WRITES.format(path=str(tmp_path / "out")) + "pool.shutdown(wait=False)\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out").read_text() == "apple"


def test_a_program_ends_after_it_cancelled_what_waits(cluster: Home, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = program(cluster, WRITES.format(path=str(out)) + "pool.shutdown(wait=False, cancel_futures=True)\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert not out.exists() or out.read_text() == "apple"


def test_no_call_while_the_program_ends(cluster: Home) -> None:
    done = program(
        cluster,
        "import atexit\n"
        "@atexit.register\n"
        "def last():\n"
        "    try:\n"
        "        pool.submit(id, None)\n"
        "    except RuntimeError:\n"
        "        print('refused')\n"
        "        raise\n"
        "from jarvis import Executor\n"
        "pool = Executor(max_workers=3)\n"
        "pool.submit(id, 42).result()\n",
    )
    assert "RuntimeError: cannot schedule new futures" in done.stderr
    assert done.stdout == "refused\n"


def test_children_that_are_forked_meanwhile_end(cluster: Home) -> None:
    done = program(
        cluster,
        "import multiprocessing, warnings\n"
        "from jarvis import Executor\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"
        "fork = multiprocessing.get_context('fork')\n"
        "with Executor(max_workers=2) as pool:\n"
        "    for _ in range(20):\n"
        "        future = pool.submit(abs, -1)\n"
        "        child = fork.Process(target=tuple)\n"
        "        child.start()\n"
        "        child.join(30)\n"
        "        assert child.exitcode == 0, child.exitcode\n"
        "        assert future.result(30) == 1\n",
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_shutdown_waits_for_all(client: Client) -> None:
    pool = Executor(max_workers=5, client=client)
    futures = [pool.submit(abs, -x) for x in range(50)]
    pool.shutdown()
    assert all(future.done() for future in futures)
    assert [future.result() for future in futures] == list(range(50))


def test_shutdown_cancels_what_has_not_begun(client: Client) -> None:
    pool = Executor(max_workers=5, client=client)
    futures = [pool.submit(time.sleep, 0.1) for _ in range(50)]
    futures[0].result(PATIENCE)
    pool.shutdown(cancel_futures=True)
    others = [future for future in futures if not future.cancelled()]
    assert len(futures) - len(others) > 20
    assert all(future.done() and future.exception() is None for future in others)
    assert others


def standing(client: Client, file: Path) -> str:
    """What has begun, and what the cluster says of all that has not ended."""
    tasks = [task for task in client.connection.get("/tasks", limit=100)["items"] if not task["ended"]]
    waiting = [task["id"] for task in tasks if task["state"] in ("queued", "assigned")]
    reasons = client.connection.get(f"/tasks/{waiting[0]}/why") if waiting else None
    return f"{file.read_text().split()}: {[(t['id'], t['name'], t['state']) for t in tasks]} {reasons}"


def test_shutdown_cancels_what_waits_at_the_server(client: Client, tmp_path: Path) -> None:
    """Without a limit all calls are with the server: what runs goes on, what has not begun ends there."""
    file, gate = tmp_path / "lines", tmp_path / "gate"
    file.touch()
    pool = Executor(client=client)
    futures = [pool.submit(calls.note_and_wait, str(file), str(gate), str(x)) for x in range(40)]
    try:
        wait_for(lambda: len(file.read_text().split()) == 5, lambda: f"five of them run, not {standing(client, file)}")
        pool.shutdown(wait=False, cancel_futures=True)
        wait_for(lambda: sum(future.cancelled() for future in futures) == 35, "the others are cancelled")
    finally:
        gate.touch()  # the tests after this one want these cores
    begun = [futures[int(line)] for line in file.read_text().split()]
    assert all(isinstance(future.result(PATIENCE), int) for future in begun)
    assert len(file.read_text().split()) == 5


@pytest.fixture
def alarm() -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise TimeoutError("shutdown did not end")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("alarm")
def test_shutdown_after_a_call_was_cancelled_at_once(client: Client) -> None:
    pool = Executor(max_workers=1, client=client)
    pool.submit(int).result(PATIENCE)
    pool.submit(int).cancel()
    pool.shutdown()


def test_threads_end_with_the_pool(client: Client, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    pool = Executor(max_workers=5, client=client)
    for _ in range(3):
        pool.submit(calls.until, str(gate))
    gate.touch()
    pool.shutdown()
    assert not any(thread.is_alive() for thread in caller_threads(pool))


def test_threads_have_names(client: Client) -> None:
    with Executor(client=client) as pool:
        assert [thread.name for thread in caller_threads(pool)] == ["jarvis-submit", "jarvis-results"]


def test_a_pool_as_context_ends_with_it(client: Client) -> None:
    with Executor(max_workers=5, client=client) as pool:
        assert list(pool.map(abs, range(-5, 5))) == ABS
    assert not any(thread.is_alive() for thread in caller_threads(pool))


def test_a_pool_that_is_forgotten_ends_after_its_calls(client: Client) -> None:
    pool = Executor(max_workers=5, client=client)
    results = pool.map(abs, range(-5, 5))
    threads = caller_threads(pool)
    del pool
    gc.collect()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert list(results) == ABS


def test_shutdown_without_waiting_still_computes_all(client: Client) -> None:
    pool = Executor(max_workers=5, client=client)
    results = pool.map(abs, range(-5, 5))
    pool.shutdown(wait=False)
    for thread in caller_threads(pool):
        thread.join(PATIENCE)
    assert list(results) == ABS


def ends_by(how: str, pool: Executor) -> None:
    if how == "context":
        with pool:
            pass
    elif how == "no wait":
        pool.shutdown(wait=False)


@pytest.mark.parametrize("how", ["context", "forgotten", "no wait"])
def test_a_private_cluster_ends_with_its_pool(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the pool ends, no process of its cluster stays, and the calls before have ended well."""
    monkeypatch.setenv("JARVIS_HOME", str(tmp_path / "nothing here"))
    me = psutil.Process()
    before = {child.pid for child in me.children(recursive=True)}
    pool = Executor(max_workers=2)
    results = pool.map(abs, range(-5, 5))
    started = {child.pid for child in me.children(recursive=True)} - before
    assert started
    ends_by(how, pool)
    del pool
    gc.collect()
    assert list(results) == ABS
    wait_for(lambda: not any(alive(pid) for pid in started), "all its processes are gone")


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_program_with_a_private_cluster_gets_all_its_results(tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith("JARVIS")} | {"JARVIS_HOME": str(tmp_path / "none")}
    text = (
        "from jarvis import Executor\nresults = Executor(max_workers=2).map(abs, range(-5, 5))\nprint(list(results))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", text], env=env, capture_output=True, text=True, timeout=90, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{ABS}\n", "")
