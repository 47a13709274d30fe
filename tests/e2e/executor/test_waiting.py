"""``wait`` and ``as_completed`` over calls: CPython's tests of both, anew."""

import gc
import itertools
import sys
import weakref
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.executor import calls
from tests.e2e.executor.test_future import cancelled, ended, running

from jarvis.sdk.caller import TaskFuture
from jarvis.sdk.functions import Executor, as_completed

PATIENCE = 60.0
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


def test_as_completed_gives_what_ends_and_what_had(pool: Executor) -> None:
    given = [cancelled(), ended(error=OSError()), ended(42), pool.submit(calls.multiply, 2, 21), pool.submit(pow, 7, 6)]
    assert set(as_completed(given)) == set(given)


@pytest.mark.parametrize("timeout", [0, 0.1])
def test_as_completed_gives_up_after_its_time(pool: Executor, gate: Path, timeout: float) -> None:
    given = {cancelled(), ended(error=OSError()), ended(42)}
    slow: TaskFuture[Any] = pool.submit(calls.until, str(gate))
    gave_up = as_completed(given | {slow}, timeout)
    assert {next(gave_up) for _ in given} == given
    with pytest.raises(TimeoutError):
        next(gave_up)
    gate.touch()


def test_as_completed_gives_each_once(pool: Executor) -> None:
    assert len(list(as_completed(itertools.repeat(pool.submit(abs, 1), 3)))) == 1


def test_as_completed_keeps_no_reference_to_what_it_gave() -> None:
    given: list[TaskFuture[Any]] = [running() for _ in range(8)]
    given += [cancelled(), ended(42)]
    ended_ones = as_completed(given, timeout=0)
    for _ in range(2):
        take_the_only_reference(ended_ones, given)
    with pytest.raises(TimeoutError):
        next(ended_ones)
    given[0].set_result("on")
    others = as_completed(given)
    while given:
        take_the_only_reference(others, given)
        if given:
            given[0].set_result("on")


def take_the_only_reference(futures: Iterator[TaskFuture[Any]], given: list[TaskFuture[Any]]) -> None:
    future = next(futures)
    given.remove(future)
    reference = weakref.ref(future)
    del future
    gc.collect()
    assert reference() is None


def test_as_completed_says_how_many_are_left() -> None:
    given: list[TaskFuture[Any]] = [cancelled(), TaskFuture(), running(), ended(1)]
    with pytest.raises(TimeoutError, match=r"2 \(of 4\) futures unfinished"):
        list(as_completed(given, timeout=0))


def test_wait_for_the_same_one_twice(pool: Executor) -> None:
    future = pool.submit(abs, 1)
    assert futures.wait([future, future], return_when=futures.ALL_COMPLETED) == ({future}, set())


def test_wait_for_the_first(pool: Executor, gate: Path) -> None:
    """It does not wait behind a slow one that was submitted before."""
    slow = pool.submit(calls.until, str(gate))
    quick = pool.submit(calls.multiply, 21, 2)
    done, left = futures.wait([slow, quick], timeout=PATIENCE, return_when=futures.FIRST_COMPLETED)
    gate.touch()
    assert (done, left) == ({quick}, {slow})


def test_wait_for_the_first_when_some_have_ended(pool: Executor, gate: Path) -> None:
    slow = pool.submit(calls.until, str(gate))
    given = [cancelled(), ended(42), slow]
    assert futures.wait(given, return_when=futures.FIRST_COMPLETED) == (set(given[:2]), {slow})
    gate.touch()


def test_wait_for_the_first_exception(pool: Executor, gate: Path, tmp_path: Path) -> None:
    good, slow = pool.submit(calls.multiply, 2, 21), pool.submit(calls.until, str(gate))
    good.result(PATIENCE)
    early = tmp_path / "early"
    bad: Any = pool.submit(calls.until_then_raise, str(early))
    early.touch()
    done, left = futures.wait([good, bad, slow], timeout=PATIENCE, return_when=futures.FIRST_EXCEPTION)
    gate.touch()
    assert (done, left) == ({good, bad}, {slow})


def test_wait_for_the_first_exception_when_some_have_ended(pool: Executor, gate: Path) -> None:
    bad, slow = pool.submit(divmod, 21, 0), pool.submit(calls.until, str(gate))
    given = [ended(42), cancelled(), bad, slow]
    done, left = futures.wait(given, timeout=PATIENCE, return_when=futures.FIRST_EXCEPTION)
    gate.touch()
    assert (done, left) == (set(given[:3]), {slow})


def test_wait_for_the_first_exception_when_one_has_failed(pool: Executor, gate: Path) -> None:
    slow, failed = pool.submit(calls.until, str(gate)), ended(error=OSError())
    assert futures.wait([failed, slow], return_when=futures.FIRST_EXCEPTION) == ({failed}, {slow})
    gate.touch()


def test_wait_for_all(pool: Executor) -> None:
    given = [
        ended(42),
        cancelled(),
        ended(error=OSError()),
        pool.submit(divmod, 2, 0),
        pool.submit(calls.multiply, 2, 21),
    ]
    assert futures.wait(given, PATIENCE, return_when=futures.ALL_COMPLETED) == (set(given), set())


def test_wait_gives_up_after_its_time(pool: Executor, gate: Path) -> None:
    given = [cancelled(), ended(error=OSError()), ended(42), pool.submit(calls.until, str(gate))]
    assert futures.wait(given, timeout=0.05) == (set(given[:3]), {given[3]})
    gate.touch()


def test_wait_for_many_that_end_together(pool: Executor, gate: Path) -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        given = {pool.submit(calls.until, str(gate)) for _ in range(100)}
        gate.touch()
        assert futures.wait(given, PATIENCE, return_when=futures.ALL_COMPLETED) == (given, set())
    finally:
        sys.setswitchinterval(before)


def test_a_cancelled_call_is_waited_for_no_longer(pool: Executor, gate: Path) -> None:
    future = pool.submit(calls.until, str(gate))
    assert future.cancel()
    assert futures.wait([future], timeout=PATIENCE) == ({future}, set())
    assert list(as_completed([future], timeout=PATIENCE)) == [future]
