"""PURE: what a task finds in its environment, and the names of its output files."""

import posixpath
import re
from dataclasses import dataclass

from jarvis.core.ids import SOLO
from jarvis.core.task import TaskSpec
from jarvis.worker.machine import Work

FOLDER = "work"
"""In the directory of an attempt that runs in one of its own: where that is."""


@dataclass(slots=True)
class Where:
    """What the node adds: its name, the owner's account and the directories made for the attempt."""

    node: str
    home: str
    user: str
    shell: str
    scratch: str
    """Directory of the attempt: temporary files, JARVIS_OUTPUT, declared outputs."""
    now: float
    api_url: str = ""


def environment(work: Work, place: Where, entry: str | None = None) -> dict[str, str]:
    """The client's exported variables, the owner's identity, and JARVIS_*; nothing of the agent's own."""
    return of_spec(work.spec, place) | of_attempt(work, place.scratch, place.now, entry)


def of_spec(spec: TaskSpec, place: Where) -> dict[str, str]:
    """What every attempt of it finds there whom an account is given; what :func:`of_attempt` says goes before it."""
    cpus = str(max(1, -(-spec.resources.get("cpu", 1000) // 1000)))
    env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **spec.env}
    env |= {
        "HOME": place.home, "USER": place.user, "SHELL": place.shell, "JARVIS_NAME": spec.name, "JARVIS_QUEUE": spec.queue,
        "JARVIS_NODE": place.node, "JARVIS_CPUS": cpus, "OMP_NUM_THREADS": cpus, "JARVIS_GPUS": "0",
        "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    if spec.resources.get("memory"):
        env["JARVIS_MEM_MB"] = str(spec.resources["memory"] >> 20)
    if place.api_url:
        env["JARVIS_API_URL"] = place.api_url
    if spec.cwd and not spec.own_directory:
        env["JARVIS_SUBMIT_DIR"] = spec.cwd
    if (array := spec.array) is not None:
        env["JARVIS_ARRAY_COUNT"] = str(array.count)
        env["JARVIS_ARRAY_MIN"] = str(array.ranges[0][0])
        env["JARVIS_ARRAY_MAX"] = str(array.index_at(array.count - 1))
        env["JARVIS_ARRAY_STEP"] = str(array.ranges[0][2])
    return env


def of_attempt(work: Work, scratch: str, now: float, entry: str | None) -> dict[str, str]:
    """What it has of its own."""
    a, task = work.assignment, str(work.assignment.task)
    env = {
        "JARVIS_TASK_ID": task, "JARVIS_ATTEMPT": str(a.attempt), "JARVIS_FENCING_TOKEN": str(a.token),
        "JARVIS_USER": a.user, "JARVIS_PROJECT": a.project, "JARVIS_OUTPUT": f"{scratch}/output.json",
        "JARVIS_OUTPUT_DIR": f"{scratch}/outputs",
        "JARVIS_TMPDIR": f"{scratch}/tmp",  # noqa: S108 - a folder of its own
    }  # fmt: skip
    if work.spec.array is not None:
        env["JARVIS_ARRAY_ID"], env["JARVIS_ARRAY_INDEX"] = task, str(a.index)
        if entry is not None:
            env["JARVIS_ENTRY"] = entry
    if work.shares:
        env["JARVIS_GPUS"], env["CUDA_VISIBLE_DEVICES"] = str(len(work.shares)), ",".join(map(str, work.gpus))
        if any(work.gpu_memory):
            env["JARVIS_GPU_MEMORY"] = ",".join(map(str, work.gpu_memory))
    if a.deadline_s is not None:
        env["JARVIS_DEADLINE"] = f"{now + a.deadline_s:.0f}"
    if a.restart:
        env["JARVIS_RESTART_REASON"] = a.restart
    return env if a.gang is None else env | gang_environment(work, scratch)


def hostfile(work: Work) -> str:
    """What $JARVIS_HOSTFILE of a rank holds: where each rank is, one a line, in order; empty where there is no gang."""
    gang = work.assignment.gang
    return "" if gang is None else "".join(f"{host}\n" for host in gang.hosts)


def gang_environment(work: Work, scratch: str) -> dict[str, str]:
    """Under the names that MPI launchers and torch.distributed read, too."""
    gang = work.assignment.gang
    if gang is None:
        return {}
    rank, size = str(gang.rank), str(len(gang.hosts))
    return {
        "JARVIS_RANK": rank, "JARVIS_WORLD_SIZE": size, "JARVIS_HOSTFILE": f"{scratch}/hostfile", "RANK": rank,
        "WORLD_SIZE": size, "MASTER_ADDR": gang.hosts[0], "MASTER_PORT": str(gang.port),
    }  # fmt: skip


_PATTERN = re.compile(r"%(%|[jAaxNut])")


def output_path(pattern: str, work: Work, node: str, below: str) -> str:
    """A user's ``-o`` with %j (id), %A (array id), %a (index), %x (name), %N (node), %u (user), %t (rank) filled in, in the
    directory ``below`` unless it is absolute. The ranks of a gang whose names would be the same get ``.RANK`` behind them, but
    for rank 0."""
    a = work.assignment
    index = "" if a.index == SOLO else str(a.index)
    values = {
        "%": "%", "j": f"{a.task}_{index}" if index else str(a.task), "A": str(a.task), "a": index,
        "x": work.spec.name.replace("/", "_"), "N": node, "u": a.user, "t": str(work.rank),
    }  # fmt: skip
    filled = _PATTERN.sub(lambda match: values[match.group(1)], pattern)
    if work.rank and not {"N", "t"} & set(_PATTERN.findall(pattern)):
        filled += f".{work.rank}"
    return posixpath.join(below, filled)
