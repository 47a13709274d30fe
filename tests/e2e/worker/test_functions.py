"""Functions on a node: warm processes, their results, and what becomes of calls when something dies."""

import os
import pickle
import sys
import time
from pathlib import Path
from typing import Any

import cloudpickle
from tests.e2e.worker.harness import call, living, running

from jarvis.core.effects import Recall, Recorded, Stop
from jarvis.core.inputs import Ended
from jarvis.core.states import Cause

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the node cannot import this module
OPTIONS = ("--cpus", "2", "--memory", "2G", "--allow-root")


def result(end: Ended) -> Any:
    assert end.result is not None, end
    return pickle.loads(end.result)


def read(path: str) -> str:
    return Path(path).read_text()


def touch(path: str) -> None:
    Path(path).touch()


async def test_a_thousand_calls(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, _):
        await server.assign(*[call(server, n, lambda x: x * x, n) for n in range(1, 1001)])
        await server.until(lambda: len(server.ends) == 1000, "all end")
        assert all(result(server.ends[n][0]) == n * n for n in range(1, 1001))
        assert all(len(ends) == 1 for ends in server.ends.values())
        end = server.ends[500][0]
        assert (end.cause, end.exit_code) == (Cause.EXIT, 0)


async def test_an_exception_comes_with_its_traceback(tmp_path: Path) -> None:
    def fails(x: int) -> None:
        raise ValueError(f"not {x}")

    async with running(tmp_path, *OPTIONS) as (server, _):
        await server.assign(call(server, 1, fails, 7), call(server, 2, lambda: os._exit(9)))
        end = await server.end_of(1)
        error, text = result(end)
        assert (end.cause, end.exception, end.exit_code) == (Cause.EXCEPTION, "ValueError", 1)
        assert isinstance(error, ValueError) and error.args == ("not 7",)
        assert "in fails" in text and "ValueError: not 7" in text
        end = await server.end_of(2)
        assert (end.cause, end.exit_code) == (Cause.EXIT, 9) and "middle of the call" in end.message


async def test_large_results_and_arguments(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, _):
        await server.assign(
            call(server, 1, lambda: b"x" * 1_000_000),
            call(server, 2, lambda: b"x" * 9_000_000),
            call(server, 3, lambda: 3),
        )
        end = await server.end_of(1)
        assert end.result is None and end.result_digest is not None
        assert pickle.loads(server.blobs[end.result_digest]) == b"x" * 1_000_000
        end = await server.end_of(2)
        assert end.cause is Cause.EXCEPTION and "write it to a file" in end.message
        assert result(await server.end_of(3)) == 3


async def test_what_a_call_prints_is_its_output(tmp_path: Path) -> None:
    def says(text: str, times: int = 1) -> None:
        sys.stdout.write(text * times + "\n")
        sys.stdout.flush()
        if times == 1:
            os.system(f"echo child {text}")

    async with running(tmp_path, *OPTIONS) as (server, _):
        await server.assign(
            *[call(server, n, says, str(n)) for n in range(1, 41)],
            call(server, 41, says, "0123456789", 50_000),
            call(server, 42, lambda: None),
        )
        for n in range(1, 41):
            assert server.text(await server.end_of(n)) == f"{n}\nchild {n}\n".encode()
        assert server.text(await server.end_of(41)) == b"0123456789" * 50_000 + b"\n"
        assert server.text(await server.end_of(42)) == b""


