"""A defect in what a bus of several servers sends or receives: it is told, and what comes after it gets through."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from jarvis.bus.buses.cluster import ClusterBus
from jarvis.core.inputs import LookAgain
from jarvis.utils import keeper
from jarvis.utils.keeper import Keeper

KEY = b"k" * 32


class Way:
    """Entries between servers of this process; the first that is sent or received goes wrong if it is said so."""

    name = "the way"

    def __init__(self, wrong: str) -> None:
        self._wrong = wrong
        self._inboxes: dict[str, asyncio.Queue[bytes]] = {}

    def _inbox(self, name: str) -> asyncio.Queue[bytes]:
        return self._inboxes.setdefault(name, asyncio.Queue())

    def _go_wrong(self, where: str) -> None:
        if self._wrong == where:
            self._wrong = ""
            raise ZeroDivisionError(where)

    async def send(self, to: str, entry: bytes) -> None:
        self._go_wrong("send")
        self._inbox(to).put_nowait(entry)

    async def receive(self, inbox: str) -> AsyncIterator[bytes]:
        while True:
            entry = await self._inbox(inbox).get()
            self._go_wrong("receive")
            yield entry

    async def ping(self) -> float:
        return 0.0

    async def close(self) -> None:
        """Nothing is held."""


@pytest.mark.parametrize(
    ("wrong", "who", "told"),
    [("send", "b", "sending ended on a defect"), ("receive", "a", "receiving over the way ended on a defect")],
)
async def test_a_defect_costs_what_it_hit_alone(
    monkeypatch: pytest.MonkeyPatch, wrong: str, who: str, told: str
) -> None:
    monkeypatch.setattr(keeper, "FIRST_S", 0.02)
    way = Way(wrong)
    buses = {name: ClusterBus(name, [way], lambda: "a", list) for name in "ab"}
    keepers = {name: Keeper() for name in buses}
    for name, bus in buses.items():
        bus.start("cluster", KEY, 1, keepers[name])
        bus.lead((1, 1), leading=name == "a")
    assert buses["b"].offer(LookAgain("lost"))
    async with asyncio.timeout(10):
        while not keepers[who].troubles():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
        assert buses["b"].offer(LookAgain("heard"))
        while LookAgain("heard") not in await buses["a"].take(0.1):
            pass
    assert keepers[who].troubles().startswith(told)
    for bus in buses.values():
        await bus.stop()
