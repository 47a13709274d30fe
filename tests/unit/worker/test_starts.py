"""Starts of short calls: told only of what is not over in a moment, each once."""

import asyncio

import pytest

from jarvis.worker import starts
from jarvis.worker.starts import Starts


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> "asyncio.Queue[tuple[int, float]]":
    monkeypatch.setattr(starts, "WAITS_S", 0.0)
    return asyncio.Queue()


async def test_what_goes_on_is_told_once_with_its_age(told: "asyncio.Queue[tuple[int, float]]") -> None:
    some = Starts(lambda number, age: told.put_nowait((number, age)))
    some.begun(1)
    some.begun(2)
    assert [(await told.get())[0], (await told.get())[0]] == [1, 2]
    some.over(1)
    some.begun(3)
    number, age = await told.get()
    assert number == 3
    assert age >= 0
    assert told.empty()


async def test_what_is_over_is_not_told(told: "asyncio.Queue[tuple[int, float]]") -> None:
    some = Starts(lambda number, age: told.put_nowait((number, age)))
    some.begun(1)
    some.over(1)
    some.over(7)
    some.begun(2)
    assert (await told.get())[0] == 2
    assert told.empty()
