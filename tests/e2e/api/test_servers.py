"""Several servers on one store: leases, facts that the leader does not take, streams and answers of another server."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx2 as httpx
import msgspec
import pytest
from tests.e2e.api.harness import Running, running
from tests.e2e.api.test_gateway import agent, running_task, taken, welcomed

from jarvis.api.auth import StoreAuthenticator, token_hash
from jarvis.api.peers import Peers
from jarvis.bus.buses.memory import MemoryBus
from jarvis.bus.messages import Heartbeat, StreamData, StreamOpen, StreamTaken
from jarvis.core.changes import Changes
from jarvis.core.effects import Refused
from jarvis.core.errors import StaleEpoch
from jarvis.core.ids import ElementKey
from jarvis.core.inputs import Ended, Input, NodesSeen, Started, decode_facts
from jarvis.core.node import Node
from jarvis.core.permissions import Principal
from jarvis.core.states import Cause, State
from jarvis.core.task import TaskSpec
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.leader import Election
from jarvis.scheduler.scheduler import Scheduler
from jarvis.state.coordination import Replica
from jarvis.state.stores.memory import MemoryStore
from jarvis.utils.clock import Clock

if TYPE_CHECKING:
    from jarvis.state.coordination import Leader

PEER = "peer-token"


async def until(predicate: Callable[[], bool], patience: float = 10.0) -> None:
    async with asyncio.timeout(patience):
        while not predicate():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


class Candidate:
    """A server's scheduler that campaigns."""

    def __init__(self, name: str, store: MemoryStore, lease_s: float = 0.6) -> None:
        self.scheduler = Scheduler(store, MemoryBus(), Clock(), Policy, name, lease_s=lease_s)
        self.changes: list[Leader] = []
        self.election = Election(self.scheduler, self.changes.append)
        self.task = asyncio.create_task(self.election.run())

    async def stop(self) -> None:
        self.election.stop()
        await asyncio.wait_for(self.task, 5)


async def test_one_leads_and_another_takes_over_when_it_stops() -> None:
    store = MemoryStore()
    first = Candidate("a", store)
    await until(lambda: first.election.leads)
    second = Candidate("b", store)
    await until(lambda: second.election.standby)
    assert second.election.leader is not None
    assert second.election.leader.holder == "a"
    await first.stop()
    await until(lambda: second.election.leads)
    assert [leader.holder for leader in second.changes] == ["a", "b"]
    assert second.scheduler.leadership.epoch == 2
    await second.stop()


async def test_a_leader_that_renews_keeps_its_lease_and_one_that_stalls_loses_it() -> None:
    store = MemoryStore()
    first = Candidate("a", store, lease_s=2.5)
    await until(lambda: first.election.leads)
    second = Candidate("b", store, lease_s=2.5)
    begun = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError):
        await until(lambda: second.election.leads, 4.0)
    assert asyncio.get_running_loop().time() - begun > 2.5
    first.task.cancel()  # frozen, as far as anybody else can see
    stale = first.scheduler.leadership
    await store.leadership_renew(stale, 0.3)
    await until(lambda: second.election.leads)
    with pytest.raises(StaleEpoch):
        await store.leader_commit(stale, Changes())
    await second.stop()


async def test_who_was_superseded_campaigns_again() -> None:
    store = MemoryStore()
    first = Candidate("a", store, lease_s=5.0)
    await until(lambda: first.election.leads)
    await store.leadership_release(first.scheduler.leadership)
    usurper = await store.leadership_acquire("b", 3.0)
    await until(lambda: first.election.standby)
    await until(lambda: first.election.leads)
    assert first.scheduler.leadership.epoch == usurper.epoch + 1
    await first.stop()


# ------------------------------------------------------------ facts without a leader


@asynccontextmanager
async def replica(store: MemoryStore | None = None, name: str = "a") -> AsyncIterator[Running]:
    async with running(store=store, replica=name, report_after_s=0.2) as server:
        yield server


async def test_facts_that_nobody_acknowledges_are_kept_for_the_leader_and_are_safe_then() -> None:
    async with replica() as server, agent(server) as joined:
        await welcomed(server, joined)
        ended = Ended(number=1, token=5, cause=Cause.EXIT, exit_code=0)
        seq = await joined.send(Started(number=1, token=5), ended)
        while joined.ack < seq:
            await joined.frame()
        (report,) = await server.store.report_list_open(10)
        assert report.node == 7
        assert decode_facts(report.body) == [Started(number=1, token=5), ended]


