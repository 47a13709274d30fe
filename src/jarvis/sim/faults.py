"""What goes wrong, and when: drawn from a seed, each fault with its end."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from jarvis.sim.network import Way
    from jarvis.sim.node import Node
    from jarvis.sim.several import Team
    from jarvis.sim.world import World


class Faults:
    """One fault after the other, often before the one before is over."""

    def __init__(self, world: "World", random: Random) -> None:
        self.world, self.random = world, random
        self.acted = 0
        self._kinds: list[Callable[[], Awaitable[None]]] = [
            self._cut, self._partition, self._partition, self._one_way, self._swizzle, self._agent, self._agent,
            self._supervisor, self._reboot, self._server, self._server, self._old_leader, self._disk_away,
            self._disk_silent, self._disk_slow, self._network_slow, self._repeats,
        ]  # fmt: skip
        if world.plan.fenced:
            self._kinds = [
                self._long_silence, self._long_silence, self._long_silence, self._long_without_agent,
                self._long_without_agent, self._cut, self._agent, self._reboot, self._server,
            ]  # fmt: skip

    async def run(self, seconds: float) -> None:
        """Until the time is over and every fault has ended."""
        kinds = self.random.sample(self._kinds, self.random.randint(2, len(self._kinds)))
        pause = self.random.choice((20.0, 40.0, 60.0) if self.world.plan.fenced else (1.0, 3.0, 8.0))
        until = asyncio.get_running_loop().time() + seconds
        running = []
        while asyncio.get_running_loop().time() < until:
            await asyncio.sleep(self.random.expovariate(1.0 / pause))
            kind = self.random.choice(kinds)
            self.world.history.note("fault", kind.__name__)
            self.acted += 1
            running.append(self.world.spawn(_awaited(kind)))
        await asyncio.gather(*running)

    def _node(self) -> "Node":
        return self.random.choice(self.world.nodes)

    async def _for_a_while(self) -> None:
        await asyncio.sleep(self.random.choice((0.05, 1.0, 8.0, 30.0)) * self.random.uniform(0.5, 1.5))

    # ------------------------------------------------------------ the network

    async def _cut(self) -> None:
        self.world.network.cut(self._node().name)

    async def _partition(self) -> None:
        node = self._node().name
        self.world.network.block(node, "up", "down")
        await self._for_a_while()
        self.world.network.free(node, "up", "down")

    async def _long_silence(self) -> None:
        """About as long as a fence lasts, so that every side of it is met."""
        node = self._node().name
        self.world.network.block(node, "up", "down")
        await asyncio.sleep(self.random.uniform(50.0, 150.0))
        self.world.network.free(node, "up", "down")

    async def _one_way(self) -> None:
        ways: tuple[Way, Way] = ("up", "down")
        node, way = self._node().name, self.random.choice(ways)
        self.world.network.block(node, way)
        await self._for_a_while()
        self.world.network.free(node, way)

    async def _swizzle(self) -> None:
        """The links of some nodes stop one by one and come back in another order."""
        some = self.random.sample(self.world.nodes, self.random.randint(1, len(self.world.nodes)))
        for node in some:
            self.world.network.block(node.name, "up", "down")
            await asyncio.sleep(self.random.uniform(0.0, 3.0))
        self.random.shuffle(some)
        for node in some:
            await asyncio.sleep(self.random.uniform(0.0, 10.0))
            self.world.network.free(node.name, "up", "down")

    async def _network_slow(self) -> None:
        self.world.network.slowness = 50.0
        await self._for_a_while()
        self.world.network.slowness = 1.0

    async def _repeats(self) -> None:
        """Frames arrive twice."""
        self.world.network.repeat_share = 0.3
        await self._for_a_while()
        self.world.network.repeat_share = 0.0

    # ------------------------------------------------------------ nodes

    async def _agent(self) -> None:
        await self._down(self._node(), "crash_agent")

    async def _long_without_agent(self) -> None:
        """Dead or frozen: the supervisor is alone with the fence."""
        node = self._node()
        node.crash_agent()
        await asyncio.sleep(self.random.uniform(50.0, 150.0))
        node.start()

    async def _supervisor(self) -> None:
        await self._down(self._node(), "crash_supervisor")

    async def _reboot(self) -> None:
        await self._down(self._node(), "reboot")

    async def _down(self, node: "Node", how: str) -> None:
        """Whoever ends such a fault first starts the agent; the others find it running."""
        getattr(node, how)()
        await self._for_a_while()
        node.start()

    # ------------------------------------------------------------ server and disk

    async def _server(self) -> None:
        await self.world.restart_server(self.random.choice((0.1, 2.0, 15.0)), leader_stays=False)

    async def _old_leader(self) -> None:
        """Another server takes over while the old leader still decides."""
        await self.world.restart_server(self.random.uniform(0.0, 1.0), leader_stays=True)

    async def _disk_away(self) -> None:
        self.world.disk.away = True
        await self._for_a_while()
        self.world.disk.away = False

    async def _disk_silent(self) -> None:
        self.world.disk.silent_share = 0.2
        await self._for_a_while()
        self.world.disk.silent_share = 0.0

    async def _disk_slow(self) -> None:
        self.world.disk.slowness = self.random.choice((50.0, 1000.0))
        await self._for_a_while()
        self.world.disk.slowness = 1.0


class SeveralFaults(Faults):
    """Of a world with several servers: each has its own way to the database, and the post between them is not to be trusted."""

    def __init__(self, world: "World", random: Random) -> None:
        super().__init__(world, random)
        self._kinds = [
            self._cut, self._partition, self._one_way, self._swizzle, self._agent, self._supervisor, self._reboot,
            self._network_slow, self._repeats, self._one_of, self._one_of, self._all, self._away, self._away, self._answers,
            self._slow_database, self._lost_post, self._post_twice, self._post_down, self._pause, self._pause,
            self._clock_jumps,
        ]  # fmt: skip

    @property
    def _team(self) -> "Team":
        return cast("Team", self.world.server)

    async def _one_of(self) -> None:
        await self._team.restart(self.random.choice((0.1, 2.0, 15.0)))

    async def _all(self) -> None:
        seats = len(self._team.members)
        await asyncio.gather(*(self._team.restart(self.random.uniform(0.1, 5.0)) for _ in range(seats)))

    async def _pause(self) -> None:
        """A process, or its whole machine, stands still: for less than its lease, or for several of them."""
        await self._team.pause(self.random.choice((0.5, 5.0, 15.0, 40.0)) * self.random.uniform(0.5, 1.5))

    async def _clock_jumps(self) -> None:
        """The database's clock is set forward or back, by more than any lease or window."""
        self.world.clock_ahead += self.random.choice((-15.0, -1.0, 1.0, 15.0, 300.0))

    async def _away(self) -> None:
        """One server is cut off from the database, and from nothing else."""
        disk = self.random.choice(self._team.members).disk
        disk.away = True
        await self._for_a_while()
        disk.away = False

    async def _answers(self) -> None:
        disk = self.random.choice(self._team.members).disk
        disk.silent_share = 0.2
        await self._for_a_while()
        disk.silent_share = 0.0

    async def _slow_database(self) -> None:
        """Of one server; for so long that its lease may end while it waits."""
        disk = self.random.choice(self._team.members).disk
        disk.slowness = self.random.choice((50.0, 1000.0, 6000.0))
        await self._for_a_while()
        disk.slowness = 1.0

    async def _lost_post(self) -> None:
        self._team.post.lost_share = self.random.choice((0.05, 0.3, 1.0))
        await self._for_a_while()
        self._team.post.lost_share = 0.0

    async def _post_twice(self) -> None:
        self._team.post.twice_share = 0.3
        await self._for_a_while()
        self._team.post.twice_share = 0.0

    async def _post_down(self) -> None:
        self._team.post.down = True
        await self._for_a_while()
        self._team.post.down = False


async def _awaited(kind: Callable[[], Awaitable[None]]) -> None:
    await kind()
