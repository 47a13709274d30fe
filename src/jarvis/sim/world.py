"""The whole cluster in one event loop: what is there, what happens to it, and what must be left at the end."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from jarvis.core.errors import StoreUnavailable
from jarvis.core.invariants import require
from jarvis.core.resources import Resources
from jarvis.core.states import State
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.scheduler import Scheduler
from jarvis.sim.disk import Disk
from jarvis.sim.faults import Faults, SeveralFaults
from jarvis.sim.history import History
from jarvis.sim.judge import Judge
from jarvis.sim.network import Network
from jarvis.sim.node import Node
from jarvis.sim.scarcity import book
from jarvis.sim.server import CheckedScheduler, Server
from jarvis.sim.several import Team
from jarvis.sim.workload import Client, Load, farewell, guarantee
from jarvis.state.state_manager import StateManager
from jarvis.state.store import Store, TaskFilter
from jarvis.state.stores.memory import MemoryStore
from jarvis.worker.machine import Machine

if TYPE_CHECKING:
    from jarvis.core.task import Element, Task

T = TypeVar("T")
EPOCH = 1_750_000_000.0
"""Seconds since 1970 at which every simulated world begins."""
GIB = 1 << 30
SIZES: tuple[Resources, ...] = (
    {"cpu": 4000, "memory": 8 * GIB, "gpu": 2000}, {"cpu": 4000, "memory": 8 * GIB}, {"cpu": 6000, "memory": 4 * GIB},
    {"cpu": 2000, "memory": 8 * GIB, "gpu": 1000},
)  # fmt: skip
PATIENCE_S = 1500.0
"""Virtual seconds after the last fault in which everything must end."""
REST_S = 30.0
"""And then in which the last acknowledgements must arrive."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the world is made of; tests put broken parts in to see that the judge notices."""

    scheduler: type[Scheduler] = CheckedScheduler
    machine: Callable[[Resources], Machine] = Machine
    store: Callable[[Callable[[], float]], Store] = MemoryStore


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, how much, and whether anything goes wrong."""

    seconds: float = 60.0
    calm: bool = False
    servers: int = 0
    """Several servers with leases and a post between them; 0: one at a time, of which nobody knows another."""
    fenced: bool = False
    policy: Policy = field(default_factory=Policy)
    load: Load = field(default_factory=Load)


class World:
    """Made within a running loop, from a seed; :meth:`run` is its whole life."""

    def __init__(self, seed: int, plan: Plan, parts: Parts, echo: Callable[[str], None] | None = None) -> None:
        self.seed, self.plan, self.parts = seed, plan, parts
        self._loop = asyncio.get_running_loop()
        self.clock_ahead = 0.0
        """By how much the database's clock was set forward."""
        self.history = History(self._loop.time, echo)
        self.network = Network(self.random("network"), self.history, self.fail)
        self.judge = Judge(self.database_now, self.history, self._heard_at, self.fail)
        self.judge.rules = plan.policy.preemption
        self.store = parts.store(self.database_now)
        self.disk = Disk(self.store, self.random("disk"), self.judge.committed)
        size = self.random("size")
        self.nodes = [
            self._node(f"n{at}", SIZES[at % len(SIZES)])
            for at in range(size.randint(3 if plan.load.gangs else 2 if plan.fenced else 1, 4))
        ]
        self.faults = (SeveralFaults if plan.servers else Faults)(self, self.random("faults"))
        self.server: Server | Team | None = None
        self.lives = 0
        self._restarting = 0
        self._failed: asyncio.Future[None] = self._loop.create_future()
        self._running: dict[asyncio.Task[Any], None] = {}

    def random(self, what: str) -> Random:
        """Each part draws from its own stream, so that one more draw here changes nothing there."""
        return Random(f"{self.seed}/{what}")  # noqa: S311 - to be repeated, not to be secret

    def database_now(self) -> float:
        return EPOCH + self._loop.time() + self.clock_ahead

    def _heard_at(self, name: str, before: float) -> float:
        """A node that was never told its id is one of its name only: as long as that name has a session it is refused.
        Among several servers the one that hears it may reach neither the leader nor the database."""
        if self.plan.servers:
            return 0.0
        node = next(node for node in self.nodes if node.name == name)
        return EPOCH + self.network.heard_at(name, before - EPOCH) if node.node is not None else 0.0

    def _node(self, name: str, total: Resources) -> Node:
        self.judge.totals[name] = total
        node = Node(
            name, total, self.random(name), network=self.network, judge=self.judge, new_machine=self.parts.machine
        )
        node.messages_get_lost = bool(self.plan.servers)
        return node

    # ------------------------------------------------------------ life

    async def run(self) -> None:
        """Raises the first thing that was wrong."""
        story = self._loop.create_task(self._story())
        await asyncio.wait([story, self._failed], return_when=asyncio.FIRST_COMPLETED)
        for node in self.nodes:
            node.crash_agent()
        if self.server is not None:
            self.server.crash()
        for task in [story, *self._running]:
            task.cancel()
        await asyncio.gather(story, *self._running, return_exceptions=True)
        if self._failed.done():
            self._failed.result()
        story.result()

    async def _story(self) -> None:
        await self._start_server()
        for node in self.nodes:
            node.start()
        clients = [Client(self, f"c{n}", self.random(f"c{n}"), self.plan.load) for n in range(self.plan.load.clients)]
        running = [self.spawn(client.run()) for client in clients]
        if self.plan.load.scarce:
            running.append(self.spawn(book(self, self.random("bookings"), self.plan.load.requests)))
        if self.plan.load.owners:
            running.append(self.spawn(guarantee(self)))
        if not self.plan.calm:
            await self.faults.run(self.plan.seconds)
        await asyncio.gather(*running)
        self.history.note("faults", "over")
        await self._until_all_ended()
        await asyncio.sleep(REST_S)
        await self._judge_the_end()

    def spawn(self, work: Coroutine[Any, Any, T], context: Context | None = None) -> asyncio.Task[T]:
        """Run beside the rest, as part of the process whose context it is; what it raises ends the world."""
        task = self._loop.create_task(work, context=context)
        self._running[task] = None
        task.add_done_callback(self._spawned_done)
        return task

    def _spawned_done(self, task: asyncio.Task[Any]) -> None:
        self._running.pop(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, ConnectionError | StoreUnavailable):
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """The first thing that is wrong ends the world."""
        if not self._failed.done():
            self.history.note("wrong", error)
            self._failed.set_exception(error)

    # ------------------------------------------------------------ the server

    async def _start_server(self) -> None:
        if self.plan.servers:
            self.server = Team(self, self.plan.servers)
            self.network.listener = self.server.serve
            return
        while True:
            self.lives += 1
            self.server = Server(self, self.lives)
            if await self.server.start():
                return
            await asyncio.sleep(1.0)

    async def restart_server(self, after_s: float, leader_stays: bool) -> None:
        """It dies, and its successor comes later; while one is coming, it does not die again."""
        if self._restarting or not isinstance(self.server, Server):
            return
        self._restarting += 1
        self.server.crash(leader_stays)
        self.server = None
        await asyncio.sleep(after_s)
        await self._start_server()
        self._restarting -= 1

    async def ask(self, question: Callable[[StateManager], Awaitable[T]]) -> T:
        """A client's request to whichever server is up."""
        if self.server is None or self.network.listener is None:
            raise ConnectionRefusedError("nobody listens")
        return await self.server.ask(question)

    # ------------------------------------------------------------ the end

    async def _until_all_ended(self) -> None:
        until = self._loop.time() + PATIENCE_S
        while open_tasks := await self.disk.port.task_list_live(0, 10_000):
            stuck = ", ".join(f"{t.id} {t.state} {t.reason}" for t in open_tasks[:5])
            require(self._loop.time() < until, f"does not end: {stuck}")
            held = [t.id for t in open_tasks if {State.HELD, State.QUARANTINED} & {t.state, t.base, *t.counts}]
            self.judge.released.update(held)
            await self.ask(lambda manager, held=held: manager.command(farewell(held, len(self.nodes))))  # type: ignore[misc]
            await asyncio.sleep(5.0)
        while await self.disk.port.command_list_open(1):
            require(self._loop.time() < until, "a command is never acted on")
            await asyncio.sleep(1.0)

    async def _judge_the_end(self) -> None:
        store = self.disk.port
        tasks: list[Task] = await store.task_list(TaskFilter(), None, 100_000)
        elements: dict[int, list[Element]] = {
            task.id: await store.element_list(task.id, frozenset(), -2, 100_000) for task in tasks
        }
        self.judge.settled(tasks, elements, self.plan.calm)
        assert self.server is not None
        cluster = self.server.scheduler.cluster
        for what in ("tasks", "elements", "attempts", "by_task", "named_ahead", "dependents", "waits_for", "on_nodes",
                     "claims"):  # fmt: skip
            require(not getattr(cluster, what), f"the leader still holds {what}: {getattr(cluster, what)}")
        self.judge.scarcity.near = cluster.holders.placed
        for view in cluster.nodes.values():
            left = {name: amount for name, amount in view.used.items() if amount}
            require(
                not view.placed and not left and not view.ahead, f"{view.node.name} still holds {view.placed} {left}"
            )
        for node in self.nodes:
            assert node.agent is not None
            machine = node.agent.machine
            for what in ("waiting", "piped", "active", "leaving", "ended"):
                require(not getattr(machine, what), f"node {node.name} still holds {what}: {getattr(machine, what)}")
            require(machine.free == node.total, f"node {node.name} has {machine.free} free of {node.total}")
        self.history.note("end", *(f"{t.id}:{t.state}" for t in tasks))
