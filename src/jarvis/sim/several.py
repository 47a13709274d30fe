"""Several servers in one simulated world: each with its election, bus, gateway and way to the database; messages get lost."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar, cast

from jarvis.api.gateway import Gateway
from jarvis.api.services import ApiSettings, Services
from jarvis.bus.buses.cluster import ClusterBus
from jarvis.bus.transport import TransportDown
from jarvis.core.errors import StoreUnavailable
from jarvis.scheduler.leader import Election
from jarvis.sim.disk import Disk
from jarvis.sim.loop import OF_NOBODY, VirtualLoop, of_process
from jarvis.sim.network import ServerEnd
from jarvis.sim.server import Doorman
from jarvis.state.blob_stores.memory import MemoryBlobStore
from jarvis.state.coordination import Leader, Replica
from jarvis.state.state_manager import StateManager
from jarvis.utils.clock import Clock
from jarvis.utils.keeper import Keeper

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

    from jarvis.scheduler.scheduler import Scheduler
    from jarvis.sim.world import World

T = TypeVar("T")
LEASE_S = 10.0
SEEN_EVERY_S = 2.0
KEY = b"k" * 32


class Post:
    """What carries entries between servers: late, lost, or twice."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.lost_share = self.twice_share = 0.0
        self.down = False
        self._inboxes: dict[str, asyncio.Queue[bytes]] = {}

    def inbox(self, name: str) -> "asyncio.Queue[bytes]":
        return self._inboxes.setdefault(name, asyncio.Queue())

    def close(self, name: str) -> None:
        """What nobody reads is forgotten."""
        self._inboxes.pop(name, None)

    def put(self, to: str, entry: bytes) -> None:
        if self.down:
            raise TransportDown("the post is down")
        draw = self._random.random()
        if to not in self._inboxes or draw < self.lost_share:
            return
        late = self._random.uniform(0.0005, 0.003) * (50.0 if self._random.random() < 0.02 else 1.0)
        for copy in range(1 + (draw > 1.0 - self.twice_share)):
            asyncio.get_running_loop().call_later(late * (1 + copy), self._arrive, to, entry, context=OF_NOBODY)

    def _arrive(self, to: str, entry: bytes) -> None:
        if (inbox := self._inboxes.get(to)) is not None:
            inbox.put_nowait(entry)


class PostTransport:
    """See the port: one server's end of the post."""

    name = "post"

    def __init__(self, post: Post) -> None:
        self._post = post
        self.dead = False
        """Its process is gone."""

    async def send(self, to: str, entry: bytes) -> None:
        await asyncio.sleep(0)
        if not self.dead:
            self._post.put(to, entry)

    async def receive(self, inbox: str) -> AsyncIterator[bytes]:
        queue = self._post.inbox(inbox)
        while True:
            yield await queue.get()

    async def ping(self) -> float:
        return 0.0

    async def close(self) -> None:
        """Nothing is held."""


