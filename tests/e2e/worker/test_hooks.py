"""Programs of the administrator on a node: the check of its health, the prolog and the epilog."""

import asyncio
import os
import time
from pathlib import Path

import pytest
from tests.e2e.worker.harness import call, running, shell

from jarvis.core.effects import Stop
from jarvis.core.states import Cause
from jarvis.worker.hooks import TOLD_MOST, run_hook, told

OPTIONS = ("--cpus", "2", "--memory", "2G", "--allow-root")


async def test_a_check_tells_what_is_wrong_until_it_is_right_again(tmp_path: Path) -> None:
    fault = tmp_path / "fault"
    check = f"test ! -e {fault} || {{ printf 'disk \\033[31mfailing'; exit 3; }}"
    async with running(tmp_path, *OPTIONS, f"--health-check={check}", "--health-interval=0.1") as (server, _):
        await server.until(lambda: server.beats and not server.beats[-1].unfit, "it is fit")
        fault.touch()
        await server.until(lambda: server.beats[-1].unfit, "it is not")
        assert server.beats[-1].unfit == "health check exited with 3: disk \N{REPLACEMENT CHARACTER}[31mfailing"
        fault.unlink()
        await server.until(lambda: not server.beats[-1].unfit, "it is fit again")


@pytest.mark.parametrize("kind", ["process", "function"])
async def test_what_runs_around_an_attempt(tmp_path: Path, kind: str) -> None:
    log = tmp_path / "log"
    prolog = f'echo "before $JARVIS_TASK_ID $JARVIS_ATTEMPT $JARVIS_USER $JARVIS_NODE" >> {log}'
    epilog = f'echo "after $JARVIS_TASK_ID $JARVIS_CAUSE $JARVIS_EXIT_CODE" >> {log}'
    async with running(tmp_path, *OPTIONS, f"--prolog={prolog}", f"--epilog={epilog}") as (server, _):
        if kind == "process":
            await server.assign(shell(7, f"echo during >> {log}; exit 4"))
        else:
            await server.assign(call(server, 7, os.system, f"echo during >> {log}"))
        end = await server.end_of(7)
        exit_code = 4 if kind == "process" else 0
        assert (end.exit_code, end.drain) == (exit_code, "")
        assert log.read_text().splitlines() == ["before 7 1 root n1", "during", f"after 7 exit {exit_code}"]


async def test_an_attempt_whose_prolog_fails_is_given_back_and_the_node_drained(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    async with running(tmp_path, *OPTIONS, "--prolog=echo no licence; exit 1") as (server, _):
        await server.assign(shell(1, f"touch {ran}"))
        await server.until(lambda: server.returned, "it is given back")
        assert server.returned[0].numbers == [1]
        assert server.returned[0].drain == "prolog exited with 1: no licence"
        assert not server.started and not server.ends and not ran.exists()


async def test_an_epilog_that_fails_drains_and_changes_no_outcome(tmp_path: Path) -> None:
    options = ("--epilog=exec sleep 1000", "--hook-timeout=0.2")
    async with running(tmp_path, *OPTIONS, *options) as (server, _):
        await server.assign(shell(1, "true"))
        end = await server.end_of(1)
        assert (end.cause, end.exit_code, end.drain) == (Cause.EXIT, 0, "epilog took longer than 0.2 s")


async def test_a_stop_during_the_prolog_takes_effect_after_it(tmp_path: Path) -> None:
    go, ran = tmp_path / "go", tmp_path / "ran"
    async with running(tmp_path, *OPTIONS, f"--prolog=while [ ! -e {go} ]; do sleep 0.02; done") as (server, _):
        await server.assign(shell(1, f"touch {ran}"))
        await server.send(Stop(number=1, cause=Cause.CANCELLED, grace_s=0.1))
        go.touch()
        assert (await server.end_of(1)).cause is Cause.CANCELLED
        assert not ran.exists()


async def test_nothing_of_a_hook_outlives_it(tmp_path: Path) -> None:
    left = tmp_path / "left"
    begun = time.monotonic()
    said = await run_hook("check", f"(sleep 1; touch {left}) & sleep 1000", 0.2, {})
    assert said == "check took longer than 0.2 s"
    assert time.monotonic() - begun < 30
    await asyncio.sleep(0)
    assert not left.exists()
    assert await run_hook("check", "kill -9 $$", 10.0, {}) == "check was killed by signal 9"
    assert await run_hook("check", "head -c 1000000 /dev/zero", 30.0, {}) == "", "however much it says"


def test_what_is_told_fits_a_table() -> None:
    assert told("check", "exited with 1", b"a\n b\t\x00c") == "check exited with 1: a b \N{REPLACEMENT CHARACTER}c"
    long = told("check", "exited with 1", b"x" * 5000)
    assert (len(long), long[-1]) == (TOLD_MOST, "…")
