"""Loops of an agent that a node can do without for a while: a defect in one is told, and neither the loop nor the agent ends."""

import asyncio
from pathlib import Path

import pytest

from jarvis.utils import keeper
from jarvis.worker.agent import Agent
from jarvis.worker.agent_options import parse

LOOPS = {
    "removing": "jarvis.worker.remover.Remover.run",
    "the health check": "jarvis.worker.hooks.HookRunner.keep_checking",
    "looking at what is here": "jarvis.worker.holding.Holding.keep_looking",
    "renewing the certificate": "jarvis.worker.credentials.Credentials.keep_fresh",
}
CORE = {"the session": "jarvis.worker.session.Session.run", "heartbeats": "jarvis.worker.agent.Agent._beat"}


class Defects:
    """Each of these loops ends on one at its first life, and stays at its second."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, loops: dict[str, str], error: Exception) -> None:
        self.lives = dict.fromkeys(loops, 0)
        self._error = error
        for name, path in loops.items():
            monkeypatch.setattr(path, self._loop(name))

    def _loop(self, name: str) -> object:
        async def run(*_: object) -> None:
            self.lives[name] += 1
            if self.lives[name] == 1:
                raise self._error
            await asyncio.Event().wait()

        return run


async def stays(*_: object) -> None:
    await asyncio.Event().wait()


def agent_in(directory: Path) -> Agent:
    credentials = directory / "credentials"
    credentials.mkdir()
    return Agent(parse(["--dir", str(directory), "--credentials", str(credentials), "--allow-root"]))


async def test_a_defect_in_one_ends_neither_it_nor_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keeper, "FIRST_S", 0.01)
    for path in CORE.values():
        monkeypatch.setattr(path, stays)
    defects = Defects(monkeypatch, LOOPS, ZeroDivisionError("a defect"))
    tasks = agent_in(tmp_path)._loops()
    async with asyncio.timeout(10):
        while set(defects.lives.values()) != {2}:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
    assert not any(task.done() for task in tasks)
    for name in LOOPS:
        assert f"{name} ended on a defect" in caplog.text
    for task in tasks:
        task.cancel()
