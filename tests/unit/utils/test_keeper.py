"""Loops that end on a defect: told for a minute, and begun anew after pauses that grow up to a bound."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

import pytest

from jarvis.sim.loop import VirtualLoop
from jarvis.utils.keeper import FIRST_S, MOST_S, SOUND_S, TOLD_S, Keeper


def in_virtual_time(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(work)


class Loop:
    """Ends on a defect each time, after so many seconds."""

    def __init__(self, *lives: float) -> None:
        self.lives, self.begun = list(lives), list[float]()

    async def run(self) -> None:
        self.begun.append(asyncio.get_running_loop().time())
        if not self.lives:
            return
        await asyncio.sleep(self.lives.pop(0))
        raise ValueError("a defect")


def test_pauses_grow_up_to_a_bound_and_begin_anew_after_a_sound_life() -> None:
    async def story() -> None:
        loop = Loop(0, 0, 0, 0, 0, 0, 0, 0, SOUND_S + 1, 0)
        await Keeper().keep("looking", loop.run)
        pauses = [after - before for before, after in zip(loop.begun, loop.begun[1:], strict=False)]
        assert pauses[:8] == [FIRST_S, 1.0, 2.0, 4.0, 8.0, 16.0, MOST_S, MOST_S]
        assert pauses[8:] == [SOUND_S + 1 + FIRST_S, 2 * FIRST_S]

    in_virtual_time(story())


def test_what_everybody_waits_for_pauses_less() -> None:
    async def story() -> None:
        loop = Loop(0, 0, 0, 0, 0)
        await Keeper().keep("the gateway", loop.run, most_s=2.0)
        pauses = [after - before for before, after in zip(loop.begun, loop.begun[1:], strict=False)]
        assert pauses == [FIRST_S, 1.0, 2.0, 2.0, 2.0]

    in_virtual_time(story())


def test_a_defect_is_told_for_a_minute_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        keeper = Keeper()
        assert keeper.troubles() == ""
        await asyncio.gather(keeper.keep("looking", Loop(0).run), keeper.keep("sending", Loop(1).run))
        await asyncio.sleep(1.5)
        assert keeper.troubles() == (
            "looking ended on a defect 3 s ago: ValueError: a defect; sending ended on a defect 2 s ago: ValueError: a defect"
        )
        await asyncio.sleep(TOLD_S - 2.5)
        assert keeper.troubles().startswith("sending")
        await asyncio.sleep(1)
        assert keeper.troubles() == ""

    with caplog.at_level(logging.ERROR):
        in_virtual_time(story())
    assert "looking ended on a defect; it begins anew in 0.5 s" in caplog.text
    assert "Traceback" in caplog.text


def test_what_cannot_be_mended_is_told_as_long_as_it_is_so() -> None:
    async def story() -> None:
        keeper = Keeper()
        keeper.tell("the disk", "the disk is full")
        await asyncio.sleep(2 * TOLD_S)
        assert keeper.troubles() == "the disk is full"
        keeper.tell("the disk", "")
        assert keeper.troubles() == ""

    in_virtual_time(story())


def test_of_a_group_the_first_defect_is_told() -> None:
    async def run() -> None:
        raise ExceptionGroup("two", [ExceptionGroup("one", [KeyError("first")]), ValueError("second")])

    async def story() -> None:
        keeper = Keeper()
        kept = asyncio.create_task(keeper.keep("a group", run))
        await asyncio.sleep(0)
        assert keeper.troubles() == "a group ended on a defect 0 s ago: KeyError: 'first'"
        kept.cancel()
        await asyncio.wait([kept])
        assert kept.cancelled()

    in_virtual_time(story())


def test_what_only_another_process_helps_against_is_passed_on() -> None:
    async def story() -> None:
        loop = Loop(0)
        with pytest.raises(ValueError, match="a defect"):
            await Keeper(lambda error: isinstance(error, ValueError)).keep("looking", loop.run)
        assert len(loop.begun) == 1

    in_virtual_time(story())