async def test_a_gateway_goes_on_reading_while_the_leader_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with replica() as server, agent(server) as joined:
        await welcomed(server, joined)
        monkeypatch.setattr(server.bus, "offer", lambda item: False)
        last = 0
        for number in range(1, 51):
            last = await joined.send(Ended(number=number, token=5, cause=Cause.EXIT, exit_code=0))
        while joined.ack < last:
            await joined.frame()
        kept = [decode_facts(r.body) for r in await server.store.report_list_open(100)]
        assert [fact.number for facts in kept for fact in facts if isinstance(fact, Ended)] == list(range(1, 51))


async def test_the_leader_takes_what_was_kept() -> None:
    async with replica() as server, agent(server) as joined:
        task = await running_task(server)
        rows = Changes(nodes={7: Node(id=7, name="n7", boot_id="b", resources={"cpu": 4000}, next_number=2)})
        await server.commit(rows, kind="node.registered", task=0)
        await welcomed(server, joined)
        seq = await joined.send(Ended(number=1, token=5, cause=Cause.EXIT, exit_code=0))
        while joined.ack < seq:
            await joined.frame()
        await server.store.leadership_release(server.leadership)
        leader = Candidate("a", server.store)
        await until(lambda: server.store._tasks[task].ended_at is not None)
        assert (await server.store.task_get_many([task]))[0].state == "succeeded"
        assert await server.store.report_list_open(10) == []
        await leader.stop()


async def test_heartbeats_are_written_down_and_tell_what_arrived() -> None:
    async with replica() as server, agent(server) as joined:
        await server.commit(Changes(nodes={7: Node(id=7, name="n7")}), kind="node.registered", task=0)
        await welcomed(server, joined)
        came: NodesSeen = await taken(server, NodesSeen)
        assert (came.seen, came.told) == ({7: {}}, {})
        await joined.send(Heartbeat(health={"load1": 0.5}, told=3))
        seen: NodesSeen = await taken(server, NodesSeen)
        assert (seen.seen, seen.told) == ({7: {"load1": 0.5}}, {7: 3})
        (node,) = await server.store.node_list()
        assert node.seen_at == pytest.approx(server.services.clock.now(), abs=30)
        assert node.health == {"load1": 0.5}
        assert await server.store.node_replicas() == {7: "a"}


