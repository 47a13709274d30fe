"""Agents over a real socket; the test plays the leader on the other side of the bus."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import zstandard
from tests.e2e.api.harness import Running
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from jarvis.api.admission import LONGEST_S, Admission
from jarvis.api.gateway import HOLDS_AT_ONCE
from jarvis.bus.messages import (
    LOOK_VERSION,
    OLDEST_VERSION,
    PROTOCOL_VERSION,
    AgentFrame,
    BlobData,
    BlobGet,
    BlobPut,
    BlobStored,
    ChunkStored,
    FromAgent,
    Heartbeat,
    Looked,
    OutputChunk,
    StreamData,
    StreamOpen,
    decode_from_server,
    encode,
)
from jarvis.core.attempt import Attempt, Output
from jarvis.core.changes import Changes
from jarvis.core.effects import AckFrame, Assign, Assignment, Look, Recorded, Refused, ToNode, ToSession, Welcome
from jarvis.core.holdings import HELD_LEAST, HELD_MOST, worth_telling
from jarvis.core.inputs import (
    Ended,
    FilesSeen,
    Hello,
    Input,
    NodeConnected,
    NodeDisconnected,
    NodeReported,
    NodesSeen,
    Started,
)
from jarvis.core.node import Node
from jarvis.core.states import Cause, State
from jarvis.core.task import Element

HELLO = Hello(
    version=1, software="1", name="n1", node=None, boot_id="b", resources={"cpu": 4000}, labels={}
)  # fmt: skip


class FakeAgent:
    """One session from the node's side."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket, self.seq, self.ack, self.frames = socket, 0, 0, 0
        self._got: list[Any] = []

    async def send(self, *messages: FromAgent) -> int:
        self.seq += 1
        await self.socket.send(encode(AgentFrame(self.seq, 0, list(messages))))
        return self.seq

    async def receive(self, kind: Any) -> Any:
        """The next message of a kind."""
        while True:
            for message in self._got:
                if isinstance(message, kind):
                    self._got.remove(message)
                    return message
            await self.frame()

    async def frame(self) -> None:
        data = await asyncio.wait_for(self.socket.recv(), 5)
        assert isinstance(data, bytes)
        frame = decode_from_server(data)
        self.ack = frame.ack
        self.frames += 1
        self._got += frame.messages


@asynccontextmanager
async def agent(server: Running, who: str = "node") -> AsyncIterator[FakeAgent]:
    headers = {"Authorization": f"Bearer {who}-token"}
    async with connect(server.ws + "/agent/v1/session", additional_headers=headers) as socket:
        yield FakeAgent(socket)


async def taken(server: Running, kind: type[Any]) -> Any:
    """What the leader would take from the bus."""
    kept: list[Input] = []
    async with asyncio.timeout(5):
        while True:
            kept += await server.bus.take(0.2)
            for item in kept:
                if isinstance(item, kind):
                    return item


async def welcomed(server: Running, joined: FakeAgent, node: int = 7, version: int = 1) -> str:
    hello = msgspec.structs.replace(HELLO, version=version)
    await joined.send(hello)
    connected: NodeConnected = await taken(server, NodeConnected)
    assert connected.hello == hello
    message = Welcome(node=node, incarnation=1, epoch=1, heartbeat_s=1, fence_s=10)
    server.bus.dispatch([ToSession(connected.session, message, "c")])
    assert (await joined.receive(Welcome)).node == node
    return connected.session


def assignment(ident: int, number: int = 1, token: int = 5) -> ToNode:
    given = Assignment(number, token, 1, ident, -1, "red", "alice", msgspec.Raw(msgspec.msgpack.encode({})))
    return ToNode(7, Assign(assignments=[given]), "c")


