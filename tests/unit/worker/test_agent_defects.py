"""A defect in what an agent does in the background for an attempt, or for a stream, ends that one, and nothing else."""

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jarvis.bus.messages import StreamData, StreamOpen
from jarvis.core.effects import Assign, Assignment
from jarvis.core.ids import SOLO
from jarvis.core.inputs import Ended, Returned
from jarvis.core.states import Cause
from jarvis.core.task import Container, FunctionCall, TaskSpec
from jarvis.worker.agent import Agent
from jarvis.worker.agent_options import parse
from jarvis.worker.container_engine import EngineError
from jarvis.worker.task_executor import DEFECT
from jarvis.worker.warm import PYTHON

TOLD = f"{DEFECT}: ZeroDivisionError: a defect"
PROCESS = TaskSpec(name="t", command=("true",), cwd="/", resources={"cpu": 1000})
SCRIPT = msgspec.structs.replace(PROCESS, script="a" * 64)
CALL = TaskSpec(name="f", function=FunctionCall(code="c" * 64, python=PYTHON), resources={"cpu": 1000})
BOX = TaskSpec(name="b", container=Container(image="i"), resources={"cpu": 1000})
USAGE = {"cpu_user_s": 0.0, "cpu_sys_s": 0.0, "max_rss_bytes": 0, "read_bytes": 0, "write_bytes": 0}
END = {
    "op": "ended",
    "exit_code": 0,
    "signal": None,
    "cause": "exit",
    "kill_cause": None,
    "wall_s": 0.1,
    "usage": USAGE,
}
KILLED = END | {"exit_code": None, "signal": 9, "cause": "killed", "kill_cause": "supervisor_lost", "out_bytes": 0}


async def wrong(*_: object, **__: object) -> Any:
    raise ZeroDivisionError("a defect")


def wrong_at_once(*_: object, **__: object) -> Any:
    raise ZeroDivisionError("a defect")


