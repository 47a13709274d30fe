"""The processes that run calls: their initializers, their reuse, and what happens when one dies. CPython's tests, anew."""

import gc
import os
import signal
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from pickle import PicklingError, UnpicklingError
from typing import Any

import pytest
from tests.e2e.cluster.harness import wait_for
from tests.e2e.executor import calls

from jarvis.sdk.broken import InitializerFailed, ProcessDied
from jarvis.sdk.client import Client
from jarvis.sdk.errors import TaskFailed
from jarvis.sdk.functions import Executor

PATIENCE = 60.0
pytestmark = pytest.mark.timeout(120)


def alone(client: Client, **options: Any) -> Executor:
    """A pool whose processes are shared with no other pool."""
    return Executor(client=client, initializer=calls.initialize, initargs=("ready",), **options)


def test_the_initializer_runs_in_every_process(client: Client) -> None:
    with Executor(max_workers=2, client=client, initializer=calls.initialize, initargs=("ready",)) as pool:
        assert [pool.submit(calls.status).result(PATIENCE) for _ in range(4)] == ["ready"] * 4
        assert pool.submit(calls.multiply, 6, 7).result(PATIENCE) == 42
    with Executor(client=client) as other:
        assert other.submit(calls.status).result(PATIENCE) == "nothing yet"


def test_an_initializer_that_is_not_in_a_module_shares_its_globals(client: Client) -> None:
    space: dict[str, Any] = {"__name__": "__main__"}
    exec("def begin(x):\n    global told\n    told = x\ndef tell():\n    return told\n", space)
    with Executor(max_workers=2, client=client, initializer=space["begin"], initargs=(5,)) as pool:
        assert [pool.submit(space["tell"]).result(PATIENCE) for _ in range(3)] == [5, 5, 5]


def test_an_initializer_that_fails_breaks_the_pool(client: Client) -> None:
    pool = Executor(max_workers=2, client=client, initializer=calls.fail_to_initialize, initargs=("no licence",))
    error = pool.submit(calls.status).exception(PATIENCE)
    assert isinstance(error, InitializerFailed)
    assert isinstance(error, BrokenProcessPool)
    assert "no licence" in str(error)
    assert "in fail_to_initialize" in str(error.__cause__)
    with pytest.raises(BrokenProcessPool, match="no licence"):
        pool.submit(calls.status)
    pool.shutdown()


def test_an_initializer_must_be_callable(client: Client) -> None:
    with pytest.raises(TypeError, match="initializer"):
        Executor(client=client, initializer="no")  # type: ignore[arg-type]


def test_a_killed_process_ends_its_call_alone(client: Client, tmp_path: Path) -> None:
    file, gate = tmp_path / "pid", tmp_path / "gate"
    with Executor(max_workers=5, client=client) as pool:
        future = pool.submit(lambda: calls.note_and_wait(str(file), str(gate), str(os.getpid())))
        other = pool.submit(calls.until, str(gate), "well")
        wait_for(file.exists, "it runs")
        os.kill(int(wait_for(file.read_text, "its pid")), signal.SIGTERM)
        error = future.exception(PATIENCE)
        gate.touch()
        assert isinstance(error, BrokenProcessPool)
        assert isinstance(error, TaskFailed)
        assert other.result(PATIENCE) == "well"
        assert pool.submit(pow, 2, 8).result(PATIENCE) == 256


def test_exceptions_bring_the_traceback_of_their_process(client: Client) -> None:
    with Executor(client=client) as pool:
        error = pool.submit(calls.go_wrong).exception(PATIENCE)
    assert isinstance(error, RuntimeError)
    assert error.args == (123,)
    assert "raise RuntimeError(123)  # the words of this line" in str(error.__cause__)


def test_arguments_are_collected_after_their_call(client: Client, tmp_path: Path) -> None:
    traced = calls.Traced(str(tmp_path))
    with Executor(client=client) as pool:
        pool.submit(id, traced).result(PATIENCE)
        wait_for(lambda: list(tmp_path.iterdir()), "collected in the process")
    assert not (tmp_path / str(os.getpid())).exists()
    del traced
    gc.collect()
    assert (tmp_path / str(os.getpid())).exists()


def test_calls_one_after_another_share_a_process(client: Client) -> None:
    with alone(client, max_workers=4) as pool:
        assert len({pool.submit(os.getpid).result(PATIENCE) for _ in range(3)}) == 1


