"""Events, nodes, blobs, health and figures."""

import asyncio
import re
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from tests.e2e.api.harness import Running
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from jarvis.core.changes import Changes
from jarvis.core.node import Node


async def test_events_in_pages_and_by_project(server: Running) -> None:
    alice, eve = server.client("alice"), server.client("eve")
    ident = (await alice.post("/tasks", json={"command": ["x"]})).json()["id"]
    for _ in range(5):
        await server.commit(Changes(), kind="task.something", task=ident)
    page = (await alice.get("/events?limit=3")).json()
    rest = (await alice.get(f"/events?after={page['next']}")).json()
    seqs = [e["seq"] for e in page["items"] + rest["items"]]
    assert seqs == sorted(set(seqs))
    assert len(seqs) == 5
    assert (await eve.get("/events")).json()["items"] == []
    assert len((await alice.get(f"/tasks/{ident}/events")).json()["items"]) == 5
    old = await alice.get(f"/events?after={server.leadership.incarnation - 1}.1")
    assert (old.status_code, old.json()["code"]) == (410, "cursor_too_old")


async def test_events_stream_without_gap_or_repeat(server: Running) -> None:
    alice = server.client("alice")
    start = f"{server.leadership.incarnation}.{await server.store.event_last_seq()}"
    await server.commit(Changes(), kind="node.one")
    headers = {"Authorization": "Bearer alice-token"}
    async with connect(f"{server.ws}/events/ws?after={start}", additional_headers=headers) as socket:
        got: list[str] = []
        for number in range(3):
            got += [e["kind"] for e in msgspec.json.decode(await asyncio.wait_for(socket.recv(), 5))]
            await server.commit(Changes(), kind=f"node.more{number}")
        got += [e["kind"] for e in msgspec.json.decode(await asyncio.wait_for(socket.recv(), 5))]
        assert got == ["node.one", "node.more0", "node.more1", "node.more2"]
    async with alice.stream("GET", f"/events/stream?after={start}") as answer:
        lines = answer.aiter_lines()
        kinds: list[str] = []
        while len(kinds) < 4:
            line = await asyncio.wait_for(anext(lines), 5)
            if line.startswith("event: "):
                kinds.append(line[7:])
        assert kinds == got


async def test_a_defect_in_a_feed_of_events_is_logged_and_told(
    server: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def wrong(*_: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr("jarvis.api.routes.events.Visible.of", wrong)
    start = f"{server.leadership.incarnation}.{await server.store.event_last_seq()}"
    headers = {"Authorization": "Bearer alice-token"}
    async with connect(f"{server.ws}/events/ws?after={start}", additional_headers=headers) as socket:
        await server.commit(Changes(), kind="node.one")
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(socket.recv(), 5)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1011
    assert "/events/ws ended on a defect" in caplog.text
    assert "Traceback" in caplog.text


async def test_nodes_are_shown_and_drained(server: Running) -> None:
    await server.commit(Changes(nodes={3: Node(id=3, name="n3", resources={"cpu": 4000})}), kind="node.joined", node=3)
    alice, admin = server.client("alice"), server.client("admin")
    assert (await alice.get("/nodes")).json()["items"][0]["resources"] == {"cpu": "4"}
    assert (await alice.get("/nodes/n3")).json()["id"] == 3
    assert (await admin.post("/nodes/3/drain", json={"reason": "disk", "deadline": "10m"})).status_code == 202
    command = (await server.store.command_list_open(10))[0].body
    assert (command.verb, command.node, command.args) == ("node_drain", 3, {"reason": "disk", "deadline_s": 600.0})
    for verb in ("cordon", "uncordon", "resume"):
        assert (await admin.post(f"/nodes/n3/{verb}")).status_code == 202
    assert (await admin.post("/nodes/9/cordon")).status_code == 404


async def test_blobs_belong_to_their_project(server: Running) -> None:
    alice, eve = server.client("alice"), server.client("eve")
    data = bytes(range(256)) * 8192
    made = (await alice.put("/blobs", content=data)).json()
    assert made["size"] == len(data)
    assert (await alice.get(f"/blobs/{made['digest']}")).content == data
    assert (await eve.get(f"/blobs/{made['digest']}")).status_code == 404
    assert (await eve.get(f"/blobs/{made['digest']}?project=red")).status_code == 403


async def test_health_tells_what_is_down(server: Running) -> None:
    async def fine() -> Mapping[str, Any]:
        return {"status": "ok", "detail": "1 ms"}

    async def broken() -> Mapping[str, Any]:
        raise OSError("no disk")

    server.services.health_checks |= {"database": broken, "workers": fine}
    anonymous, alice = server.client(None), server.client("alice")
    assert (await anonymous.get("/ready")).status_code == 503
    assert (await anonymous.get("/health")).json() == {"status": "down"}
    checks = (await alice.get("/health")).json()["checks"]
    assert {name: c["status"] for name, c in checks.items()} == {
        "api": "ok", "scheduler_queue": "not_configured", "workers": "ok", "database": "down",
        "redis": "not_configured",
    }  # fmt: skip
    assert "no disk" in checks["database"]["detail"]
    assert checks["database"]["since"]
    assert (await anonymous.get("/alive")).status_code == 200


async def test_figures(server: Running) -> None:
    alice = server.client("alice")
    await alice.post("/tasks", json={"command": ["x"]})
    assert (await alice.get("/stats")).json()["tasks"] == {"submitted": 1}
    assert (await alice.get("/version")).json()["api"] == "v1"
    text = (await alice.get("/metrics")).text
    assert 'jarvis_api_request_seconds_count{code="201",method="POST",route="/tasks"} 1.0' in text
    document = (await alice.get("/openapi.json")).json()
    assert "/api/v1/tasks/{ident}/logs" in document["paths"]
    named = set(re.findall(r'"#/components/schemas/(\w+)"', str(document).replace("'", '"')))
    assert "TaskIn" in named
    assert named <= document["components"]["schemas"].keys()
