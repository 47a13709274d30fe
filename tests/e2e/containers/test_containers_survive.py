"""Containers and the life of their node: an agent that is killed, ends that nobody saw, orphans, the end of it all."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
from tests.e2e.containers.engine import IMAGE, containers, docker
from tests.e2e.containers.harness import contained, inspected, until_output
from tests.e2e.worker.harness import limit, running, shell

from jarvis.core.effects import Stop, Welcome
from jarvis.core.states import Cause
from jarvis.worker.container_engine import Engine, EngineError

pytestmark = [pytest.mark.docker, pytest.mark.timeout(120)]
OPTIONS = ("--cpus", "4", "--memory", "4G", "--allow-root")


async def test_an_agent_that_is_killed_adopts_what_runs(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, node):
        (tmp_path / "d").mkdir()
        command = "echo start; echo line >> /d/lines; while [ ! -e /d/go ]; do sleep 0.05; done; echo end; exit 4"
        await server.assign(contained(1, command, mounts=((f"{tmp_path}/d", "/d", False),), resources={"cpu": 3000}))
        await until_output(node, server, 1, "start")
        await server.until(lambda: server.started, "its start is told")
        before = inspected(1)["Id"]
        await node.kill_agent()
        assert [(k.number, k.state) for k in server.hellos[-1].known] == [(1, "running")]
        assert inspected(1)["Id"] == before
        await server.assign(contained(2, "echo small", resources={"cpu": 2000}))
        (tmp_path / "d/go").touch()
        end = await server.end_of(1)
        assert (end.cause, end.exit_code, server.text(end)) == (Cause.EXIT, 4, b"start\nend\n")
        assert (tmp_path / "d/lines").read_text() == "line\n", "it started once"
        assert len(server.ends[1]) == 1 and [s.number for s in server.started].count(1) == 1
        assert server.text(await server.end_of(2)) == b"small\n", "the resources of the adopted one came free"


async def test_an_end_that_nobody_saw_is_told_with_its_code(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, node):
        server.record = False
        await server.assign(contained(1, "echo up; while [ ! -e /jarvis/go ]; do sleep 0.05; done; seq 3; exit 6"))
        await until_output(node, server, 1, "up")
        (pid,) = node.agent_pids()
        os.kill(pid, signal.SIGSTOP)  # it sees nothing any more
        (node.state / "output/1/task.1.d/go").touch()
        await server.until(lambda: not inspected(1)["State"]["Running"], "the container ends")
        hellos = len(server.hellos)
        os.kill(pid, signal.SIGKILL)
        await server.until(lambda: len(server.hellos) > hellos, "the next agent says hello")
        end = await server.end_of(1)
        assert (end.cause, end.exit_code, server.text(end)) == (Cause.EXIT, 6, b"up\n1\n2\n3\n")
        assert containers(), "it stays until its end is recorded"
        server.record = True
        await node.kill_agent()
        await server.until(lambda: not containers(), "it is removed when its end is recorded")


async def test_a_time_limit_goes_on_across_agents(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, node):
        await server.assign(contained(1, "echo up; sleep 60", time_limit=3.0, grace=1.0))
        await until_output(node, server, 1, "up")
        await node.kill_agent()
        assert (await server.end_of(1)).cause is Cause.TIMEOUT


async def test_orphans_are_removed(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, node):
        await server.assign(contained(1, "echo up; sleep 60"))
        await until_output(node, server, 1, "up")
        ours = inspected(1)["Config"]["Labels"]["jarvis.node"]
        stray = docker(
            "run", "-d", "--label", f"jarvis.node={ours}", "--label", "jarvis.attempt=99", IMAGE, "sleep", "60"
        )
        foreign = docker("run", "-d", "--label", "jarvis.node=other", IMAGE, "sleep", "60")
        await node.kill_agent()
        await server.until(lambda: stray not in containers(), "the orphan is removed")
        assert inspected(1)["State"]["Running"] and foreign in containers()
        docker("rm", "--force", foreign)
        server.welcome = Welcome(node=1, incarnation=5, epoch=1, heartbeat_s=0.3, fence_s=75.0, stop=[1])
        await node.kill_agent()
        assert (await server.end_of(1)).cause is Cause.CANCELLED
        await server.until(lambda: not containers(), "what the server does not want is gone")


async def test_one_removed_by_somebody_else_is_lost(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, node):
        await server.assign(contained(1, "echo up; sleep 60"))
        await until_output(node, server, 1, "up")
        docker("rm", "--force", inspected(1)["Id"])
        end = await server.end_of(1)
        assert end.cause in (Cause.SUPERVISOR_LOST, Cause.EXIT) and end.exit_code in (None, 137)


async def test_the_end_of_the_node_is_the_end_of_its_containers(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, node):
        await server.assign(
            contained(1, "echo up; sleep 60"), contained(2, "trap '' TERM; echo up; while :; do sleep 1; done")
        )
        await until_output(node, server, 1, "up")
        await until_output(node, server, 2, "up")
        await node.down()
        assert not containers()
        assert all(end.cause is Cause.SUPERVISOR_LOST for ends in server.ends.values() for end in ends)


async def test_the_node_ends_while_ended_containers_are_being_removed(tmp_path: Path) -> None:
    """The engine refuses to remove one that it is removing already, and lists it until it is gone."""
    async with running(tmp_path, *OPTIONS) as (server, node):
        await server.assign(*[contained(number, "echo small") for number in range(1, 13)])
        for number in range(1, 13):
            await server.end_of(number)
        await node.down()
        assert not containers()


async def test_an_agent_without_descriptors_leaves_its_containers_to_the_next(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, node):
        await server.assign(contained(1, "echo up; while [ ! -e /jarvis/go ]; do sleep 0.05; done; echo end"))
        await until_output(node, server, 1, "up")
        (agent,) = node.agent_pids()
        limit(agent, 0)
        await server.assign(shell(2, "seq 10", resources={"cpu": 1000}))
        await server.until(lambda: agent not in node.agent_pids(), "the agent starts anew")
        assert inspected(1)["State"]["Running"], "it is not this agent's to end"
        (node.state / "output/1/task.1.d/go").touch()
        assert server.text(await server.end_of(1)) == b"up\nend\n"


async def test_a_supervisor_that_is_killed_takes_the_containers_along(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, node):
        await server.assign(contained(1, "echo up; sleep 60"))
        await until_output(node, server, 1, "up")
        assert node.process is not None
        node.process.kill()
        await server.until(lambda: not containers(), "the agent sees it and cleans up")
        await server.until(lambda: not node.agent_pids(), "the agent ends")


async def test_whoever_still_asks_when_the_node_ends_is_told() -> None:
    engine = Engine()
    assert await engine.list("jarvis.node=nobody") == []
    await engine.close()
    with pytest.raises(EngineError, match="the node ends"):
        await engine.list("jarvis.node=nobody")


async def test_cancelled_while_its_image_is_pulled(tmp_path: Path) -> None:
    """From a registry that takes the call and never answers."""
    called = asyncio.Event()

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        called.set()
        await over.wait()
        writer.close()

    over = asyncio.Event()
    registry = await asyncio.start_server(silent, "127.0.0.1", 0)
    image = f"127.0.0.1:{registry.sockets[0].getsockname()[1]}/slow:1"
    async with running(tmp_path, *OPTIONS) as (server, _):
        await server.assign(contained(1, "true", image=image, pull="missing"))
        await server.until(called.is_set, "the engine asks the registry")
        await server.send(Stop(number=1, cause=Cause.CANCELLED, grace_s=5.0))
        end = await server.end_of(1)
        assert (end.cause, end.message) == (Cause.CANCELLED, "stopped before it started")
    over.set()
    registry.close()
    await registry.wait_closed()