async def running_task(server: Running) -> int:
    """A task that runs on node 7 as its assignment 1."""
    ident: int = (await server.client("alice").post("/tasks", json={"command": ["x"]})).json()["id"]
    task = (await server.store.task_get_many([ident]))[0]
    now = server.services.clock.now()
    element = Element(task=ident, index=-1, state=State.RUNNING, attempt=1, token=5, node=7)
    task.state = task.base = State.RUNNING
    task.counts = {State.RUNNING: 1}
    tried = Attempt(task=ident, index=-1, attempt=1, token=5, node=7, number=1, state=State.RUNNING, assigned_at=now)
    rows = Changes(tasks={ident: task}, elements={element.key: element}, attempts_new={(ident, -1, 1): tried})
    await server.commit(rows, kind="element.running", task=ident)
    return ident


async def ended_task(server: Running, ident: int, output: Output, result: bytes | None = None) -> None:
    task = (await server.store.task_get_many([ident]))[0]
    element = Element(
        task=ident, index=-1, state=State.SUCCEEDED, attempt=1, token=5, node=7, cause="exit", exit_code=0
    )
    now = server.services.clock.now()
    task.state = task.base = State.SUCCEEDED
    task.counts, task.ended_at = {State.SUCCEEDED: 1}, now
    tried = Attempt(
        task=ident, index=-1, attempt=1, token=5, node=7, number=1, state=State.SUCCEEDED, cause=Cause.EXIT,
        assigned_at=now, ended_at=now, stdout=output, result=result,
    )  # fmt: skip
    rows = Changes(tasks={ident: task}, elements={element.key: element}, attempts={(ident, -1, 1): tried})
    await server.commit(rows, kind="element.succeeded", task=ident)


async def test_facts_reach_the_leader_and_are_acknowledged_after_its_commit(server: Running) -> None:
    async with agent(server) as joined:
        session = await welcomed(server, joined)
        server.bus.dispatch([assignment(42)])
        assert (await joined.receive(Assign)).assignments[0].task == 42
        seq = await joined.send(Started(number=1, token=5), Ended(number=1, token=5, cause=Cause.EXIT, exit_code=0))
        report: NodeReported = await taken(server, NodeReported)
        assert (report.session, report.node, report.seq) == (session, 7, seq)
        assert [type(f) for f in report.facts] == [Started, Ended]
        assert joined.ack < seq
        server.bus.dispatch([AckFrame(session, 7, seq, "c"), ToNode(7, Recorded(numbers=[1]), "c")])
        await joined.receive(Recorded)
        assert joined.ack == seq
        await joined.send(Heartbeat(health={"cpu_ratio": 0.5}))
        assert (await taken(server, NodesSeen)).seen == {7: {"cpu_ratio": 0.5}}
    gone: NodeDisconnected = await taken(server, NodeDisconnected)
    assert (gone.session, gone.node) == (session, 7)


async def test_a_node_is_shown_as_it_said_last_although_its_row_is_older(server: Running) -> None:
    await server.commit(Changes(nodes={7: Node(id=7, name="n7", seen_at=1.0)}), kind="node.registered", task=0)
    asks = server.client("alice")
    assert (await asks.get("/nodes/n7")).json()["seen_at"].startswith("1970")
    async with agent(server) as joined:
        await welcomed(server, joined)
        await joined.send(Heartbeat(health={"gpu0_ratio": 0.5}))
        await taken(server, NodesSeen)
        for shown in ((await asks.get("/nodes/n7")).json(), (await asks.get("/nodes")).json()["items"][0]):
            assert shown["health"] == {"gpu0_ratio": 0.5}
            assert not shown["seen_at"].startswith("1970")


async def test_what_a_node_holds_is_passed_on_as_far_as_it_is_believed(server: Running) -> None:
    said = {f"{at:064x}": HELD_LEAST + at for at in range(2 * HELD_MOST)} | {"a b": HELD_LEAST, "small": 1}
    async with agent(server) as joined:
        await welcomed(server, joined)
        await joined.send(Heartbeat())
        assert (await taken(server, NodesSeen)).holds == {}
        await joined.send(Heartbeat(holds=said))
        assert (await taken(server, NodesSeen)).holds == {7: worth_telling(said)}
        await joined.send(Heartbeat(holds={}))
        assert (await taken(server, NodesSeen)).holds == {7: {}}


