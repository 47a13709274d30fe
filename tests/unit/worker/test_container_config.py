"""What the engine is told of a container."""

from typing import Any

import msgspec
import pytest

from jarvis.core.effects import Assignment, Gang
from jarvis.core.gpus import Share
from jarvis.core.task import Container, TaskSpec
from jarvis.worker.container_config import SCRIPT, Box, container_env, create_config
from jarvis.worker.machine import Work


def work(shares: tuple[Share, ...] = (), **spec: Any) -> Work:
    assignment = Assignment(1, 9, 1, 7, -1, "red", "ann", msgspec.Raw(b""))
    return Work(assignment, TaskSpec(name="t", **spec), shares)


def config(container: Container, job: Work, **box: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"env": {"A": "1"}, "scratch": "/s", "labels": {"l": "1"}, "log": {}, "init": True} | box
    return create_config(container, job, Box(**given))


def test_the_least() -> None:
    made = config(Container(image="x"), work())
    assert made == {
        "Image": "x", "Labels": {"l": "1"}, "Env": ["A=1"],
        "HostConfig": {
            "Mounts": [{"Type": "bind", "Source": "/s", "Target": "/jarvis", "ReadOnly": False}],
            "NetworkMode": "bridge", "Init": True,
        },
    }  # fmt: skip


def test_everything() -> None:
    container = Container(image="x", mounts=(("/a", "/b", True),), network="none", user="7")
    job = work(
        (Share(0, 1000), Share(3, 1000)),
        command=("x", "y"),
        cwd="/w",
        resources={"cpu": 1500, "memory": 1 << 20, "gpu": 2000},
    )
    made = config(container, job, log={"Type": "local"})
    assert (made["Cmd"], made["WorkingDir"], made["User"]) == (["x", "y"], "/w", "7")
    host = made["HostConfig"]
    assert host["NetworkMode"] == "none"
    assert host["LogConfig"] == {"Type": "local"}
    assert host["CpuQuota"] / host["CpuPeriod"] == 1.5
    assert host["Memory"] == host["MemorySwap"] == 1 << 20
    assert host["DeviceRequests"] == [{"DeviceIDs": ["0", "3"], "Capabilities": [["gpu"]]}]
    assert host["Mounts"][0] == {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True}
    assert (
        container_env({"HOME": "/h", "JARVIS_TASK_ID": "7", "OMP_NUM_THREADS": "2"}, job)["CUDA_VISIBLE_DEVICES"]
        == "0,1"
    )
    assert "HOME" not in container_env({"HOME": "/h"}, job)


@pytest.mark.parametrize(("command", "entrypoint", "script", "wanted"), [
    (None, None, None, (None, None)), ("echo $X", None, None, (["/bin/sh", "-c"], ["echo $X"])),
    ("arg", ("/e",), None, (["/e"], ["arg"])), (("a", "b"), ("/e",), None, (["/e"], ["a", "b"])),
    (("a",), None, "/on/node", ([SCRIPT], ["a"])),
])  # fmt: skip
def test_entry_points_and_commands(command: Any, entrypoint: Any, script: str | None, wanted: Any) -> None:
    made = config(Container(image="x", entrypoint=entrypoint), work(command=command), script=script)
    assert (made.get("Entrypoint"), made.get("Cmd")) == wanted
    assert (SCRIPT in str(made["HostConfig"]["Mounts"])) == (script is not None)


def test_as_whom() -> None:
    made = config(Container(image="x", user="root"), work(), uid=1000, gid=100, groups=(4, 5))
    assert made["User"] == "1000:100", "a node of several users does not let them choose"
    assert made["HostConfig"]["SecurityOpt"] == ["no-new-privileges"]
    assert made["HostConfig"]["GroupAdd"] == ["4", "5"]


def test_a_rank_finds_the_others_inside_too() -> None:
    job = work(nodes=2)
    job.assignment = msgspec.structs.replace(job.assignment, gang=Gang(1, ("a", "b"), 20001))
    env = container_env({"PATH": "/usr/bin", "JARVIS_HOSTFILE": "/state/hostfile", "MASTER_ADDR": "a"}, job)
    assert (env["JARVIS_HOSTFILE"], env["MASTER_ADDR"], env["MASTER_PORT"], env["RANK"]) == (
        "/jarvis/hostfile", "a", "20001", "1",
    )  # fmt: skip
    assert "PATH" not in env