async def test_what_no_leader_took_is_not_said_to_be_heard_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was written down once; its node may be gone since, and would never be missed."""
    async with replica() as server, agent(server) as joined, agent(server) as another:
        offer, seen = server.bus.offer, asyncio.Queue[NodesSeen]()

        def refuses(item: Input) -> bool:
            if isinstance(item, NodesSeen):
                seen.put_nowait(item)
                return False
            return offer(item)

        monkeypatch.setattr(server.bus, "offer", refuses)
        await welcomed(server, joined)
        await welcomed(server, another, node=8)
        async with asyncio.timeout(10):
            come: set[int] = set()
            while come != {7, 8}:
                come |= (await seen.get()).seen.keys()
            for socket, node in ((joined, 7), (another, 8)):
                await socket.send(Heartbeat(health={}))
                assert (await seen.get()).seen.keys() == {node}


async def test_sessions_of_another_leader_begin_anew() -> None:
    async with replica() as server, agent(server) as joined:
        await welcomed(server, joined)
        server.app.state.gateway.begin_anew(1, 1)
        await joined.send(Heartbeat(health={}))
        await taken(server, NodesSeen)
        server.app.state.gateway.begin_anew(1, 2)
        refused = await joined.receive(Refused)
        assert refused.retry_s is not None


# ------------------------------------------------------------ other servers


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Running, Running]]:
    """Two servers of one cluster that know each other; the first holds the sessions."""
    async with replica() as first, replica(first.store, "b") as second:
        for server, name in ((first, "a"), (second, "b")):
            await server.store.replica_seen(Replica(name, server.url, "1"))
            server.services.peers = Peers(server.store, PEER)
            doorman = server.services.authenticator
            assert isinstance(doorman, StoreAuthenticator)
            doorman.admit(token_hash(PEER), Principal("jarvis", "peer"))
        yield first, second


async def test_a_stream_reaches_a_node_whose_session_is_elsewhere() -> None:
    async with pair() as (first, second), agent(first) as joined:
        task = await running_task(first)
        await first.commit(Changes(nodes={7: Node(id=7, name="n7")}), kind="node.registered", task=0)
        await welcomed(first, joined)
        await joined.send(Heartbeat(health={}))
        await taken(first, NodesSeen)
        async with second.client("alice").stream("GET", f"/tasks/{task}/logs?follow=1") as response:
            opened: StreamOpen = await joined.receive(StreamOpen)
            assert (opened.number, opened.kind) == (1, "tail")
            await joined.send(StreamData(stream=opened.stream, data=b"x" * 300_000))
            read = response.aiter_bytes()
            got = b""
            while len(got) < 300_000:
                got += await anext(read)
            assert got == b"x" * 300_000
            assert (await joined.receive(StreamTaken)).size
        assert (await joined.receive(StreamData)).end, "who watched is gone, and the node is told"


async def test_and_one_that_has_just_come() -> None:
    """Its first heartbeat, which says where it is, may take seconds."""
    async with pair() as (first, second), agent(first) as joined:
        task = await running_task(first)
        await first.commit(Changes(nodes={7: Node(id=7, name="n7")}), kind="node.registered", task=0)
        await welcomed(first, joined)
        reading = asyncio.create_task(second.client("alice").get(f"/tasks/{task}/logs"))
        opened: StreamOpen = await joined.receive(StreamOpen)
        await joined.send(StreamData(stream=opened.stream, data=b"begun", end=True))
        response = await reading
        assert (response.status_code, response.content) == (200, b"begun")


async def test_without_the_server_that_has_the_session_a_stream_is_refused() -> None:
    async with pair() as (first, second):
        task = await running_task(first)
        await first.commit(Changes(nodes={7: Node(id=7, name="n7")}), kind="node.registered", task=0)
        response = await second.client("alice").get(f"/tasks/{task}/logs")
        assert (response.status_code, response.json()["code"]) == (503, "node_away")
        await first.store.node_seen_many([(7, 1.0, {})], "gone")
        response = await second.client("alice").get(f"/tasks/{task}/logs")
        assert (response.status_code, response.json()["code"]) == (503, "replica_away")


async def test_a_standby_asks_the_leader_why() -> None:
    async with pair() as (first, second):

        async def known(key: ElementKey, asked_by_peer: bool = False) -> dict[str, object]:
            return {"summary": f"{key.task} {asked_by_peer}"}

        first.services.why = known
        assert second.services.peers is not None
        assert await second.services.peers.why("a", ElementKey(5)) == {"summary": "5 True"}


async def test_a_standby_asks_the_leader_what_to_recommend() -> None:
    async with pair() as (first, second):

        async def known(project: str, user: str, spec: TaskSpec, asked_by_peer: bool = False) -> dict[str, object]:
            return {"summary": f"{project} {user} {spec.name} {asked_by_peer}"}

        first.services.recommend = known
        assert second.services.peers is not None
        told = await second.services.peers.plan("a", "p", "ann", TaskSpec(name="fit"), "recommend")
        assert told == {"summary": "p ann fit True"}


async def test_a_standby_asks_the_leader_who_has_licences() -> None:
    async with pair() as (first, second):
        row = {"license": "matlab", "total": 2, "used": 1, "free": 1, "tasks": [7]}

        async def known(asked_by_peer: bool = False) -> dict[str, object]:
            return {"items": [row], "next": None, "by_peer": asked_by_peer}

        first.services.licenses = known
        assert second.services.peers is not None
        assert await second.services.peers.ask("a", "licenses") == {"items": [row], "next": None, "by_peer": True}


async def test_a_standby_asks_the_leader_what_a_node_holds() -> None:
    async with pair() as (first, second):

        async def known(node: int, asked_by_peer: bool = False) -> dict[str, object]:
            return {"holds": {"docker.io/library/alpine:latest": node}, "by_peer": asked_by_peer}

        first.services.holds = known
        assert second.services.peers is not None
        told = await second.services.peers.ask("a", "holds/7")
        assert told == {"holds": {"docker.io/library/alpine:latest": 7}, "by_peer": True}


async def test_a_standby_asks_the_leader_why_tasks_wait_and_what_is_in_use() -> None:
    async with pair() as (first, second):

        async def words(tasks: Sequence[int], asked_by_peer: bool = False) -> dict[str, object]:
            return {str(task): f"Resources {asked_by_peer}" for task in tasks}

        async def use(asked_by_peer: bool = False) -> dict[str, object]:
            return {"7": {"cpu": 1500}}

        first.services.reasons, first.services.used = words, use
        assert second.services.peers is not None
        assert await second.services.peers.ask("a", "reasons/5,6") == {"5": "Resources True", "6": "Resources True"}
        assert await second.services.peers.ask("a", "used") == {"7": {"cpu": 1500}}


async def test_what_the_leader_knows_of_nodes_and_of_what_is_queued_is_listed_with_it() -> None:
    async with running() as server:
        alice = server.client("alice")
        ident = (await alice.post("/tasks", json={"command": "true"})).json()["id"]
        queued = msgspec.structs.replace((await server.store.task_get_many([ident]))[0], state=State.QUEUED)
        await server.commit(
            Changes(tasks={ident: queued}, nodes={3: Node(id=3, name="n3", resources={"cpu": 4000})}), kind="made"
        )
        (row,) = (await alice.get("/tasks?reasons=true")).json()["items"]
        assert (row["state"], row["reason"]) == ("queued", ""), "nobody leads"
        assert (await alice.get("/nodes?used=true")).json()["items"][0]["used"] is None

        async def words(tasks: Sequence[int], asked_by_peer: bool = False) -> dict[str, object]:
            return {str(task): "Resources" for task in tasks}

        async def use(asked_by_peer: bool = False) -> dict[str, object]:
            return {"3": {"cpu": 1500, "memory": 1 << 30}}

        server.services.reasons, server.services.used = words, use
        assert (await alice.get("/tasks?reasons=true")).json()["items"][0]["reason"] == "Resources"
        assert (await alice.get("/tasks")).json()["items"][0]["reason"] == "", "only who asks waits for it"
        assert (await alice.get("/nodes?used=true")).json()["items"][0]["used"] == {"cpu": "1.5", "memory": "1Gi"}
        assert (await alice.get("/nodes")).json()["items"][0]["used"] is None
        assert (await alice.get("/nodes/3")).json()["used"] == {"cpu": "1.5", "memory": "1Gi"}


async def test_a_recommendation_is_for_one_thing_that_the_asker_may_see() -> None:
    async with running() as server:
        client = server.client("alice")
        for query, code, field in (
            ("", 422, "task"), ("?task=1&name=x", 422, "task"), ("?task=999", 404, None), ("?name=%00", 422, "name"),
            ("?name=x&user=%1b", 422, "user"), ("?name=x&project=elsewhere", 403, None), ("?name=x", 503, None),
        ):  # fmt: skip
            response = await client.get(f"/recommend{query}")
            said = response.json()
            assert (response.status_code, (said.get("errors") or [{}])[0].get("path")) == (code, field), (
                query,
                said,
            )
        assert (await server.client(None).get("/recommend?name=x")).status_code == 401


@pytest.mark.parametrize("who", ["alice", "node", None])
async def test_only_servers_come_through_the_servers_door(who: str | None) -> None:
    async with pair() as (first, _):
        response = await first.client(who).get("/replica/v1/why/1/-1")
        assert response.status_code == (401 if who is None else 403)
        peer = httpx.AsyncClient(base_url=first.url, headers={"Authorization": f"Bearer {PEER}"})
        assert (await peer.get("/tasks")).status_code == 403
        assert (await peer.post("/tasks", json={"command": ["x"]})).status_code == 403
        await peer.aclose()


async def test_events_that_no_message_brought_are_found() -> None:
    async with pair() as (first, second):
        task = await running_task(first)
        asked = asyncio.create_task(second.client("alice").get(f"/tasks/{task}?wait=30s"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asked), 0.5)
        state = (await first.store.task_get_many([task]))[0]
        state.state, state.ended_at = state.state.SUCCEEDED, 5.0
        await first.commit(Changes(tasks={task: state}), kind="succeeded", task=task)
        assert (await asyncio.wait_for(asked, 10)).json()["state"] == "succeeded"
