"""PURE: what the engine is told of a container."""

from dataclasses import dataclass
from typing import Any

from jarvis.core.task import Container
from jarvis.worker.machine import Work
from jarvis.worker.task_environment import FOLDER, gang_environment

SCRATCH = "/jarvis"
"""Where the attempt's own directory is in the container."""
SCRIPT = "/jarvis-script"
_PERIOD_US = 100_000
_LEAST_QUOTA_US = 1_000


@dataclass(slots=True)
class Box:
    """What the node adds: the environment, the attempt's directory, the script, and as whom it runs."""

    env: dict[str, str]
    scratch: str
    labels: dict[str, str]
    log: dict[str, Any]
    init: bool
    script: str | None = None
    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] = ()


def container_env(found: dict[str, str], work: Work) -> dict[str, str]:
    """Of a process's environment what holds in a container too: not the owner's home and shell on the node, and the GPUs
    by the numbers that they have inside."""
    kept = {name: value for name, value in found.items() if name.startswith("JARVIS_") or name == "OMP_NUM_THREADS"}
    kept |= {
        "JARVIS_TMPDIR": "/tmp",  # noqa: S108 - the container's own
        "JARVIS_OUTPUT": f"{SCRATCH}/output.json",
        "JARVIS_OUTPUT_DIR": f"{SCRATCH}/outputs",
        "CUDA_VISIBLE_DEVICES": ",".join(str(i) for i in range(len(work.gpus))),
    }
    return {**work.spec.env, **kept, **gang_environment(work, SCRATCH)}


def create_config(container: Container, work: Work, box: Box) -> dict[str, Any]:
    """The body of the engine's request to create it."""
    spec = work.spec
    config: dict[str, Any] = {
        "Image": container.image, "Labels": box.labels, "Env": [f"{name}={value}" for name, value in box.env.items()],
        "HostConfig": _host_config(container, work, box),
    }  # fmt: skip
    entrypoint, command = _argv(container, work, box.script)
    if entrypoint is not None:
        config["Entrypoint"] = entrypoint
    if command is not None:
        config["Cmd"] = command
    if spec.own_directory:
        config["WorkingDir"] = f"{SCRATCH}/{FOLDER}/{spec.cwd or ''}".rstrip("/")
    elif spec.cwd:
        config["WorkingDir"] = spec.cwd
    if box.uid is not None:
        config["User"] = f"{box.uid}:{box.gid}"
    elif container.user:
        config["User"] = container.user
    return config


def _argv(container: Container, work: Work, script: str | None) -> tuple[list[str] | None, list[str] | None]:
    """(entry point, command); None leaves the image's own."""
    command = work.spec.command
    entrypoint = None if container.entrypoint is None else list(container.entrypoint)
    words = [command] if isinstance(command, str) else None if command is None else list(command)
    if script is not None:
        return [SCRIPT], words
    if isinstance(command, str) and entrypoint is None:
        return ["/bin/sh", "-c"], words
    return entrypoint, words


def _host_config(container: Container, work: Work, box: Box) -> dict[str, Any]:
    need = work.spec.resources
    mounts = [_bind(source, target, read_only) for source, target, read_only in container.mounts]
    mounts.append(_bind(box.scratch, SCRATCH, False))
    if box.script is not None:
        mounts.append(_bind(box.script, SCRIPT, True))
    config: dict[str, Any] = {"Mounts": mounts, "NetworkMode": container.network, "Init": box.init}
    if box.log:
        config["LogConfig"] = box.log
    if need.get("cpu"):
        config |= {"CpuPeriod": _PERIOD_US, "CpuQuota": max(need["cpu"] * _PERIOD_US // 1000, _LEAST_QUOTA_US)}
    if need.get("memory"):
        config |= {"Memory": need["memory"], "MemorySwap": need["memory"]}
    if work.gpus:
        config["DeviceRequests"] = [{"DeviceIDs": [str(i) for i in work.gpus], "Capabilities": [["gpu"]]}]
    if box.uid is not None:
        config |= {"SecurityOpt": ["no-new-privileges"], "GroupAdd": [str(group) for group in box.groups]}
    return config


def _bind(source: str, target: str, read_only: bool) -> dict[str, Any]:
    return {"Type": "bind", "Source": source, "Target": target, "ReadOnly": read_only}