async def test_the_environment_of_a_call(tmp_path: Path) -> None:
    def names() -> dict[str, str]:
        return dict(os.environ)

    async with running(tmp_path, *OPTIONS, "--gpus", "1") as (server, _):
        gpu = {"cpu": 1000, "gpu": 1000}
        await server.assign(
            call(server, 1, names, env={"A": "1"}, resources=gpu, task=11),
            call(server, 2, names, env={"A": "1"}, resources=gpu, task=12),
            call(server, 3, names, env={"B": "2"}, resources=gpu, task=13),
        )
        first, second, third = [result(await server.end_of(n)) for n in (1, 2, 3)]
        assert (first["JARVIS_TASK_ID"], second["JARVIS_TASK_ID"], third["JARVIS_TASK_ID"]) == ("11", "12", "13")
        assert first["A"] == second["A"] == "1" and "A" not in third and third["B"] == "2"
        assert first["CUDA_VISIBLE_DEVICES"] == "0"
        assert "AGENTS_OWN" not in first and "PYTHONPATH" not in first


async def test_another_python_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, _):
        await server.assign(call(server, 1, lambda: 1, python="3.99"))
        end = await server.end_of(1)
        assert end.cause is Cause.START_FAILED and "3.99" in end.message and "node n1 has 3." in end.message


async def test_fresh_and_max_calls(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, _):
        one = {"cpu": 2000}
        await server.assign(*[call(server, n, os.getpid, fresh=True, resources=one) for n in (1, 2, 3)])
        assert len({result(await server.end_of(n)) for n in (1, 2, 3)}) == 3
        await server.assign(*[call(server, n, os.getpid, max_calls=4, resources=one) for n in range(11, 23)])
        pids = [result(await server.end_of(n)) for n in range(11, 23)]
        assert len(set(pids)) == 3 and all(pids.count(pid) == 4 for pid in pids)


def waits(lines: str, gate: str, number: int) -> int:
    """Writes down that it began, once; then waits for the gate."""
    with Path(lines).open("a") as file:
        file.write(f"{number}\n")
    while not Path(gate).exists():
        time.sleep(0.005)
    return number


def notes(lines: str, number: int) -> int:
    with Path(lines).open("a") as file:
        file.write(f"{number}\n")
    return number


async def test_a_killed_call_ends_alone(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, _):
        lines, gate = str(tmp_path / "lines"), str(tmp_path / "gate")
        one = {"cpu": 2000}
        await server.assign(*[call(server, n, notes, lines, n, resources=one) for n in range(1, 20)])
        await server.until(lambda: len(server.ends) == 19, "the process is warm")
        await server.assign(
            call(server, 20, waits, lines, gate, 20, resources=one),
            *[call(server, n, notes, lines, n, resources=one) for n in range(21, 60)],
        )
        await server.until(lambda: "20\n" in read(lines), "20 runs")
        await server.send(Stop(number=20, cause=Cause.CANCELLED), Stop(number=30, cause=Cause.CANCELLED))
        assert (await server.end_of(20)).cause is Cause.CANCELLED
        assert (await server.end_of(30)).cause is Cause.CANCELLED
        await server.until(lambda: len(server.ends) == 59, "the others run in another process")
        assert sorted(map(int, read(lines).split())) == [n for n in range(1, 60) if n != 30]


async def test_a_time_limit_and_too_much_memory(tmp_path: Path) -> None:
    def greedy() -> int:
        return len(bytearray(600 << 20))

    async with running(tmp_path, *OPTIONS) as (server, _):
        await server.assign(
            call(server, 1, time.sleep, 1000, time_limit=0.3),
            call(server, 2, greedy, resources={"cpu": 1000, "memory": 200 << 20}),
        )
        assert (await server.end_of(1)).cause is Cause.TIMEOUT
        assert (await server.end_of(2)).cause is Cause.OOM


async def test_queued_calls_move_when_one_takes_long(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, _):
        lines, gate = str(tmp_path / "lines"), str(tmp_path / "gate")
        await server.assign(*[call(server, n, notes, lines, n) for n in range(1, 20)])
        await server.until(lambda: len(server.ends) == 19, "two processes are warm")
        await server.assign(
            call(server, 20, waits, lines, gate, 20), *[call(server, n, notes, lines, n) for n in range(21, 121)]
        )
        await server.until(lambda: len(server.ends) == 119, "all but the one that waits have ended")
        touch(gate)
        assert result(await server.end_of(20)) == 20
        assert sorted(map(int, read(lines).split())) == list(range(1, 121))


