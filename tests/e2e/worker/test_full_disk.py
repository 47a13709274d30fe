"""A node whose own disk is full: what comes to it waits there for room, and can be stopped meanwhile."""

from pathlib import Path

import pytest
from tests.disks import small_disk
from tests.e2e.worker.harness import running, shell

from jarvis.core.effects import Stop
from jarvis.core.states import Cause

pytestmark = pytest.mark.root
PAD = {"PAD": "x" * 10_000}
"""More than may be left in the last page of the supervisor's journal."""


async def test_what_begins_on_a_full_disk_waits_for_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "node", 16 << 20) as disk:
        async with running(disk.path, "--cpus", "2", "--memory", "2G", "--allow-root") as (server, _):
            await server.assign(shell(1, "echo before"))
            assert server.text(await server.end_of(1)) == b"before\n"
            disk.fill()
            await server.assign(shell(2, "echo later", env=PAD), shell(3, "echo never", env=PAD))
            await server.send(Stop(number=3, cause=Cause.CANCELLED, grace_s=0.1))
            assert (await server.end_of(3)).cause is Cause.CANCELLED
            assert 2 not in server.ends
            disk.drain()
            end = await server.end_of(2)
            assert (end.cause, end.exit_code, server.text(end)) == (Cause.EXIT, 0, b"later\n")


async def test_what_waits_in_a_lane_on_a_full_disk_waits_for_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "node", 16 << 20) as disk:
        async with running(disk.path, "--cpus", "1", "--memory", "2G", "--allow-root") as (server, _):
            short = [shell(n, "true", resources={"cpu": 1000}) for n in range(1, 21)]
            await server.assign(*short)
            for number in range(1, 21):
                await server.end_of(number)
            disk.fill()
            await server.assign(*[shell(n, "true", resources={"cpu": 1000}, env=PAD) for n in range(21, 61)])
            await server.send(Stop(number=60, cause=Cause.CANCELLED, grace_s=0.1))
            assert (await server.end_of(60)).cause is Cause.CANCELLED
            disk.drain()
            for number in range(21, 60):
                end = await server.end_of(number)
                assert (end.cause, end.exit_code) == (Cause.EXIT, 0)
                assert sum(s.number == number for s in server.started) <= 1