def test_calls_side_by_side_take_no_more_processes_than_workers(client: Client) -> None:
    with alone(client, max_workers=3) as pool:
        futures = []
        for _ in range(3):
            futures.append(pool.submit(os.getpid))
            futures.append(pool.submit(os.getpid))
            futures[-1].result(PATIENCE)
        assert len({future.result(PATIENCE) for future in futures}) <= 3


def test_a_process_ends_after_its_calls(client: Client) -> None:
    with alone(client, max_workers=1, max_tasks_per_child=3) as pool:
        pids = [pool.submit(os.getpid).result(PATIENCE) for _ in range(4)]
    assert len(set(pids[:3])) == 1
    assert pids[3] != pids[0]


def test_shutdown_while_processes_end_after_each_call(client: Client) -> None:
    pool = alone(client, max_workers=3, max_tasks_per_child=1)
    futures = [pool.submit(calls.multiply, x, x) for x in range(6)]
    pids = [pool.submit(os.getpid) for _ in range(3)]
    pool.shutdown()
    assert [future.result() for future in futures] == [x * x for x in range(6)]
    assert len({pid.result() for pid in pids}) == 3


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-1, ValueError), ("3", TypeError)])
def test_calls_of_a_process_must_be_a_number(client: Client, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="max_tasks_per_child"):
        Executor(client=client, max_tasks_per_child=value)


CRASHES: dict[str, tuple[type[BaseException], Any, tuple[Any, ...], str]] = {
    "arguments that cannot be pickled": (PicklingError, id, (calls.FailsWhenPickled(),), "not this one"),
    "exit while arguments are read": (RuntimeError, id, (calls.LeavesWhenRead(),), "SystemExit"),
    "error while arguments are read": (UnpicklingError, id, (calls.FailsWhenRead(),), "spoilt"),
    "crash while arguments are read": (BrokenProcessPool, id, (calls.DiesWhenRead(),), "in the middle of the call"),
    "crash in the call": (BrokenProcessPool, calls.die, (), "in the middle of the call"),
    "exit in the call": (RuntimeError, calls.leave, (), r"SystemExit\(3\)"),
    "error in the call": (RuntimeError, calls.go_wrong, (), "123"),
    "crash while the result is pickled": (BrokenProcessPool, calls.make, (calls.DiesWhenPickled,), "in the middle"),
    "exit while the result is pickled": (RuntimeError, calls.make, (calls.LeavesWhenPickled,), "SystemExit"),
    "error while the result is pickled": (PicklingError, calls.make, (calls.FailsWhenPickled,), "not this one"),
    "error while the result is read": (UnpicklingError, calls.make, (calls.FailsWhenRead,), "spoilt"),
    "exit while the result is read": (RuntimeError, calls.make, (calls.LeavesWhenRead,), "SystemExit"),
    "an exception that cannot be sent": (RuntimeError, calls.raise_unsendable, (), "Unsendable: 5 at here"),
}


@pytest.mark.parametrize("what", CRASHES)
def test_what_goes_wrong_is_told_and_the_pool_goes_on(client: Client, what: str) -> None:
    kind, function, args, words = CRASHES[what]
    with Executor(max_workers=2, client=client) as pool:
        with pytest.raises(kind, match=words):
            pool.submit(function, *args).result(PATIENCE)
        assert pool.submit(pow, 2, 8).result(PATIENCE) == 256


def test_a_crash_after_shutdown_was_asked_for(client: Client, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    pool = Executor(max_workers=2, client=client)
    future = pool.submit(calls.die_at, str(gate))
    pool.shutdown(wait=False)
    gate.touch()
    pool.shutdown()
    with pytest.raises(ProcessDied):
        future.result(0)


def test_arguments_that_cannot_be_pickled_just_before_shutdown(client: Client) -> None:
    pool = Executor(max_workers=2, client=client)
    pool.submit(id, 42).result(PATIENCE)
    future = pool.submit(id, calls.FailsWhenPickled())
    pool.shutdown(wait=False)
    with pytest.raises(PicklingError):
        future.result(PATIENCE)
    for thread in pool._caller._threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_crashes_with_large_arguments(client: Client) -> None:
    with Executor(max_workers=2, client=client) as pool, pytest.raises(BrokenProcessPool):
        list(pool.map(calls.die_with, [b"a" * (4 << 20)] * 10))
