"""The server dies by kill -9 half-way through the calls that the benchmark measures: 10,000 functions, handed to an executor
together, on a node of two processors."""

import pickle
import sqlite3
import time
from concurrent.futures import Future, wait
from typing import Any

import msgspec
import pytest
from tests.e2e.cluster.harness import Home, home

from jarvis.sdk.functions import Executor

CALLS = 10_000
AT_ONCE = 5000
Results = dict[int, int]
pytestmark = pytest.mark.timeout(180)


def same(number: int) -> int:
    return number


def results_of(made: Home, tasks: list[int]) -> Results:
    """What each of them returned, asked by id."""
    found: Results = {}
    with made.client() as client:
        deadline = time.monotonic() + 60
        while left := [task for task in tasks if task not in found][:AT_ONCE]:
            assert time.monotonic() < deadline, f"{len(tasks) - len(found)} calls do not end"
            body = msgspec.msgpack.encode({"ids": left, "wait": 5.0})
            rows = msgspec.msgpack.decode(client.connection.post_bytes("/tasks/results", body))["results"]
            assert {row[1] for row in rows} <= {"succeeded"}
            found |= {row[0]: pickle.loads(row[4]) for row in rows}
    return found


def attempts_of(made: Home) -> list[tuple[int, int, str]]:
    """Task, number and state, read from the file when nobody has it open any more."""
    database = sqlite3.connect(f"file:{made.directory}/jarvis.db?mode=ro", uri=True)
    try:
        return database.execute("SELECT task, attempt, state FROM attempt ORDER BY task, attempt").fetchall()
    finally:
        database.close()


def test_calls_outlive_a_kill_of_the_server_half_way() -> None:
    futures: list[Future[Any]]
    with home() as made:
        made.jarvis("up", "--cpus", "2")
        with made.client() as client, Executor(client=client) as pool:
            assert list(pool.map(same, range(50))) == list(range(50))
            futures = [pool.submit(same, number) for number in range(CALLS)]
            futures[CALLS // 2].result(60)
            made.kill_server()
            wait(futures, 60)
        told = {int(f.task_id): f.result() for f in futures if f.exception() is None}  # type: ignore[attr-defined]
        acknowledged = {f.task_id: number for number, f in enumerate(futures) if f.task_id}  # type: ignore[attr-defined]
        made.jarvis("up", "--cpus", "2")
        found = results_of(made, list(acknowledged))
        made.jarvis("down")
        attempts = attempts_of(made)
    print(f"acknowledged={len(acknowledged)} told={len(told)}")  # noqa: T201 - the figure is the point
    assert 0 < len(told) < CALLS, "it was half-way"
    assert found == acknowledged, "each call that was acknowledged has its own result"
    assert told.items() <= found.items(), "what was told before is what is stored"
    assert {state for _, _, state in attempts} == {"succeeded"}
    assert len(attempts) == len({task for task, _, _ in attempts}), "each ran once"
    assert set(acknowledged) <= {task for task, _, _ in attempts}
