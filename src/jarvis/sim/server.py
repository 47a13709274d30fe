"""One life of a server process: the real scheduler, bus, state manager and gateway; it may die at any await."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar, cast

from jarvis.api.gateway import Gateway
from jarvis.api.services import Services
from jarvis.bus.buses.memory import MemoryBus
from jarvis.core.errors import StoreUnavailable
from jarvis.core.inputs import Input
from jarvis.core.permissions import Principal
from jarvis.scheduler.checks import check_cluster
from jarvis.scheduler.cycle import Plan
from jarvis.scheduler.scheduler import Scheduler
from jarvis.sim.network import ServerEnd
from jarvis.state.blob_stores.memory import MemoryBlobStore
from jarvis.state.state_manager import StateManager
from jarvis.utils.clock import Clock

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

    from jarvis.sim.world import World

T = TypeVar("T")


class CheckedScheduler(Scheduler):
    """The scheduler, with its memory re-derived from scratch after every turn."""

    async def run_once(self, inputs: list[Input]) -> Plan:
        plan = await super().run_once(inputs)
        check_cluster(self.cluster)
        return plan


class Doorman:
    """Everybody who reaches a simulated server is who they say: authentication has tests of its own."""

    async def principal(self, token: str) -> Principal | None:
        return None

    async def member(self, member: str, fresh: bool = True) -> Principal | None:
        return None


class Server:
    """A process. Its memory is lost with it, the store is not."""

    def __init__(self, world: "World", life: int) -> None:
        self._world, self._names = world, 0
        self._life = life
        store = world.disk.port
        loop = asyncio.get_running_loop()
        self.bus, clock = MemoryBus(), Clock(loop.time, world.database_now)
        blobs = MemoryBlobStore()
        self.manager = StateManager(store, blobs, self.bus)
        self.scheduler = world.parts.scheduler(store, self.bus, clock, lambda: world.plan.policy, f"server-{life}")
        services = Services(
            store=store, blobs=blobs, state_manager=self.manager, bus=self.bus, clock=clock,
            authenticator=Doorman(),
        )  # fmt: skip
        self.gateway = Gateway(services, self._new_name)
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._leading: asyncio.Task[None] | None = None

    def _new_name(self) -> str:
        self._names += 1
        return f"{self._life}.{self._names}"

    async def start(self) -> bool:
        """Lead and listen; False when the store is away, as a process would exit."""
        try:
            await self.scheduler.start()
        except StoreUnavailable:
            return False
        check_cluster(self.scheduler.cluster)
        self._leading = self._world.spawn(self.scheduler.run())
        self._spawn(self.gateway.run())
        self._world.network.listener = self._serve
        return True

    def _serve(self, end: ServerEnd) -> None:
        self._spawn(self.gateway.serve(cast("WebSocket", end)))

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = self._world.spawn(work)
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)
        return task

    async def ask(self, question: Callable[[StateManager], Awaitable[T]]) -> T:
        """As a client's request; :class:`ConnectionError` when the server dies before it has answered."""

        async def answer() -> T:
            return await question(self.manager)

        task = self._spawn(answer())
        await asyncio.wait([task])
        if task.cancelled():
            raise ConnectionResetError("the server is gone")
        return task.result()

    def crash(self, leader_stays: bool = False) -> None:
        """The process is gone. ``leader_stays``: its loop goes on deciding, cut off from everything but the store."""
        self._world.network.listener = None
        self._world.network.cut(None)
        for task in list(self._tasks):
            task.cancel()
        if not leader_stays and self._leading is not None:
            self._leading.cancel()
