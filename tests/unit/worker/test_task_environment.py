"""What a task finds in its environment, and where its output goes."""

from typing import Any

import msgspec
import pytest

from jarvis.core.effects import Assignment, Gang
from jarvis.core.gpus import Share
from jarvis.core.task import ArraySpec, TaskSpec
from jarvis.worker.machine import Work
from jarvis.worker.task_environment import Where, environment, hostfile, output_path

WHERE = Where("n1", "/home/ann", "ann", "/bin/sh", "/state/7.1", 1000.0, "http://127.0.0.1:7517")


def work(index: int = -1, **spec: Any) -> Work:
    made = TaskSpec(name="a/b", **spec)
    assignment = Assignment(1, 99, 2, 7, index, "red", "ann", msgspec.Raw(b""))
    return Work(assignment, made, (Share(0, 1000, 24 << 30), Share(2, 500, 8 << 30)))


def test_everything_that_is_promised() -> None:
    spec: dict[str, Any] = {
        "resources": {"cpu": 1500, "memory": 3 << 20},
        "cwd": "/data",
        "env": {"MINE": "1", "HOME": "/elsewhere"},
    }
    job = work(**spec)
    job.assignment = msgspec.structs.replace(job.assignment, deadline_s=60.0, restart="node_lost")
    env = environment(job, WHERE)
    assert env == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "MINE": "1", "HOME": "/home/ann",
        "USER": "ann", "SHELL": "/bin/sh", "JARVIS_TASK_ID": "7", "JARVIS_ATTEMPT": "2", "JARVIS_FENCING_TOKEN": "99",
        "JARVIS_NAME": "a/b", "JARVIS_USER": "ann", "JARVIS_PROJECT": "red", "JARVIS_QUEUE": "default", "JARVIS_NODE": "n1",
        "JARVIS_CPUS": "2", "JARVIS_GPUS": "2", "JARVIS_TMPDIR": "/state/7.1/tmp", "JARVIS_OUTPUT": "/state/7.1/output.json",
        "JARVIS_OUTPUT_DIR": "/state/7.1/outputs", "OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "0,2", "JARVIS_MEM_MB": "3",
        "JARVIS_API_URL": "http://127.0.0.1:7517", "JARVIS_SUBMIT_DIR": "/data", "JARVIS_DEADLINE": "1060",
        "JARVIS_RESTART_REASON": "node_lost", "JARVIS_GPU_MEMORY": f"{24 << 30},{8 << 30}",
    }  # fmt: skip


def test_an_element_knows_its_array() -> None:
    array = ArraySpec(((0, 8, 2),))
    env = environment(work(4, array=array), Where("n", "/", "u", "/bin/sh", "/s", 0.0), "line five")
    found = {name: value for name, value in env.items() if name.startswith("JARVIS_ARRAY") or name == "JARVIS_ENTRY"}
    assert found == {
        "JARVIS_ARRAY_ID": "7", "JARVIS_ARRAY_INDEX": "4", "JARVIS_ARRAY_COUNT": "5", "JARVIS_ARRAY_MIN": "0",
        "JARVIS_ARRAY_MAX": "8", "JARVIS_ARRAY_STEP": "2", "JARVIS_ENTRY": "line five",
    }  # fmt: skip
    assert "JARVIS_API_URL" not in env
    assert "JARVIS_ENTRY" not in environment(work(4, array=array), WHERE)


@pytest.mark.parametrize(("pattern", "index", "path"), [
    ("out.txt", -1, "/data/out.txt"), ("/abs/%j", -1, "/abs/7"), ("%j-%A-%a", 4, "/data/7_4-7-4"),
    ("%x.%N.%u", -1, "/data/a_b.n1.ann"), ("100%%.%q", -1, "/data/100%.%q"),
])  # fmt: skip
def test_names_of_output_files(pattern: str, index: int, path: str) -> None:
    assert output_path(pattern, work(index), "n1", "/data") == path


def rank(at: int, **spec: Any) -> Work:
    made = work(nodes=3, **spec)
    made.assignment = msgspec.structs.replace(made.assignment, gang=Gang(at, ("10.0.0.1", "10.0.0.2", "::1"), 20007))
    return made


def test_a_rank_knows_its_gang() -> None:
    env = environment(rank(2), WHERE)
    names = ("JARVIS_RANK", "JARVIS_WORLD_SIZE", "JARVIS_HOSTFILE", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    assert [env[name] for name in names] == ["2", "3", "/state/7.1/hostfile", "2", "3", "10.0.0.1", "20007"]
    assert hostfile(rank(2)) == "10.0.0.1\n10.0.0.2\n::1\n"
    alone = work()
    assert (hostfile(alone), alone.rank) == ("", 0)
    assert not {*names} & environment(alone, WHERE).keys()


@pytest.mark.parametrize(("pattern", "at", "path"), [
    ("out", 0, "/data/out"), ("out", 2, "/data/out.2"), ("out.%t", 0, "/data/out.0"), ("out.%t", 2, "/data/out.2"),
    ("%N", 2, "/data/n1"), ("%%t", 1, "/data/%t.1"),
])  # fmt: skip
def test_ranks_do_not_write_into_one_file(pattern: str, at: int, path: str) -> None:
    assert output_path(pattern, rank(at), "n1", "/data") == path
