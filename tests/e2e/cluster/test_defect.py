"""A defect in a turn of the only leader: it is told, nothing is lost or run twice, and the server goes on by itself."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from tests.e2e.cluster.test_health import PATIENCE, reds, running, until

from jarvis.scheduler import leader, reactor, scheduler
from jarvis.scheduler.cycle import Plan
from jarvis.scheduler.turn import Turn

PAUSE_S = 2.0
pytestmark = pytest.mark.timeout(120)


class Defect:
    """Turns go wrong while it is there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_there, self.count, self._place = False, 0, reactor.place
        monkeypatch.setattr(scheduler, "place", self._wrong)

    def _wrong(self, turn: Turn, *policy: Any) -> Plan:
        plan = self._place(turn, *policy)
        if self.is_there:
            self.count += 1
            raise ZeroDivisionError("a defect")
        return plan


async def submitted(client: httpx.AsyncClient, command: str) -> int:
    answer = await client.post("/tasks", json={"command": command, "resources": {"cpu": 0.1}, "cwd": "/"})
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


async def is_told(client: httpx.AsyncClient) -> bool:
    return (await reds(client)).get("scheduler_queue") == "the scheduler has stopped: ZeroDivisionError: a defect"


async def happened(defect: Defect, times: int) -> bool:
    return defect.count >= times


async def all_succeeded(client: httpx.AsyncClient, tasks: list[int]) -> bool:
    return {(await client.get(f"/tasks/{task}")).json()["state"] for task in tasks} == {"succeeded"}


async def come_true(asked: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await asked():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.1)


async def test_a_defect_in_a_turn_costs_the_only_server_nothing_but_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader, "DEFECT_S", PAUSE_S)
    defect = Defect(monkeypatch)
    with tempfile.TemporaryDirectory(prefix="jv-") as folder:
        notes, gate = Path(folder) / "notes", Path(folder) / "gate"
        async with running(Path(folder) / "s") as (server, client):
            note = f"echo $JARVIS_TASK_ID >> {notes}"
            tasks = [await submitted(client, f"{note}; while [ ! -e {gate} ]; do sleep 0.05; done")]
            await come_true(lambda: asyncio.to_thread(notes.exists))
            epoch, defect.is_there = server.scheduler.leadership.epoch, True
            tasks.append(await submitted(client, note))
            await come_true(lambda: is_told(client))
            gate.touch()
            tasks.append(await submitted(client, note))
            await come_true(lambda: happened(defect, 2))
            defect.is_there = False
            await come_true(lambda: all_succeeded(client, tasks))
            await until(client, {}, PATIENCE)
            assert server.scheduler.leadership.epoch > epoch + 1
        assert sorted(map(int, notes.read_text().split())) == tasks