async def test_when_all_nodes_tell_at_once_it_is_passed_on_in_parts(server: Running) -> None:
    gateway = server.app.state.gateway
    for node in range(40):
        gateway._holds[node] = {f"{at:064x}": HELD_LEAST for at in range(HELD_MOST)}
    parts = []
    while gateway._holds:
        parts.append(gateway._some_holds())
    assert [node for part in parts for node in part] == list(range(40))
    assert max(sum(map(len, part.values())) for part in parts) < HOLDS_AT_ONCE + HELD_MOST
    assert len(parts) == 3


async def test_files_are_looked_for_by_nodes_that_know_how(server: Running) -> None:
    look = ToNode(7, Look(schedule=1, directory="/in", pattern="*"), "c")
    async with agent(server) as joined:
        await welcomed(server, joined, version=LOOK_VERSION)
        server.bus.dispatch([look])
        assert (await joined.receive(Look)).directory == "/in"
        await joined.send(Looked(schedule=1, files={"a": (5, 1), "b": (6, 1)}, moving=["b"], mark="m"))
        seen: FilesSeen = await taken(server, FilesSeen)
        assert (seen.node, seen.present, seen.settled, seen.mark) == (7, frozenset("ab"), {"a": (5, 1)}, "m")
    async with agent(server) as older:
        await welcomed(server, older, version=LOOK_VERSION - 1)
        server.bus.dispatch([look, ToNode(7, Recorded(numbers=[1]), "c")])
        assert isinstance(await older.receive(Recorded | Look), Recorded), "it would not know what that is"


async def test_a_full_bus_delays_and_loses_nothing(server: Running) -> None:
    async with agent(server) as joined:
        await welcomed(server, joined)
        took, server.bus.offer = server.bus.offer, lambda item: False  # type: ignore[method-assign]
        await joined.send(Started(number=1, token=5))
        await asyncio.sleep(0.1)
        server.bus.offer = took  # type: ignore[method-assign]
        assert (await taken(server, NodeReported)).facts[0].number == 1


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xc1", b"\x93\x01\x00\x91\x81\xa1t\xa4nope", b"\x93\x01\x00\x91\x81\xa1t\xa1\xff", "text", b"\x91" * 5000,
    ],
)  # fmt: skip
async def test_malformed_frames_end_the_session(server: Running, data: bytes | str) -> None:
    async with agent(server) as joined:
        await joined.socket.send(data)
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(joined.socket.recv(), 5)
        assert joined.socket.close_code == 1008


async def test_a_frame_that_comes_again_is_passed_over_and_a_missing_one_ends_the_session(server: Running) -> None:
    async with agent(server) as joined:
        await welcomed(server, joined)
        await joined.send(Started(number=1, token=5))
        assert (await taken(server, NodeReported)).seq == 2
        joined.seq -= 1
        await joined.send(Started(number=2, token=5))
        joined.seq += 1
        await joined.send(Started(number=3, token=5))
        with pytest.raises(ConnectionClosed):
            await joined.receive(Refused)
    left = await server.bus.take(1.0)
    assert not any(isinstance(item, NodeReported) for item in left), left


async def test_nothing_comes_before_hello(server: Running) -> None:
    async with agent(server) as joined:
        await joined.send(Started(number=1, token=5))
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(joined.socket.recv(), 5)
        assert joined.socket.close_code == 1008


async def test_users_are_no_agents(server: Running) -> None:
    with pytest.raises(Exception, match="403"):
        async with agent(server, "alice"):
            pass


