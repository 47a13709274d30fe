"""A defect in each loop of a server that nobody waits for: said in the log and in ``/health``, and the loop goes on."""

import asyncio
import datetime as dt
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from tests.e2e.cluster.test_health import PATIENCE, reds, running, until
from tests.servers import postgres as postgres_servers

from jarvis.utils import keeper

pytestmark = pytest.mark.timeout(120)
LOOPS = {
    "retention": "jarvis.state.retention.Retention.run",
    "arrivals": "jarvis.scheduler.arrivals.Arrivals.run",
    "metrics": "jarvis.web.Web.observe",
    "election": "jarvis.scheduler.leader.Election.run",
    "event hub": "jarvis.api.event_hub.EventHub.run",
    "gateway": "jarvis.api.gateway.Gateway.run",
    "be seen": "jarvis.wiring.Server._be_seen",
    "read ahead": "jarvis.wiring.Server._read_ahead",
    "owner": "jarvis.wiring.Server._watch_owner",
}
"""By the names that they are told by."""
ALONE = set(LOOPS) - {"be seen", "read ahead"}
"""Those of a server that is not one of several."""


class Defects:
    """Each loop ends on one when it begins first, and then runs as it is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lives = dict.fromkeys(LOOPS, 0)
        for name, path in LOOPS.items():
            monkeypatch.setattr(path, self._first_wrong(name, _found(path)))

    def _first_wrong(self, name: str, run: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def wrong(*given: Any) -> None:
            self.lives[name] += 1
            if self.lives[name] == 1:
                raise ZeroDivisionError(name)
            await run(*given)

        return wrong


def _found(path: str) -> Callable[..., Awaitable[None]]:
    module, kind, name = path.rsplit(".", 2)
    found: Callable[..., Awaitable[None]] = getattr(getattr(__import__(module, fromlist=[kind]), kind), name)
    return found


async def test_every_loop_of_a_server_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keeper, "TOLD_S", 1.0)
    defects = Defects(monkeypatch)
    async with running(tmp_path / "s") as (_, client):  # which waits until everything is well
        assert {name for name, lives in defects.lives.items() if lives == 2} == ALONE
        answer = await client.post("/tasks", json={"command": "true", "cwd": "/"})
        ended = await client.get(f"/tasks/{answer.json()['id']}?wait=30s")
        assert ended.json()["state"] == "succeeded"
    for name in ALONE:
        assert f"{name} ended on a defect" in caplog.text


async def test_so_do_those_of_one_among_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keeper, "TOLD_S", 1.0)
    defects = Defects(monkeypatch)
    store = {"kind": "postgres", "url": postgres_servers.shared().database()}
    async with running(tmp_path / "s", store=store, server={"scheduler_process": "shared"}):
        assert set(defects.lives.values()) == {2}
    assert "be seen ended on a defect" in caplog.text
    assert "read ahead ended on a defect" in caplog.text


async def test_the_listener_for_other_machines_stays_through_a_defect_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keeper, "TOLD_S", 1.0)
    monkeypatch.setattr("jarvis.web.LOOK_S", 0.1)
    with monkeypatch.context() as there:
        there.setattr("jarvis.api.tls.Tls.renew_if_late", _wrong_at_once)
        async with running(tmp_path / "s", server={"listen": "127.0.0.1:0"}) as (server, _):
            async with asyncio.timeout(PATIENCE):
                while "tls ended on a defect" not in caplog.text:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.05)
            there.undo()
            ours = ssl.create_default_context(cafile=str(tmp_path / "s" / "tls" / "ca.pem"))
            async with httpx.AsyncClient(verify=ours, timeout=PATIENCE) as beyond:
                assert (await beyond.get(f"{server.public_url}/alive")).status_code == 200


async def test_that_the_certificate_cannot_be_made_anew_is_told_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jarvis.web.LOOK_S", 0.1)
    monkeypatch.setattr("jarvis.utils.certificates.SERVER", dt.timedelta(0))  # another one is due at each look
    files, away = tmp_path / "s" / "tls", tmp_path / "away"
    async with running(tmp_path / "s", server={"listen": "127.0.0.1:0"}) as (_, client):
        files.rename(away)
        await until(client, {"api"}, PATIENCE)
        detail = (await reds(client))["api"]
        assert detail.startswith("the certificate for other machines ends in 0.0 days and cannot be made anew")
        assert str(files) in detail
        away.rename(files)
        (files / "server.pem").write_bytes(b"damaged")
        await until(client, {}, PATIENCE)


async def told(client: httpx.AsyncClient) -> bool:
    return "arrivals ended on a defect" in (await reds(client)).get("api", "")


async def test_a_defect_is_red_until_a_while_after_it_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "TOLD_S", 1.0)
    async with running(tmp_path / "s") as (_, client):
        with monkeypatch.context() as there:
            there.setattr("jarvis.scheduler.arrivals.Arrivals.look", _wrong)
            async with asyncio.timeout(PATIENCE):
                while not await told(client):  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.05)
            health = (await client.get("/health")).json()
            assert health["status"] == "degraded"
            assert health["checks"]["api"]["detail"].endswith("ZeroDivisionError: a defect")
            assert (await client.get("/ready")).status_code == 200
        await until(client, {}, PATIENCE)


def _wrong_at_once(*_: object) -> None:
    raise ZeroDivisionError("a defect")


async def _wrong(*_: object) -> None:
    raise ZeroDivisionError("a defect")
