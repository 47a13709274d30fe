"""A node with something under ``on_lost=fence``: what it asks of the leader, and what it does without an answer."""

import time
from pathlib import Path

import msgspec
import pytest
from tests.e2e.worker.harness import FakeServer, call, running, shell

from jarvis.bus.messages import PROTOCOL_VERSION
from jarvis.core.effects import Seen, Stop, Welcome
from jarvis.core.states import Cause

OPTIONS = ("--cpus", "2", "--memory", "2G", "--allow-root")
SOON = Welcome(node=1, incarnation=5, epoch=1, heartbeat_s=0.1, fence_s=1.5, grace_s=0.1, version=PROTOCOL_VERSION)


async def answer(server: FakeServer) -> None:
    """As a leader that hears the node."""
    beat = await server.until(lambda: next((b.beat for b in reversed(server.beats) if b.beat), 0), "it asks")
    server.beats.clear()
    await server.send(Seen(beat=beat))


async def test_heartbeats_have_the_pace_of_their_session_and_ask_for_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, _):
        await server.until(lambda: len(server.beats) >= 4, "they come", patience=10)
        assert len(server.hellos) == 1, "none came too late"
        assert not any(beat.beat for beat in server.beats)


@pytest.mark.parametrize("kind", ["process", "function"])
async def test_without_an_answer_it_ends_and_counts_as_lost(tmp_path: Path, kind: str) -> None:
    async with running(tmp_path, *OPTIONS, welcome=SOON) as (server, _):
        if kind == "process":
            await server.assign(shell(1, "sleep 1000", on_lost="fence"))
        else:
            await server.assign(call(server, 1, time.sleep, 1000, on_lost="fence"))
        await server.until(lambda: any(s.number == 1 for s in server.started), "it runs")
        for _ in range(8):
            await answer(server)
        assert 1 not in server.ends, "while it is answered it runs on"
        end = await server.end_of(1)
        assert end.cause is Cause.NODE_LOST
        assert "fence" in end.message
        waiting = [shell(n, f"echo {n}", on_lost="fence" if n == 2 else "rerun") for n in (2, 3)]
        await server.assign(*waiting)
        await server.end_of(3)
        assert 2 not in server.ends, "nothing fenced begins meanwhile"
        await answer(server)
        assert (await server.end_of(2)).exit_code == 0


async def test_what_waits_for_the_leader_can_be_stopped(tmp_path: Path) -> None:
    closed = msgspec.structs.replace(SOON, fence_s=0.05)
    async with running(tmp_path, *OPTIONS, welcome=closed) as (server, _):
        await server.until(lambda: len(server.beats) > 3, "its fence is closed")
        await server.assign(shell(1, "true", on_lost="fence"))
        await server.send(Stop(number=1, cause=Cause.CANCELLED, grace_s=0.1))
        assert (await server.end_of(1)).cause is Cause.CANCELLED


async def test_a_server_of_the_version_before_is_spoken_to_as_it_knows(tmp_path: Path) -> None:
    """It refuses what is not its own version, and answers no heartbeats: nothing is asked of it, and nothing ended."""
    async with running(tmp_path, *OPTIONS, welcome=msgspec.structs.replace(SOON, version=1), only=1) as (server, _):
        await server.until(lambda: len(server.hellos) == 2, "it says Hello again", patience=10)
        assert [hello.version for hello in server.hellos] == [PROTOCOL_VERSION, 1]
        await server.assign(shell(1, "sleep 3; echo done", on_lost="fence"))
        assert server.text(await server.end_of(1)) == b"done\n"
        assert not any(beat.beat for beat in server.beats)