async def test_bodies_go_only_where_their_task_is(server: Running) -> None:
    digest = (await server.client("alice").put("/blobs", content=b"code")).json()["digest"]
    async with agent(server) as joined:
        await welcomed(server, joined)
        await joined.send(BlobGet(request=1, task=42, digest=digest))
        assert "not on this node" in (await joined.receive(BlobData)).error
        server.bus.dispatch([assignment(42)])
        await joined.receive(Assign)
        await joined.send(
            BlobGet(request=2, task=42, digest=digest), BlobPut(request=3, number=1, token=5, data=b"result")
        )
        assert (await joined.receive(BlobData)).data == b"code"
        stored: BlobStored = await joined.receive(BlobStored)
        assert await server.services.blobs.get("red", stored.digest) == b"result"
        await joined.send(BlobPut(request=4, number=1, token=4, data=b"old"))
        assert (await joined.receive(BlobStored)).error


async def test_output_is_kept_and_shown(server: Running) -> None:
    alice = server.client("alice")
    ident = await running_task(server)
    async with agent(server) as joined:
        await welcomed(server, joined)
        pieces = [b"one\n" * 100, b"two\n" * 100]
        chunks = []
        for i, piece in enumerate(pieces):
            packed = zstandard.compress(piece)
            await joined.send(OutputChunk(number=1, token=5, stream="stdout", offset=i * 400, size=400, data=packed))
            told: ChunkStored = await joined.receive(ChunkStored)
            chunks.append((told.offset, told.digest))
    await ended_task(server, ident, Output(size=800, chunks=tuple(chunks)), b"pickled")
    assert (await alice.get(f"/tasks/{ident}/logs")).content == b"".join(pieces)
    assert (await alice.get(f"/tasks/{ident}/logs?tail=6")).content == b"o\ntwo\n"
    assert (await alice.get(f"/tasks/{ident}/logs?offset=398")).content == b"".join(pieces)[398:]
    assert (await alice.get(f"/tasks/{ident}/logs?follow=1")).content == b"".join(pieces)
    assert (await alice.get(f"/tasks/{ident}/logs?stream=stderr")).content == b""
    assert (await alice.get(f"/tasks/{ident}/result")).content == b"pickled"
    assert (await alice.get(f"/tasks/{ident}/attempts")).json()["items"][0]["stdout"]["size"] == 800
    shown = (await alice.get(f"/tasks/{ident}")).json()
    assert (shown["state"], shown["exit_code"], shown["cause"]) == ("succeeded", 0, "exit")


async def test_running_output_is_followed_through_the_node(server: Running) -> None:
    alice = server.client("alice")
    ident = await running_task(server)
    assert (await alice.get(f"/tasks/{ident}/logs")).status_code == 503
    async with agent(server) as joined:
        await welcomed(server, joined)
        async with alice.stream("GET", f"/tasks/{ident}/logs?follow=1") as answer:
            opened: StreamOpen = await joined.receive(StreamOpen)
            assert (opened.kind, opened.number, opened.follow) == ("tail", 1, True)
            await joined.send(StreamData(stream=opened.stream, data=b"hello "))
            await joined.send(StreamData(stream=opened.stream, data=b"world", end=True))
            await ended_task(server, ident, Output(size=17, inline=b"hello world, bye!"))
            assert await answer.aread() == b"hello world, bye!", "what the node could not send comes from the record"


async def test_an_empty_output_is_empty(server: Running) -> None:
    ident = await running_task(server)
    await ended_task(server, ident, Output())
    alice = server.client("alice")
    for query in ("", "?follow=1", "?tail=5"):
        answer = await alice.get(f"/tasks/{ident}/logs{query}")
        assert (answer.status_code, answer.content) == (200, b"")