class Node:
    """An agent whose supervisor and server only listen."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
        self.ordered, self.said = list[dict[str, Any]](), list[Any]()
        monkeypatch.setattr("jarvis.worker.supervisor_client.SupervisorClient.send", self.ordered.append)
        monkeypatch.setattr("jarvis.worker.session.Session.say", self.said.append)
        given = ["--dir", str(directory), "--credentials", str(directory), "--allow-root", "--cpus", "4"]
        self.agent = Agent(parse([*given, *options]))

    def assign(self, spec: TaskSpec) -> None:
        body = msgspec.Raw(msgspec.msgpack.encode(spec))
        self.agent.received([Assign(assignments=[Assignment(7, 1, 1, 7, SOLO, "p", "root", body)])])

    async def until(self, told: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not told():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.005)

    async def end(self) -> Ended:
        """Its end, told once; what it had is free again."""
        await self.until(lambda: self.agent.machine.ended)
        assert not self.agent.machine.active and not self.agent.machine.leaving
        assert self.agent.machine.free == self.agent.machine.total
        (end,) = (message for message in self.said if isinstance(message, Ended))
        return end

    async def is_lost(self, told: str = TOLD) -> None:
        end = await self.end()
        assert (end.cause, end.message) == (Cause.SUPERVISOR_LOST, told)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    return Node(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("spec", "fetch"), [(SCRIPT, "bodies.Bodies.fetch"), (CALL, "function_bodies.FunctionBodies.fetch")]
)
async def test_before_it_started(node: Node, monkeypatch: pytest.MonkeyPatch, spec: TaskSpec, fetch: str) -> None:
    monkeypatch.setattr("jarvis.worker.bodies.Bodies.fetch", wrong)
    monkeypatch.setattr(f"jarvis.worker.{fetch}", wrong)
    node.agent = Agent(node.agent.options)  # which was given what is wrong
    node.assign(spec)
    await node.is_lost()
    assert not node.ordered


async def test_in_another_try_to_start_it(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = iter([OSError(errno.ENOSPC, "full"), ZeroDivisionError("a defect")])

    def message(*_: object) -> Any:
        raise next(tries)

    monkeypatch.setattr("jarvis.worker.task_executors.process.ProcessExecutor._message", message)
    monkeypatch.setattr("jarvis.worker.task_executors.process.RETRY_S", 0.0)
    node.assign(PROCESS)
    await node.is_lost()


async def test_after_the_supervisor_got_it_its_end_is_the_supervisors_to_tell(
    node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def fetched(*_: object) -> bytes:
        return b"#!/bin/sh\n"

    monkeypatch.setattr("jarvis.worker.bodies.Bodies.fetch", fetched)
    monkeypatch.setattr("jarvis.worker.task_executors.process.ProcessExecutor._fill", wrong_at_once)
    node.agent = Agent(node.agent.options)
    node.assign(SCRIPT)
    await node.until(lambda: node.ordered)
    await asyncio.sleep(0.05)
    assert not node.agent.machine.ended and 7 in node.agent.machine.active
    monkeypatch.undo()
    monkeypatch.setattr("jarvis.worker.session.Session.say", node.said.append)
    node.agent._supervisor_said(END | {"number": 7, "out_bytes": 0})
    end = await node.end()
    assert (end.cause, end.exit_code) == (Cause.EXIT, 0)


async def test_while_its_output_is_stored(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jarvis.worker.logs.Shipper.ship", wrong)
    node.assign(PROCESS)
    node.agent._supervisor_said(END | {"number": 7, "out_bytes": 10**6})
    await node.is_lost()


@pytest.mark.parametrize(
    "what", ["warm.Launcher.dial", "task_executors.function.FunctionExecutor._give", "call_ends.CallEnds.complete"]
)
async def test_a_call_ends_when_its_process_has(node: Node, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    async def nothing(*_: object) -> Any: ...

    monkeypatch.setattr("jarvis.worker.function_bodies.FunctionBodies.fetch", nothing)
    monkeypatch.setattr("jarvis.worker.warm.Launcher.dial", nothing)
    monkeypatch.setattr("jarvis.worker.task_executors.function.FunctionExecutor._give", lambda *_: None)
    monkeypatch.setattr(f"jarvis.worker.{what}", wrong_at_once if "_give" in what else wrong)
    late = "complete" in what
    node.assign(msgspec.structs.replace(CALL, artifacts=("x",)) if late else CALL)
    await node.until(lambda: node.ordered)
    started = node.ordered[0]["number"]
    if not late:
        await node.until(lambda: node.ordered[-1]["op"] == "kill")
        assert node.ordered[-1]["number"] == started
        assert not node.agent.machine.ended, "its process may run still"
    node.agent._supervisor_said(KILLED | {"number": started})
    await node.is_lost(TOLD if late else DEFECT)


@pytest.mark.parametrize("what", ["_make", "_until_over"])
async def test_a_container_is_removed_first(node: Node, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    tries = iter([EngineError(0, "it is away"), None])
    removed = list[str]()

    async def remove(_: object, container: str) -> None:
        assert not node.agent.machine.ended, "it may run still"
        removed.append(container)
        if (error := next(tries)) is not None:
            raise error

    async def make(_: object, work: Any) -> Any:
        from jarvis.worker.task_executors.container import Running

        return Running(work, "c1")

    executor = "jarvis.worker.task_executors.container"
    monkeypatch.setattr(f"{executor}.AGAIN_S", 0.0)
    monkeypatch.setattr("jarvis.worker.container_engine.Engine.remove", remove)
    monkeypatch.setattr(f"{executor}.ContainerExecutor._sample", wrong)
    monkeypatch.setattr(f"{executor}.ContainerExecutor._make", make)
    monkeypatch.setattr(f"{executor}.ContainerExecutor.{what}", wrong)
    node.assign(BOX)
    await node.is_lost()
    assert len(removed) == 2
    assert removed[0].endswith("-7-1")


async def test_a_prolog_that_cannot_be_run_is_as_one_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path, monkeypatch, "--prolog=true")
    monkeypatch.setattr("jarvis.worker.hooks.run_hook", wrong)
    node.assign(PROCESS)
    await node.until(lambda: node.said)
    (told,) = node.said
    assert isinstance(told, Returned)
    assert (told.numbers, told.drain) == ([7], "prolog met a defect: ZeroDivisionError: a defect")


async def test_an_epilog_that_cannot_be_run_changes_no_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(tmp_path, monkeypatch, "--epilog=true")
    monkeypatch.setattr("jarvis.worker.hooks.run_hook", wrong)
    node.assign(PROCESS)
    node.agent._supervisor_said(END | {"number": 7, "out_bytes": 0})
    end = await node.end()
    assert (end.cause, end.exit_code, end.drain) == (Cause.EXIT, 0, "epilog met a defect: ZeroDivisionError: a defect")


async def test_what_begins_after_a_prolog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(tmp_path, monkeypatch, "--prolog=true")
    monkeypatch.setattr("jarvis.worker.task_executors.process.ProcessExecutor._message", wrong_at_once)
    node.assign(PROCESS)
    await node.is_lost()


async def test_a_stream_is_closed_with_a_word(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jarvis.worker.streams.Streams._tail", wrong)
    node.assign(PROCESS)
    node.agent.received([StreamOpen(stream=3, number=7, kind="tail")])
    await node.until(lambda: node.said)
    assert node.said == [StreamData(stream=3, end=True, error=TOLD)]
    assert 7 in node.agent.machine.active, "what it was about goes on"


async def test_no_descriptors_left_is_no_defect_of_the_attempt(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    async def lacking(*_: object, **__: object) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("jarvis.worker.logs.Shipper.ship", lacking)
    node.assign(PROCESS)
    node.agent._supervisor_said(END | {"number": 7, "out_bytes": 10**6})
    await node.until(lambda: node.agent._anew)
    assert not node.agent.machine.ended
