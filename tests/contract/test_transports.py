"""What every transport between servers promises, and the bus of a cluster on top of each."""

import asyncio
import contextlib
import signal
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from tests.servers import postgres as postgres_servers
from tests.servers.redis import RedisServer

from jarvis.bus.buses.cluster import ClusterBus
from jarvis.bus.envelope import Sealer
from jarvis.bus.transport import Transport, TransportDown
from jarvis.bus.transports.postgres import PostgresTransport
from jarvis.bus.transports.redis_streams import PREFIX, RedisTransport
from jarvis.core.effects import Stop, ToNode, ToSession, Welcome
from jarvis.core.inputs import (
    FilesSeen,
    Hello,
    Input,
    LookAgain,
    NodeConnected,
    NodeDisconnected,
    NodesSeen,
    TasksTaken,
)
from jarvis.core.states import Cause
from jarvis.state.stores.postgres import PostgresStore
from jarvis.utils.keeper import Keeper

KEY = b"k" * 32
PATIENCE_S = 15.0
HELLO = Hello(version=1, software="0", name="n1", node=7, boot_id="boot", resources={}, labels={})


class Inbox:
    """What one server receives, gathered."""

    def __init__(self, transport: Transport, name: str) -> None:
        self.entries: list[bytes] = []
        self._task = asyncio.create_task(self._gather(transport, name))

    async def _gather(self, transport: Transport, name: str) -> None:
        async for entry in transport.receive(name):
            self.entries.append(entry)

    async def has(self, count: int) -> list[bytes]:
        await eventually(lambda: len(self.entries) >= count)
        return self.entries

    async def end(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


async def eventually(predicate: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not predicate():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    server = RedisServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


Make = Callable[[], Transport]


@pytest.fixture(params=["postgres", "redis"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    """Makes transports that reach each other."""
    made: list[Transport] = []
    async with contextlib.AsyncExitStack() as stack:
        if request.param == "redis":
            url = request.getfixturevalue("redis").url

            def new() -> Transport:
                return RedisTransport(url)
        else:
            store = PostgresStore(postgres_servers.shared().database())
            await store.open()
            stack.push_async_callback(store.close)

            def new() -> Transport:
                return PostgresTransport(store.postgres)

        def make() -> Transport:
            made.append(new())
            return made[-1]

        yield make
        for transport in made:
            await transport.close()


async def sent_until_taken(transport: Transport, name: str, inbox: Inbox) -> None:
    """An inbox takes what comes from now on: say something until it does."""
    async with asyncio.timeout(PATIENCE_S):
        while not inbox.entries:
            with contextlib.suppress(TransportDown):
                await transport.send(name, b"hello")
            await asyncio.sleep(0.05)


async def test_entries_arrive_once_and_in_order(make: Make) -> None:
    name = uuid.uuid4().hex
    inbox, sender = Inbox(make(), name), make()
    await sent_until_taken(sender, name, inbox)
    entries = [b"%d" % n for n in range(250)]
    for entry in entries:
        await sender.send(name, entry)
    await eventually(lambda: entries[-1] in inbox.entries)
    await asyncio.sleep(0.2)
    assert [entry for entry in inbox.entries if entry != b"hello"] == entries
    await inbox.end()


async def test_each_has_an_inbox_of_its_own(make: Make) -> None:
    names = [uuid.uuid4().hex for _ in range(2)]
    sender = make()
    inboxes = [Inbox(make(), name) for name in names]
    for name, inbox in zip(names, inboxes, strict=True):
        await sent_until_taken(sender, name, inbox)
        await sender.send(name, name.encode())
    for name, inbox in zip(names, inboxes, strict=True):
        await eventually(lambda name=name, inbox=inbox: name.encode() in inbox.entries)  # type: ignore[misc]
    assert names[0].encode() not in inboxes[1].entries
    for inbox in inboxes:
        await inbox.end()


@pytest.mark.parametrize("after_s", [0.0, 0.001, 0.01, 0.2])
async def test_receiving_ends_when_it_is_cancelled(make: Make, after_s: float) -> None:
    inbox = Inbox(make(), uuid.uuid4().hex)
    await asyncio.sleep(after_s)
    async with asyncio.timeout(PATIENCE_S):
        await inbox.end()


async def test_a_round_trip_has_a_duration(make: Make) -> None:
    assert 0 < await make().ping() < PATIENCE_S


def emptied(redis: RedisServer, _: str) -> None:
    redis.ask("FLUSHALL")


def replaced_by_what_is_no_stream(redis: RedisServer, stream: str) -> None:
    redis.ask("DEL", stream)
    redis.ask("SET", stream, "no stream")


def given_what_is_no_entry(redis: RedisServer, stream: str) -> None:
    redis.ask("XADD", stream, "*", "other", "field")


def killed(redis: RedisServer, _: str) -> None:
    redis.stop()
    redis.start()


def restarted(redis: RedisServer, _: str) -> None:
    redis.stop(signal.SIGTERM)
    redis.start()


def frozen(redis: RedisServer, _: str) -> None:
    redis.pause(on=True)
    time.sleep(0.2)
    redis.pause(on=False)


@pytest.mark.parametrize(
    "disturbed", [emptied, replaced_by_what_is_no_stream, given_what_is_no_entry, killed, restarted, frozen]
)
async def test_entries_go_on_after_redis_was(redis: RedisServer, disturbed: Callable[[RedisServer, str], None]) -> None:
    name, sender, receiver = uuid.uuid4().hex, RedisTransport(redis.url), RedisTransport(redis.url)
    inbox = Inbox(receiver, name)
    try:
        await sent_until_taken(sender, name, inbox)
        disturbed(redis, PREFIX + name)
        inbox.entries.clear()
        await sent_until_taken(sender, name, inbox)
    finally:
        await inbox.end()
        await sender.close()
        await receiver.close()


async def test_a_redis_that_is_away_or_frozen_is_down_within_seconds() -> None:
    server = RedisServer()
    transport = RedisTransport(server.url)
    try:
        with pytest.raises(TransportDown):
            await transport.send("x", b"entry")
        server.start()
        await transport.send("x", b"entry")
        server.pause(on=True)
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(TransportDown):
                await transport.send("x", b"entry")
            with pytest.raises(TransportDown):
                await transport.ping()
    finally:
        server.remove()
        await transport.close()


# ---------------------------------------------------------------- the bus on top


class Cluster:
    """Buses that know each other; ``a`` leads."""

    def __init__(self, transports: dict[str, list[Transport]]) -> None:
        self.buses = {
            name: ClusterBus(name, ways, lambda: "a", lambda name=name: [n for n in transports if n != name])  # type: ignore[misc]
            for name, ways in transports.items()
        }

    async def start(self) -> None:
        for name, bus in self.buses.items():
            bus.start("cluster", KEY, 1, Keeper())
            bus.lead((1, 1), leading=name == "a")

    async def stop(self) -> None:
        for bus in self.buses.values():
            await bus.stop()

    async def heard(self, item: Input, wanted: type[Input]) -> Input:
        """What the leader hears when ``b`` offers the item, again and again, as a message may be lost."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                self.buses["b"].offer(item)
                for found in await self.buses["a"].take(0.1):
                    if isinstance(found, wanted):
                        return found


def carried_out(bus: ClusterBus) -> tuple[list[object], asyncio.Task[None]]:
    """What reaches the sessions of a server, and the task that gathers it."""
    got: list[object] = []

    async def gather() -> None:
        async for effect in bus.sessions():
            got.append(effect)  # noqa: PERF401 - it has no end

    return got, asyncio.create_task(gather())


@pytest.fixture
async def cluster(make: Make) -> AsyncIterator[Cluster]:
    made = Cluster({"a": [make()], "b": [make()]})
    await made.start()
    yield made
    await made.stop()


async def test_the_leader_hears_what_a_standby_is_told(cluster: Cluster) -> None:
    seen = NodesSeen("seen-1", {7: {"load": 0.5}}, {7: 3})
    assert await cluster.heard(seen, NodesSeen) == seen
    assert isinstance(await cluster.heard(TasksTaken("taken-1", []), LookAgain), LookAgain)
    found = FilesSeen("files-1", 1, frozenset({"a.csv"}), {"a.csv": (5, 1)}, node=7, mark="m")
    assert await cluster.heard(found, FilesSeen) == found
    assert not cluster.buses["b"].offer(FilesSeen("files-1", 1, frozenset(), {})), "of a machine that does not lead"


async def test_a_session_that_begins_before_its_leader_knows_that_it_leads_is_not_lost(cluster: Cluster) -> None:
    await cluster.heard(NodesSeen("seen-1", {}, {}), NodesSeen)
    bus = cluster.buses["a"]
    bus.lead((1, 2), leading=False)
    before = bus.received
    began, over = NodeConnected("hello-1", "b/1", HELLO), NodeDisconnected("over-1", "b/1", 7)
    cluster.buses["b"].offer(began)
    cluster.buses["b"].offer(over)
    await eventually(lambda: bus.received > before)
    bus.lead((1, 3), leading=True)
    assert await bus.take(0.1) == [began, over]


async def test_what_was_said_to_an_earlier_reign_is_not_heard_in_the_next(cluster: Cluster) -> None:
    bus = cluster.buses["a"]
    assert bus.offer(NodeConnected("hello-1", "b/1", HELLO))
    bus.lead((1, 2), leading=False)
    bus.lead((1, 3), leading=True)
    assert await bus.take(0.01) == []


async def test_a_standby_is_told_to_look_who_leads(cluster: Cluster) -> None:
    looked = asyncio.Event()
    cluster.buses["b"].on_look = looked.set
    async with asyncio.timeout(PATIENCE_S):
        while not looked.is_set():  # a message may be lost
            cluster.buses["a"].let_look(["b"])
            await asyncio.sleep(0.05)


async def test_orders_go_where_the_nodes_session_was_welcomed(cluster: Cluster) -> None:
    await cluster.heard(NodesSeen("seen-1", {}, {}), NodesSeen)
    welcome = Welcome(node=7, incarnation=1, epoch=1, heartbeat_s=2, fence_s=30)
    order = ToNode(7, Stop(number=3, cause=Cause.CANCELLED), "cause")
    got, task = carried_out(cluster.buses["b"])
    cluster.buses["a"].dispatch([ToSession("b/1", welcome, "cause"), order])
    await eventually(lambda: len(got) == 2)
    task.cancel()
    assert got == [ToSession("b/1", welcome, "cause"), order]


async def test_forged_repeated_and_outdated_entries_change_nothing(make: Make, cluster: Cluster) -> None:
    await cluster.heard(NodesSeen("seen-1", {}, {}), NodesSeen)
    bus, transport = cluster.buses["b"], make()
    bus.lead((1, 5), leading=False)
    order = ("ToNode", ToNode(7, Stop(number=3, cause=Cause.CANCELLED), "cause"))
    got, task = carried_out(bus)
    good = Sealer(KEY, "cluster", "c", 1)
    first = good.seal((1, 5), [order])
    for entry in (
        b"garbage",
        Sealer(b"x" * 32, "cluster", "a", 9).seal((9, 9), [order]),
        Sealer(KEY, "another", "a", 9).seal((9, 9), [order]),
        good.seal((1, 4), [order]),
        good.seal((1, 5), [("Unheard", {"of": 1})]),
        first,
        first,
    ):
        await transport.send("b", entry)
    await eventually(lambda: bus.opener.dropped.get("repeated", 0) == 1 and bool(got))
    task.cancel()
    assert got == [order[1]]
    assert bus.opener.dropped == {"forged": 2, "other cluster": 1, "old leader": 1, "unknown": 1, "repeated": 1}


async def test_what_one_way_does_not_take_goes_the_other(make: Make) -> None:
    gone = RedisTransport(f"redis://127.0.0.1:{postgres_servers.free_port()}")
    made = Cluster({"a": [make()], "b": [gone, make()]})
    await made.start()
    try:
        assert isinstance(await made.heard(NodesSeen("seen-1", {}, {}), NodesSeen), NodesSeen)
    finally:
        await made.stop()