async def test_exec_relays_both_ways(server: Running) -> None:
    ident = await running_task(server)
    async with agent(server) as joined:
        await welcomed(server, joined)
        headers = {"Authorization": "Bearer alice-token"}
        url = f"{server.ws}/tasks/{ident}/exec?argv=sh&argv=-i&rows=24&columns=80"
        async with connect(url, additional_headers=headers) as user:
            opened: StreamOpen = await joined.receive(StreamOpen)
            assert (opened.kind, opened.argv, opened.pty) == ("exec", ("sh", "-i"), (24, 80))
            await user.send(b"ls\n")
            assert (await joined.receive(StreamData)).data == b"ls\n"
            assert msgspec.json.decode(await user.recv()) == {"taken": 3}, "room for as much input again"
            await joined.send(
                StreamData(stream=opened.stream, data=b"file\n"), StreamData(stream=opened.stream, end=True)
            )
            assert await user.recv() == b"file\n"
            assert msgspec.json.decode(await user.recv())["end"] is True
        bob = {"Authorization": "Bearer bob-token"}
        async with connect(url, additional_headers=bob) as user:
            assert msgspec.json.decode(await user.recv())["code"] == "not_allowed"


async def test_a_defect_in_a_stream_is_logged_and_told(
    server: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ident = await running_task(server)
    monkeypatch.setattr("jarvis.api.session.StreamHandle.took", _wrong)
    async with agent(server) as joined:
        await welcomed(server, joined)
        headers = {"Authorization": "Bearer alice-token"}
        async with connect(f"{server.ws}/tasks/{ident}/exec?argv=ls", additional_headers=headers) as user:
            opened: StreamOpen = await joined.receive(StreamOpen)
            await joined.send(StreamData(stream=opened.stream, data=b"file\n"))
            assert await user.recv() == b"file\n"
            with pytest.raises(ConnectionClosed) as closed:
                await user.recv()
        assert (await joined.receive(StreamData)).end, "nobody takes it any more"
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1011
    assert f"the web socket of /tasks/{ident}/exec ended on a defect" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def _wrong(*_: object) -> None:
    raise ZeroDivisionError("a defect")


async def test_versions_are_negotiated_and_a_refusal_tells_what_to_do(server: Running) -> None:
    async with agent(server) as session:
        await session.send(msgspec.structs.replace(HELLO, version=PROTOCOL_VERSION + 3, oldest=1))
        connected: NodeConnected = await taken(server, NodeConnected)
        message = Welcome(node=7, incarnation=1, epoch=1, heartbeat_s=1, fence_s=10)
        server.bus.dispatch([ToSession(connected.session, message, "c")])
        assert (await session.receive(Welcome)).version == PROTOCOL_VERSION
    async with agent(server) as session:
        await session.send(msgspec.structs.replace(HELLO, version=PROTOCOL_VERSION + 3, oldest=PROTOCOL_VERSION + 1))
        refused = await session.receive(Refused)
        assert "upgrade this server" in refused.reason
        assert (refused.oldest, refused.newest, refused.retry_s) == (OLDEST_VERSION, PROTOCOL_VERSION, None)


async def test_a_crowd_is_told_to_come_later_and_counts_as_heard(server: Running) -> None:
    server.app.state.gateway.admission = Admission(rate=0.001, burst=0, _left=0.0)
    async with agent(server) as session:
        await session.send(msgspec.structs.replace(HELLO, node=7))
        refused = await session.receive(Refused)
        assert 1.0 <= refused.retry_s <= LONGEST_S
        assert (await taken(server, NodesSeen)).seen == {7: {}}


async def test_what_is_recorded_is_told_along_with_what_comes_next_or_soon(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with agent(server) as joined:
        await welcomed(server, joined)
        monkeypatch.setattr("jarvis.api.session.LATER_S", 60.0)
        server.bus.dispatch([ToNode(7, Recorded(numbers=[1]), "c")])
        for _ in range(5):
            await asyncio.sleep(0)
        server.bus.dispatch([assignment(3, number=2)])
        recorded, assigned = await joined.receive(Recorded), await joined.receive(Assign)
        assert (recorded.numbers, assigned.assignments[0].number) == ([1], 2)
        assert joined.frames == 2, "the first was the welcome"
        monkeypatch.setattr("jarvis.api.session.LATER_S", 0.001)
        server.bus.dispatch([ToNode(7, Recorded(numbers=[2]), "c")])
        assert (await joined.receive(Recorded)).numbers == [2]
