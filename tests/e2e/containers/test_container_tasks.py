"""Container tasks on a node: real engine, real agent."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.containers.engine import docker
from tests.e2e.containers.harness import contained, end_of, inspected, until_output
from tests.e2e.worker.harness import running

from jarvis.core.effects import Signal, Stop
from jarvis.core.states import Cause

pytestmark = [pytest.mark.docker, pytest.mark.timeout(120)]
OPTIONS = ("--cpus", "4", "--memory", "4G", "--gpus", "2", "--allow-root")


async def test_a_command_runs_and_its_end_is_told(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, _):
        assert server.hellos[0].labels["jarvis.container"] == "docker"
        end, text = await end_of(server, contained(1, "echo out; echo err >&2; sleep 0.3; exit 3"))
        assert (end.cause, end.exit_code) == (Cause.EXIT, 3)
        assert sorted(text.split()) == ["err", "out"], "the engine keeps the order within a stream, not between them"
        assert end.usage is not None and 0 < end.usage.wall_s < 60
        assert [s.number for s in server.started] == [1]
        assert (await end_of(server, contained(2, ("echo", "a b", "$HOME"))))[1] == "a b $HOME\n", "argv, no shell"
        assert (await end_of(server, contained(3, None)))[1] == "own\n", "the image's own command"
        assert (await end_of(server, contained(4, ("x",), entrypoint=("echo", "entry"))))[1] == "entry x\n"
        await server.until(lambda: not docker("ps", "-aq", "--filter", "label=jarvis.node"), "ended ones are removed")


async def test_output_is_bytes_large_and_apart(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, _):
        end, _ = await end_of(server, contained(1, "seq 30000", resources={"cpu": 2000}))
        assert server.text(end) == b"".join(b"%d\n" % i for i in range(1, 30_001))
        await server.assign(contained(2, r"printf '\377\000\r\n\200'"))
        assert server.text(await server.end_of(2)) == b"\xff\x00\r\n\x80"
        files = {"stdout": f"{tmp_path}/%j.o", "stderr": f"{tmp_path}/%j.e"}
        end, text = await end_of(server, contained(3, "echo out; echo err >&2", **files))
        assert text == "out\n" and server.text(end, "stderr") == b"err\n"
        assert (tmp_path / "3.o").read_text() == "out\n" and (tmp_path / "3.e").read_text() == "err\n"
        end, text = await end_of(server, contained(4, "yes", resources={"cpu": 1000}, output_limit=100_000, grace=0.1))
        assert end.cause is Cause.OUTPUT_LIMIT and len(text) == 100_000 and "100000 bytes" in end.message


async def test_environment_directory_user_and_script(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, _):
        made = contained(
            7, "env; pwd; id -u; id -g", env={"MINE": "1"}, cwd="/work dir", user_in="12:34", task=42, attempt=2,
            resources={"cpu": 1500, "memory": 64 << 20},
        )  # fmt: skip
        _, text = await end_of(server, made)
        lines = text.splitlines()
        assert lines[-3:] == ["/work dir", "12", "34"]
        found = dict(line.split("=", 1) for line in lines[:-3])
        expected = {
            "MINE": "1", "PATH": "/bin", "JARVIS_TASK_ID": "42", "JARVIS_ATTEMPT": "2", "JARVIS_CPUS": "2",
            "JARVIS_MEM_MB": "64", "JARVIS_NODE": "n1", "JARVIS_TMPDIR": "/tmp", "CUDA_VISIBLE_DEVICES": "",
            "JARVIS_OUTPUT": "/jarvis/output.json", "JARVIS_GPUS": "0",
        }  # fmt: skip
        assert {name: found.get(name) for name in expected} == expected
        assert not {"USER", "SHELL", "AGENTS_OWN", "VIRTUAL_ENV"} & set(found), "nothing of the node's"
        script = server.put(b"#!/bin/sh\necho script $1\necho '{}' > $JARVIS_OUTPUT && ls /jarvis\n")
        _, text = await end_of(server, contained(8, ("arg",), script=script))
        assert text == "script arg\noutput.json\noutputs\ntmp\n"


async def test_mounts(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/in").write_text("from the host\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "data/out").symlink_to(tmp_path / "other")
    options = (*OPTIONS, "--container-mounts", str(tmp_path / "data"))
    async with running(tmp_path, *options) as (server, _):
        data = str(tmp_path / "data")
        command = "cat /d/in; echo back > /w/made; touch /d/in 2> /dev/null || echo read-only"
        _, text = await end_of(server, contained(1, command, mounts=((data, "/d", True), (data, "/w", False))))
        assert text.startswith("from the host\n") and text.endswith("read-only\n")
        assert (tmp_path / "data/made").read_text() == "back\n"
        for number, path, why in (
            (2, f"{data}/none", "it is not there"),
            (3, "/etc", "may not be mounted here"),
            (4, f"{data}/out", "may not be mounted here"),
            (5, f"{data}/../other", "may not be mounted here"),
        ):
            end, _ = await end_of(server, contained(number, "true", mounts=((path, "/d", True),)))
            assert (end.cause, end.exit_code) == (Cause.START_FAILED, 125)
            assert why in end.message and path in end.message and "node n1" in end.message


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")
async def test_where_root_serves_several_users(tmp_path: Path) -> None:
    """They are themselves in their containers, mount nothing, and choose no files that root would write."""
    async with running(tmp_path, "--cpus", "2", "--memory", "2G") as (server, _):
        _, text = await end_of(server, contained(1, "id -u; touch /jarvis/x && ls /jarvis", user="nobody"))
        assert text == "65534\noutputs\ntmp\nx\n"
        for number, fields, why in (
            (2, {"mounts": (("/etc", "/d", True),)}, "may not be mounted"), (3, {"user_in": "0"}, "container_user"),
            (4, {"stdout": "/tmp/x"}, "output file"), (5, {"user": "root"}, "root"),
        ):  # fmt: skip
            end, _ = await end_of(server, contained(number, "true", **{"user": "nobody"} | fields))
            assert end.cause is Cause.START_FAILED and why in end.message, end.message


async def test_without_a_network_there_is_only_loopback(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, _):
        _, text = await end_of(server, contained(1, "ip -o link"))
        assert "lo" in text and "eth" not in text


async def test_limits_come_from_the_resources(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, node):
        await server.assign(contained(1, "echo up; sleep 60", resources={"cpu": 2500, "memory": 96 << 20}))
        await until_output(node, server, 1, "up")
        host = inspected(1)["HostConfig"]
        assert (host["CpuQuota"], host["CpuPeriod"]) == (250_000, 100_000)
        assert (host["Memory"], host["MemorySwap"]) == (96 << 20, 96 << 20)
        assert not host["Privileged"]
        command = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null"
        _, text = await end_of(server, contained(2, command, resources={"cpu": 100, "memory": 64 << 20}))
        assert text == f"{64 << 20}\n"


async def test_too_much_memory_is_oom(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, _):
        hungry = 'x=aaaaaaaaaaaaaaaa; while :; do x="$x$x"; done'
        end, _ = await end_of(server, contained(1, hungry, resources={"cpu": 1000, "memory": 32 << 20}))
        assert (end.cause, end.exit_code) == (Cause.OOM, 137)


async def test_use_is_measured(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, _):
        clock = "$(cut -d. -f1 /proc/uptime)"
        busy = f"x=$(head -c 8000000 /dev/zero | tr '\\0' x); t={clock}; while [ $(({clock} - t)) -lt 3 ]; do :; done"
        end, _ = await end_of(server, contained(1, busy, resources={"cpu": 1000}))
        assert end.exit_code == 0 and end.usage is not None
        assert end.usage.cpu_user_s + end.usage.cpu_system_s > 0.1
        assert end.usage.max_rss > 8_000_000


async def test_time_limits_are_soft_then_hard(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, _):
        kind = "trap 'echo asked; exit 5' TERM; sleep 60 & wait"
        end, text = await end_of(server, contained(1, kind, time_limit=1.0, grace=30.0))
        assert (end.cause, end.exit_code, text) == (Cause.TIMEOUT, 5, "asked\n")
        deaf = "trap '' TERM; while :; do sleep 1; done"
        end, _ = await end_of(server, contained(2, deaf, time_limit=0.5, grace=0.5))
        assert (end.cause, end.exit_code) == (Cause.TIMEOUT, 137)
        soft = "trap 'echo soft; exit 0' TERM; sleep 60 & wait"
        end, text = await end_of(server, contained(3, soft, soft_limit=1.0, time_limit=50.0))
        assert (end.cause, end.exit_code, text) == (Cause.EXIT, 0, "soft\n")


async def test_cancel_signal_and_suspend(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, node):
        await server.assign(
            contained(1, "echo up; sleep 60"),
            contained(2, "trap 'echo usr1' USR1; echo up; while :; do sleep 0.1; done"),
        )
        await until_output(node, server, 1, "up")
        await until_output(node, server, 2, "up")
        await server.send(Signal(number=2, signum=signal.SIGUSR1))
        await until_output(node, server, 2, "usr1")
        await server.send(Signal(number=2, signum=signal.SIGSTOP))
        await server.until(lambda: inspected(2)["State"]["Paused"], "it is frozen")
        await server.send(Stop(number=1, cause=Cause.CANCELLED, grace_s=20.0))
        await server.send(Stop(number=2, cause=Cause.PREEMPTED, grace_s=1.0))
        assert ((end := await server.end_of(1)).cause, end.exit_code) == (Cause.CANCELLED, 143)
        assert (await server.end_of(2)).cause is Cause.PREEMPTED


@pytest.mark.parametrize(("fields", "code", "texts"), [
    ({"image": "no-such-image:7"}, 125, ["no-such-image:7", "pull: never"]),
    ({"image": "127.0.0.1:1/none:7", "pull": "missing"}, 125, ["127.0.0.1:1/none:7", "could not be pulled"]),
    ({"image": "127.0.0.1:1/none:7", "pull": "always"}, 125, ["could not be pulled"]),
    ({"network": "no-such-net"}, 125, ["no-such-net"]),
])  # fmt: skip
async def test_what_cannot_start_says_why(tmp_path: Path, fields: dict[str, Any], code: int, texts: list[str]) -> None:
    async with running(tmp_path, *OPTIONS) as (server, _):
        end, _ = await end_of(server, contained(1, **{"command": "true"} | fields))
        assert (end.cause, end.exit_code) == (Cause.START_FAILED, code), end.message
        assert all(text in end.message for text in ["node n1", *texts]), end.message


async def test_a_missing_program_ends_as_in_a_shell(tmp_path: Path) -> None:
    """Whether the engine or the init in the container notices: 127 and 126, and the program is named."""
    async with running(tmp_path, *OPTIONS) as (server, _):
        for number, program, code in ((1, "no-such-program", 127), (2, "/etc", 126)):
            end, text = await end_of(server, contained(number, (program,)))
            assert end.exit_code == code and program in end.message + text


async def test_gpus_are_asked_of_the_engine(tmp_path: Path) -> None:
    """Here are none to be had, so the engine's refusal is what shows that it was asked."""
    async with running(tmp_path, *OPTIONS) as (server, _):
        end, _ = await end_of(server, contained(1, "true", resources={"cpu": 100, "gpu": 2000}))
        assert end.cause is Cause.START_FAILED and "gpu" in end.message


async def test_without_an_engine_the_task_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    async with running(tmp_path, *OPTIONS) as (server, _):
        assert server.hellos[0].labels["jarvis.container"] == "none"
        end, _ = await end_of(server, contained(1, "true"))
        assert end.cause is Cause.START_FAILED and f"{tmp_path}/none.sock" in end.message
