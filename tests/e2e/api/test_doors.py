"""Nobody comes in without a token, from another site, or by another name."""

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.routing import Route, WebSocketRoute
from tests.e2e.api.harness import Running
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from jarvis.api.auth import AUTHORITY_PATH, HOOK, OPEN_PATHS


def doors(routes: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(method or WS, path) of everything the application serves."""
    for route in routes:
        path = prefix + getattr(route, "path", "")
        if isinstance(route, WebSocketRoute):
            yield "WS", path
        elif isinstance(route, Route):
            for method in sorted((route.methods or set()) - {"HEAD"}):
                yield method, path
        elif nested := getattr(route, "routes", None):
            yield from doors(nested, path)
        else:
            context = getattr(route, "include_context", None)
            yield from doors(route.original_router.routes, prefix + (context.prefix if context else ""))


def filled(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "1", path)


async def test_the_walk_finds_all_doors(server: Running) -> None:
    found = set(doors(server.app.routes))
    for method, path in (("POST", "/tasks"), ("POST", "/tasks/batch"), ("GET", "/events"), ("WS", "/events/ws")):
        assert {(method, path), (method, f"/api/v1{path}")} <= found
    assert ("WS", "/agent/v1/session") in found
    assert len(found) > 70


async def test_every_route_refuses_the_anonymous(server: Running) -> None:
    client = server.client(None)
    wrong = server.client("nobody")
    for method, path in doors(server.app.routes):
        if method == "WS" or path in OPEN_PATHS | {AUTHORITY_PATH}:
            continue
        signed = method == "POST" and HOOK.match(filled(path))
        for asker in (client, wrong):
            answer = await asker.request(method, filled(path))
            assert answer.status_code == 401, (method, path)
            assert answer.json()["code"] == ("bad_signature" if signed else "unauthenticated")


async def test_signatures_are_the_credential_of_one_route(server: Running) -> None:
    signed = {(method, path) for method, path in doors(server.app.routes) if HOOK.match(filled(path))}
    assert signed == {("POST", f"{root}/schedules/{{ident}}/hook") for root in ("", "/api/v1")}
    for path in ("/schedules/1/hook/", "/schedules/1/2/hook", "/schedules//hook", "/x/schedules/1/hook"):
        assert (await server.client(None).post(path)).json()["code"] == "unauthenticated", path
    assert (await server.client(None).get("/schedules/1/hook")).json()["code"] == "unauthenticated"


async def test_every_socket_refuses_the_anonymous(server: Running) -> None:
    for method, path in doors(server.app.routes):
        if method == "WS":
            with pytest.raises(InvalidStatus) as refused:
                await connect(server.ws + filled(path))
            assert refused.value.response.status_code == 401, path


async def test_only_exact_paths_are_open(server: Running) -> None:
    client = server.client(None)
    for path in sorted(OPEN_PATHS):
        assert (await client.get(path)).status_code == 200, path
    assert (await client.get("/health")).json() == {"status": "ok"}
    for path in ("/alive/", "/health/x", "//alive", "/api/v1/ready/..", "/Alive", "/openapi.json"):
        assert (await client.get(path)).status_code == 401, path


async def test_the_authority_is_shown_by_servers_that_let_nodes_in_alone(server: Running) -> None:
    answer = await server.client(None).get(AUTHORITY_PATH)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_listening")


async def test_other_sites_are_refused(server: Running) -> None:
    alice = server.client("alice")
    other = {"Origin": "http://evil.example"}
    assert (await alice.post("/tasks", json={"command": ["true"]}, headers=other)).status_code == 403
    assert (await alice.get("/tasks", headers=other)).status_code == 200
    own = {"Origin": server.url}
    assert (await alice.post("/tasks", json={"command": ["true"]}, headers=own)).status_code == 201
    with pytest.raises(InvalidStatus) as refused:
        await connect(server.ws + "/events/ws", additional_headers={"Authorization": "Bearer alice-token"} | other)
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "127.0.0.1:99999999", "localhost@evil"])
async def test_foreign_hosts_are_refused(server: Running, host: str) -> None:
    answer = await server.client("alice").get("/tasks", headers={"Host": host})
    assert answer.status_code in (400, 421)
    assert (await server.client(None).get("/alive", headers={"Host": host})).status_code in (400, 421)


async def test_a_browser_socket_brings_its_token_as_a_subprotocol(server: Running) -> None:
    from websockets.typing import Subprotocol

    offered = [Subprotocol("jarvis"), Subprotocol("bearer.alice-token")]
    async with connect(server.ws + "/events/ws", subprotocols=offered) as socket:
        assert socket.subprotocol == "jarvis"


async def test_what_each_may(server: Running) -> None:
    alice, bob, eve, node = (server.client(who) for who in ("alice", "bob", "eve", "node"))
    ident = (await alice.post("/tasks", json={"command": ["true"]})).json()["id"]
    assert (await bob.get(f"/tasks/{ident}")).status_code == 200
    assert (await bob.post(f"/tasks/{ident}/cancel")).status_code == 403
    assert (await eve.get(f"/tasks/{ident}")).status_code == 404
    assert (await eve.delete(f"/tasks/{ident}")).status_code == 404
    assert (await eve.get("/tasks")).json()["items"] == []
    assert (await eve.post("/tasks", json={"command": ["true"], "project": "red"})).status_code == 403
    assert (await node.get("/tasks")).status_code == 403
    assert (await alice.post("/nodes/1/cordon")).status_code == 403
    assert (await server.client("admin").post(f"/tasks/{ident}/cancel")).status_code == 202


async def test_answers_carry_a_request_id(server: Running) -> None:
    answer = await server.client("alice").get("/tasks/7", headers={"X-Request-Id": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"] == "no task 7"


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_error(
    server: Running, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    head = "POST /tasks HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer alice-token\r\nContent-Length: 100\r\n\r\n"
    writer.write(head.encode() + b"{")
    await writer.drain()
    writer.close()
    async with asyncio.timeout(5):
        while 'code="499"' not in (await server.client("admin").get("/metrics")).text:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert await reader.read() == b""


@pytest.mark.parametrize("path", ["/tasks/calls", "/tasks/results"])
@pytest.mark.parametrize(
    "body", [b"", b"\xc1", b"\x81\xa1\xff\x00", b"\x81\xa3ids\x91\xa1\xff", b"\x81\xa4task\xa1\xff"]
)
async def test_bodies_that_are_no_messages_are_refused(server: Running, path: str, body: bytes) -> None:
    answer = await server.client("alice").post(path, content=body, headers={"Content-Type": "application/msgpack"})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_msgpack")
