"""Submissions that gather behind one that a defect fails: they are taken in, and do not wait for somebody else to ask."""

import asyncio
from typing import Any

import pytest

from jarvis.core.task import NewTask, TaskSpec
from jarvis.state.store import Accepted, Submission
from jarvis.state.stores.postgres.submissions import Submissions


class Wrong:
    """A database on which the first transaction goes wrong."""

    def __init__(self) -> None:
        self.begun = 0

    async def transaction(self, work: Any) -> list[Accepted]:
        self.begun += 1
        await asyncio.sleep(0)
        if self.begun == 1:
            raise ZeroDivisionError("a defect")
        return [Accepted((7,), 1.0)]


async def test_a_defect_fails_those_it_hit_alone() -> None:
    submissions = Submissions(Wrong(), lambda: None)  # type: ignore[arg-type]
    one = Submission((NewTask(uuid="u1", project="p", user="u", spec=TaskSpec(name="a", command=("true",))),))
    first = asyncio.create_task(submissions.insert([one]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        assert await submissions.insert([one]) == [Accepted((7,), 1.0)]
    with pytest.raises(ZeroDivisionError):
        await first
