"""Submitting and mapping: CPython's tests of every executor, anew."""

import gc
import itertools
import os
import threading
import weakref
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest
from tests.e2e.cluster.harness import wait_for
from tests.e2e.executor import calls

from jarvis.sdk.client import Client
from jarvis.sdk.functions import Executor

PATIENCE = 60.0
pytestmark = pytest.mark.timeout(120)


def test_submit(pool: Executor) -> None:
    assert pool.submit(pow, 2, 8).result(PATIENCE) == 256


def test_submit_with_keywords(pool: Executor) -> None:
    assert pool.submit(calls.multiply, 2, y=8).result(PATIENCE) == 16
    assert pool.submit(calls.capture, 1, self=2, fn=3).result(PATIENCE) == ((1,), {"self": 2, "fn": 3})
    with pytest.raises(TypeError):
        pool.submit(fn=calls.capture, arg=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        pool.submit(arg=1)  # type: ignore[call-arg]


def test_map(pool: Executor) -> None:
    expected = [x**x for x in range(10)]
    assert list(pool.map(pow, range(10), range(10))) == expected
    assert list(pool.map(pow, range(10), range(10), chunksize=3)) == expected


@pytest.mark.parametrize("chunksize", [6, 40, 50])
def test_map_in_chunks(pool: Executor, chunksize: int) -> None:
    assert list(pool.map(pow, range(40), range(40), chunksize=chunksize)) == [x**x for x in range(40)]


def test_map_refuses_chunks_of_nothing(pool: Executor) -> None:
    with pytest.raises(ValueError, match="chunksize"):
        pool.map(pow, range(40), range(40), chunksize=-1)


def test_chunks_are_calls_of_their_own(pool: Executor) -> None:
    """Forty rows in chunks of ten take four calls."""
    assert len({task for task, _ in pool.map(where, range(40), chunksize=10)}) == 4


def where(x: int) -> tuple[str, int]:
    return os.environ["JARVIS_TASK_ID"], x


def test_map_raises_where_a_call_did(pool: Executor) -> None:
    results = pool.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5])
    assert next(results) == (0, 1)
    assert next(results) == (0, 1)
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_map_gives_up_after_its_time(pool: Executor, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    is_open = tmp_path / "open"
    is_open.touch()
    results = pool.map(calls.until, [str(is_open), str(is_open), str(gate)], [1, 2, 3], timeout=5)
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(TimeoutError):
        next(results)


def test_map_submits_before_anybody_looks(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "lines"
    with Executor(max_workers=5, client=client) as pool:
        pool.map(calls.note, [str(file)] * 10, map(str, range(10)))
    assert sorted(file.read_text().split()) == [str(x) for x in range(10)]


def test_map_with_a_buffer_takes_endless_iterables(pool: Executor) -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for x in itertools.count():
            taken.append(x)
            yield x

    results = pool.map(abs, numbers(), buffersize=4)
    assert [next(results) for _ in range(6)] == [0, 1, 2, 3, 4, 5]
    assert len(taken) <= 6 + 4
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="buffersize"):
            pool.map(abs, [1], buffersize=wrong)


def test_a_map_that_gives_up_cancels_what_is_left(client: Client, tmp_path: Path) -> None:
    file, gate = tmp_path / "lines", tmp_path / "gate"
    with Executor(max_workers=1, client=client) as pool:
        first = pool.submit(calls.note_and_wait, str(file), str(gate), "first")
        results = pool.map(calls.note, [str(file)] * 2, ["second", "third"], timeout=0)
        with closing(cast("Generator[None]", results)), pytest.raises(TimeoutError):
            next(results)
        gate.touch()
        first.result(PATIENCE)
    assert file.read_text() == "first\n"


def test_shutdown_while_calls_are_on_their_way(client: Client) -> None:
    pool = Executor(max_workers=5, client=client)
    results = pool.map(str, [2] * 6)
    pool.shutdown()
    assert list(results) == ["2"] * 6


def test_no_reference_to_what_was_submitted_is_kept(pool: Executor) -> None:
    thing, gone = calls.Thing(), threading.Event()
    reference = weakref.ref(thing, lambda _: gone.set())
    pool.submit(thing.method)
    del thing
    assert gone.wait(PATIENCE)
    assert reference() is None


def test_map_keeps_no_reference_to_what_it_gave(pool: Executor) -> None:
    """The thread that handed it over may still be on its way out of doing so."""
    for thing in pool.map(calls.make_thing, range(10)):
        gone = threading.Event()
        reference = weakref.ref(thing, lambda _, gone=gone: gone.set())  # type: ignore[misc]
        del thing
        gc.collect()
        assert gone.wait(PATIENCE)
        assert reference() is None


@pytest.mark.parametrize("number", [0, -1])
def test_max_workers_must_be_some(client: Client, number: int) -> None:
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        Executor(max_workers=number, client=client)


def test_max_workers_is_how_many_run_at_once(client: Client, tmp_path: Path) -> None:
    file, gate = tmp_path / "lines", tmp_path / "gate"
    file.touch()
    with Executor(max_workers=4, client=client) as pool:
        futures = [pool.submit(calls.note_and_wait, str(file), str(gate), str(i)) for i in range(60)]
        wait_for(lambda: len(file.read_text().split()) >= 4, "four of them run")
        active = [task for task in client.tasks(state="active") if task["name"] == "note_and_wait"]
        assert len(active) == 4
        gate.touch()
        for future in futures:
            future.result(PATIENCE)
    assert sorted(map(int, file.read_text().split())) == list(range(60))


def test_many_calls_before_the_threads_have_looked(client: Client) -> None:
    with Executor(max_workers=2, client=client) as pool:
        assert len(list(pool.map(int, range(100)))) == 100


def test_many_calls_with_large_arguments_are_not_too_much_for_a_request(pool: Executor) -> None:
    assert list(pool.map(len, [b"x" * 40_000] * 600)) == [40_000] * 600
