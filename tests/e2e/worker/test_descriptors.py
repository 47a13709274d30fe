"""A node whose supervisor or agent has no descriptors left: what comes to it waits, what runs goes on, and all recovers."""

import asyncio
import resource
from contextlib import suppress
from pathlib import Path

import pytest
from tests.e2e.worker.harness import Node, limit, running, shell

from jarvis.core.effects import Stop
from jarvis.core.states import Cause

OPTIONS = ("--cpus", "100", "--memory", "4G", "--allow-root")
WAITS = "read x; echo over"


def lift(pid: int) -> None:
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))


def supervisor(node: Node) -> int:
    assert node.process is not None
    return node.process.pid


async def test_a_supervisor_without_descriptors_lets_work_wait(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS, within=("prlimit", "--nofile=64:64")) as (server, node):
        await server.assign(*[shell(n, WAITS, stdin="-", resources={"cpu": 1000}) for n in range(1, 81)])
        await server.until(lambda: "waits: no descriptors are left" in node.agent_log(), "some wait")
        await server.until(lambda: len({s.number for s in server.started}) > 10, "many run, as is told a moment later")
        await asyncio.sleep(0.2)
        assert len({s.number for s in server.started}) < 64
        assert not server.ends, "and none fails for it"
        for number in range(1, 81):  # what runs gives its own back when it ends, and what waits has never begun
            await server.send(Stop(number=number, cause=Cause.CANCELLED, grace_s=0.1))
        for number in range(1, 81):
            assert (await server.end_of(number)).cause is Cause.CANCELLED
        await server.assign(shell(100, "echo fine", stdin="-"))
        assert server.text(await server.end_of(100)) == b"fine\n"


@pytest.mark.parametrize("lines", [100, 100_000])
async def test_an_agent_without_descriptors_loses_no_end_and_no_output(tmp_path: Path, lines: int) -> None:
    """Small output rides in the end, large is shipped in the background."""
    go = tmp_path / "go"
    async with running(tmp_path, *OPTIONS) as (server, node):
        await server.assign(shell(1, f"while [ ! -e {go} ]; do sleep 0.05; done; seq {lines}"))
        await server.until(lambda: server.started, "it runs")
        (agent,) = node.agent_pids()
        limit(agent, 0)
        await server.assign(shell(2, "seq 10"))
        go.touch()
        await server.until(lambda: "Too many open files" in node.agent_log(), "it finds none", 10)
        with suppress(ProcessLookupError):  # it may be gone already: the one that follows has its supervisor's limit
            lift(agent)
        end = await server.end_of(1)
        assert (end.exit_code, len(server.text(end).split())) == (0, lines)
        end = await server.end_of(2)
        assert (end.exit_code, len(server.text(end).split())) == (0, 10)
