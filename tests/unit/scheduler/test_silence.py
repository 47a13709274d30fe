"""Most nodes fall silent together: nobody is given up, one alarm goes out, and those that come back have a window for it."""

from jarvis.bus.buses.memory import MemoryBus
from jarvis.bus.messages import PROTOCOL_VERSION
from jarvis.core.inputs import Hello, NodeConnected, NodesSeen
from jarvis.core.node import DEFAULT_WINDOWS, NodeState
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.scheduler import Scheduler
from jarvis.state.stores.memory import MemoryStore
from jarvis.utils.clock import Clock

LOST_S = DEFAULT_WINDOWS.lost_s


class Silence:
    """A leader with five nodes, on a clock of the test's own."""

    def __init__(self) -> None:
        self.at = 1000.0
        self.store = MemoryStore(lambda: self.at)
        self.scheduler = Scheduler(self.store, MemoryBus(), Clock(lambda: self.at, lambda: self.at), Policy, "s")

    async def begin(self) -> None:
        await self.scheduler.start()
        for name in "abcde":
            hello = Hello(
                version=PROTOCOL_VERSION, software="0", name=name, node=None, boot_id=name, resources={"cpu": 1000},
                labels={}, known=[], incarnation=0, epoch=0, ordinal=1,
            )  # fmt: skip
            await self.scheduler.run_once([NodeConnected("hello", f"/{name}", hello)])

    async def passes(self, seconds: float, *heard: int) -> None:
        """Second by second, in which these nodes are heard of."""
        for _ in range(round(seconds)):
            self.at += 1.0
            await self.scheduler.run_once([NodesSeen("seen", {node: {} for node in heard})])

    def lost(self) -> list[int]:
        return [n for n, view in self.scheduler.cluster.nodes.items() if view.node.state is NodeState.LOST]

    async def alarms(self) -> int:
        return sum(event.kind == "alarm.mass_loss" for event in await self.store.event_list(0, 1000))


async def test_nobody_is_given_up_and_one_alarm_goes_out() -> None:
    case = Silence()
    await case.begin()
    await case.passes(1, 2, 3, 4, 5)
    await case.passes(1, 3, 4, 5)
    await case.passes(5 * LOST_S, 4, 5)
    assert case.lost() == []
    assert await case.alarms() == 1


async def test_those_that_are_later_back_than_others_are_not_given_up_for_it() -> None:
    case = Silence()
    await case.begin()
    await case.passes(3 * LOST_S, 4, 5)
    await case.passes(LOST_S - 3.0, 3, 4, 5)
    assert case.lost() == [], "one is back, so that those that are not are few"
    await case.passes(2.0, 1, 3, 4, 5)
    assert case.lost() == []
    await case.passes(2.0, 1, 3, 4, 5)
    assert case.lost() == [2], "it had a full window"