async def test_recall_of_what_waits_in_a_pipe(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, _):
        lines, gate = str(tmp_path / "lines"), str(tmp_path / "gate")
        one = {"cpu": 2000}
        await server.assign(call(server, 1, notes, lines, 1, resources=one))
        await server.end_of(1)
        await server.assign(
            call(server, 2, waits, lines, gate, 2, resources=one),
            *[call(server, n, notes, lines, n, resources=one) for n in range(3, 40)],
        )
        await server.until(lambda: "2\n" in read(lines), "2 runs")
        await server.send(Recall(numbers=list(range(2, 40))))
        await server.until(lambda: sum(len(r.numbers) for r in server.returned) == 37, "the others come back")
        touch(gate)
        assert result(await server.end_of(2)) == 2
        assert read(lines) == "1\n2\n"


async def test_a_killed_agent_finds_its_calls_again(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, node):
        lines, gate = str(tmp_path / "lines"), str(tmp_path / "gate")
        one = {"cpu": 2000}
        server.record = False
        await server.assign(*[call(server, n, notes, lines, n, resources=one) for n in range(1, 20)])
        await server.until(lambda: len(server.ends) == 19, "the process is warm")
        await server.assign(
            call(server, 20, waits, lines, gate, 20, resources=one),
            *[call(server, n, notes, lines, n, resources=one) for n in range(21, 60)],
        )
        await server.until(lambda: "20\n" in read(lines), "20 runs")
        await node.kill_agent()
        known = {k.number: k.state for k in server.hellos[-1].known}
        assert {known[n] for n in range(1, 20)} == {"ended"} and known[20] == "running"
        # What was handed ahead is still in the process; what waited in the agent's own memory is the leader's to repeat.
        piped = {n for n in range(21, 60) if n in known}
        assert all(known[n] == "assigned" for n in piped)
        await server.assign(*[call(server, n, notes, lines, n, resources=one) for n in range(20, 60)])
        touch(gate)
        await server.until(lambda: len(server.ends) == 59, "all end")
        assert all(len(server.ends[n]) >= 2 for n in range(1, 20)), "unrecorded ends are said again"
        assert sorted(map(int, read(lines).split())) == list(range(1, 60))
        assert all(result(server.ends[n][0]) == n for n in range(1, 60))
        await server.send(Recorded(numbers=list(range(1, 60)), floor=60))
        server.beats.clear()
        await server.until(lambda: len(server.beats) > 1, "the record has arrived")
        await node.kill_agent()
        assert server.hellos[-1].known == []


async def test_a_process_that_died_unseen_is_told_of(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, node):
        lines, gate = str(tmp_path / "lines"), str(tmp_path / "gate")
        server.record = False
        one = {"cpu": 2000}
        await server.assign(call(server, 1, os.getpid, resources=one))
        pid = result(await server.end_of(1))
        await server.assign(call(server, 2, waits, lines, gate, 2, resources=one))
        await server.until(Path(lines).exists, "2 runs")
        (agent,) = node.agent_pids()
        os.kill(agent, 19)
        os.kill(pid, 9)
        await server.until(lambda: pid not in living(), "it is gone")
        before = len(server.hellos)
        os.kill(agent, 9)
        await server.until(lambda: len(server.hellos) > before, "the next agent says hello")
        await server.until(lambda: 2 in server.ends and len(server.ends[1]) == 2, "both ends are told")
        assert server.ends[2][0].cause is Cause.SIGNAL
        assert result(server.ends[1][1]) == pid


async def test_idle_processes_are_used_again_after_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, node):
        one = {"cpu": 2000}
        await server.assign(call(server, 1, os.getpid, resources=one))
        pid = result(await server.end_of(1))
        await node.kill_agent()
        await server.assign(call(server, 2, os.getpid, resources=one))
        assert result(await server.end_of(2)) == pid