class Member:
    """One life of one of several server processes."""

    def __init__(self, world: "World", post: Post, seat: int, life: int) -> None:
        self._world, self._post, self._names = world, post, 0
        self.name, self._life = f"s{seat}.{life}", life
        self._context = of_process(self.name)
        loop = asyncio.get_running_loop()
        self.disk = Disk(world.store, world.random(f"disk-{self.name}"), world.judge.committed, shared=True)
        rate = world.random(f"clock-{self.name}").uniform(0.8, 1.25)
        store, self.clock = self.disk.port, Clock(lambda: loop.time() * rate, world.database_now)
        self._others: list[str] = []
        self.transport = PostTransport(post)
        self.bus = ClusterBus(self.name, [self.transport], self._leader_name, lambda: self._others)
        blobs = MemoryBlobStore()
        self.manager = StateManager(store, blobs, self.bus)
        self.scheduler = world.parts.scheduler(
            store, self.bus, self.clock, lambda: world.plan.policy, self.name, lease_s=LEASE_S
        )
        self.election = Election(self.scheduler, self._leader_changed, self._let_look)
        self.bus.on_look = self.election.wake
        services = Services(
            store=store, blobs=blobs, state_manager=self.manager, bus=self.bus, clock=self.clock,
            authenticator=Doorman(), replica=self.name, settings=ApiSettings(report_after_s=1.0),
        )  # fmt: skip
        self.gateway = Gateway(services, self._new_name)
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._ends: list[ServerEnd] = []
        self.alive = False

    def _new_name(self) -> str:
        self._names += 1
        return f"{self._life}.{self._names}"

    def _leader_name(self) -> str | None:
        return self.election.leader.holder if self.election.leader is not None else None

    def _leader_changed(self, leader: Leader) -> None:
        epoch = (leader.leadership.incarnation, leader.leadership.epoch)
        self._world.history.note("leader", self.name, leader.holder, *epoch, self.election.leads)
        self.bus.lead(epoch, self.election.leads)
        self.gateway.begin_anew(*epoch)

    def _let_look(self) -> None:
        self.bus.let_look(self._others)

    def start(self) -> None:
        self.alive = True
        self._post.inbox(self.name)
        for work in (self._until_crash(), self.gateway.run(), self._be_seen()):
            self._spawn(work)

    async def _until_crash(self) -> None:
        self.bus.start("sim", KEY, self._life, Keeper())
        try:
            await self.election.run()
        finally:
            await self.bus.stop()

    async def _be_seen(self) -> None:
        store = self.disk.port
        while True:
            try:
                await store.replica_seen(Replica(self.name, "", "0"))
                self._others = [r.name for r in await store.replica_list(3 * SEEN_EVERY_S) if r.name != self.name]
            except StoreUnavailable:
                self._world.history.note("unseen", self.name)
            await asyncio.sleep(SEEN_EVERY_S)

    def serve(self, end: ServerEnd) -> None:
        """A node has dialled."""
        self._ends = [other for other in self._ends if not other.link.over]
        self._ends.append(end)
        self._spawn(self.gateway.serve(cast("WebSocket", end)))

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = self._world.spawn(work, self._context)
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

    async def pause(self, seconds: float) -> None:
        """Stand still, wherever it is: also between what it has read and what it writes."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.freeze(self.name)
        await asyncio.sleep(seconds)
        loop.thaw(self.name)

    def crash(self) -> None:
        """The process is gone, at whatever await it was; what it would have said or written afterwards is not."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.thaw(self.name)
        self.alive, self.disk.dead, self.transport.dead = False, True, True
        self._post.close(self.name)
        for end in self._ends:
            end.link.cut()
        for task in list(self._tasks):
            task.cancel()


class Team:
    """All seats, as one server to the rest of the world: whoever is up takes nodes and questions."""

    def __init__(self, world: "World", seats: int) -> None:
        self._world, self._random = world, world.random("team")
        self.post = Post(world.random("post"))
        self.members: list[Member] = []
        self._lives = 0
        for seat in range(seats):
            self.members.append(self._begin(seat))

    def _begin(self, seat: int) -> Member:
        self._lives += 1
        member = Member(self._world, self.post, seat, self._lives)
        member.start()
        return member

    @property
    def alive(self) -> list[Member]:
        return [member for member in self.members if member.alive]

    @property
    def scheduler(self) -> "Scheduler":
        """Of the one that leads."""
        return next(member.scheduler for member in self.alive if member.election.leads)

    def serve(self, end: ServerEnd) -> None:
        """A node dials one of them; one that is down does not answer."""
        member = self._random.choice(self.members)
        if member.alive:
            member.serve(end)
        else:
            end.link.cut()

    async def ask(self, question: Callable[[StateManager], Awaitable[T]]) -> T:
        member = self._random.choice(self.members)
        if not member.alive:
            raise ConnectionRefusedError("nobody listens")
        return await member.ask(question)

    async def restart(self, after_s: float) -> None:
        """One of them dies, and comes back as another life."""
        seat = self._random.randrange(len(self.members))
        if self.members[seat].alive:
            self.members[seat].crash()
            await asyncio.sleep(after_s)
            self.members[seat] = self._begin(seat)

    async def pause(self, seconds: float) -> None:
        """One of them stands still, the leader as often as any other."""
        leading = [member for member in self.alive if member.election.leads]
        some = leading if leading and self._random.random() < 0.5 else self.alive
        if some:
            await self._random.choice(some).pause(seconds)

    def crash(self) -> None:
        for member in self.alive:
            member.crash()
