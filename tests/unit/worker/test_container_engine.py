"""The engine's log in frames, and what the engine is told of a container."""

import asyncio
import struct
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jarvis.core.effects import Assignment
from jarvis.core.gpus import Share
from jarvis.core.resources import Resources
from jarvis.core.task import Container, TaskSpec
from jarvis.worker import container_engine
from jarvis.worker.container_config import Box, container_env, create_config
from jarvis.worker.container_engine import Frames, images, probe
from jarvis.worker.machine import Work


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=40))), st.integers(1, 50))
def test_a_log_is_put_together_however_it_is_cut(frames: list[tuple[int, bytes]], cut: int) -> None:
    raw = b"".join(struct.pack(">BxxxL", stream, len(data)) + data for stream, data in frames)
    reader, found = Frames(), list[tuple[int, bytes]]()
    for at in range(0, len(raw), cut):
        found += reader.feed(raw[at : at + cut])
    for stream in (1, 2):
        assert b"".join(d for s, d in found if s == stream) == b"".join(d for s, d in frames if s == stream)
    order = [(s, byte) for s, data in found for byte in data]
    assert order == [(s, byte) for s, data in frames for byte in data]


LISTED = msgspec.json.encode([
    {"Id": "sha256:1", "RepoTags": ["alpine:3.20", "own:5000/x:v1"], "RepoDigests": [f"alpine@sha256:{'a' * 64}"], "Size": 9},
    {"Id": "sha256:2", "RepoTags": ["<none>:<none>"], "RepoDigests": ["<none>@<none>"], "Size": 8},
    {"Id": "sha256:3", "RepoTags": None, "Size": 7, "Labels": None},
])  # fmt: skip


@pytest.mark.parametrize(
    ("head", "body", "found"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\n", LISTED, True),
        (b"HTTP/1.0 500 Internal\r\n\r\n", LISTED, False),
        (b"HTTP/1.0 200 OK\r\n\r\n", LISTED[:-5], False),
        (b"HTTP/1.0 200 OK\r\n\r\n", b"[" + b" " * 5000 + LISTED[1:], False),
        (b"HTTP/1.0 200", b"", False),
        (b"", b"", False),
    ],
    ids=["well", "not well", "broken off", "without end", "no head", "nothing"],
)
async def test_an_engine_that_does_not_answer_well_has_no_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: bytes, body: bytes, found: bool
) -> None:
    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head + body)
        writer.close()

    monkeypatch.setattr(container_engine, "ANSWER_MOST", 4096)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/socket")
    async with await asyncio.start_unix_server(engine, tmp_path / "socket"):
        names = ("docker.io/library/alpine:3.20", "own:5000/x:v1", f"docker.io/library/alpine@sha256:{'a' * 64}")
        assert await images() == (dict.fromkeys(names, 9) if found else {})


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.0 500 Internal\r\n\r\n", "the engine at {} is not well: HTTP/1.0 500 Internal"),
        (b"HTTP/1.0 200", "no engine answers at {}: it answers with something else"),
        (b"", "no engine answers at {}: it answers with something else"),
        (None, "no engine answers at {}: it takes too long"),
    ],
    ids=["not well", "no head", "nothing", "silence"],
)
async def test_what_is_wrong_with_an_engine_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes | None, told: str
) -> None:
    over = asyncio.Event()

    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await over.wait()
        else:
            writer.write(answer)
        writer.close()

    monkeypatch.setattr(container_engine, "PROBE_S", 0.1 if answer is None else 10.0)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/socket")
    async with await asyncio.start_unix_server(engine, tmp_path / "socket"):
        assert await probe() == told.format(tmp_path / "socket")
        over.set()


def made(container: Container, resources: Resources, gpus: tuple[int, ...] = ()) -> Work:
    spec = TaskSpec(name="t", command="x", container=container, resources=resources, env={"A": "1"})
    raw = msgspec.Raw(msgspec.msgpack.encode(spec))
    assignment = Assignment(number=1, token=1, attempt=1, task=1, index=-1, project="p", user="u", spec=raw)
    return Work(assignment, spec, tuple(Share(gpu, 1000) for gpu in gpus))


def test_gpus_go_by_the_node_s_numbers_to_the_engine_and_by_their_own_inside() -> None:
    work = made(Container("i"), {"cpu": 500, "gpu": 2000}, gpus=(1, 3))
    env = container_env({"CUDA_VISIBLE_DEVICES": "1,3", "HOME": "/root", "JARVIS_GPUS": "2"}, work)
    assert env["CUDA_VISIBLE_DEVICES"] == "0,1" and env["JARVIS_GPUS"] == "2" and env["A"] == "1" and "HOME" not in env
    host = create_config(Container("i"), work, Box(env, "/s", {}, {}, True))["HostConfig"]
    assert host["DeviceRequests"] == [{"DeviceIDs": ["1", "3"], "Capabilities": [["gpu"]]}]
    assert (host["CpuQuota"], host["CpuPeriod"]) == (50_000, 100_000)


def test_a_container_of_another_user_has_his_ids_and_gains_none() -> None:
    container = Container("i", mounts=(("/a", "/b", True),))
    box = Box({}, "/s", {}, {}, True, uid=7, gid=8, groups=(8, 9))
    config = create_config(container, made(container, {"cpu": 1}), box)
    host = config["HostConfig"]
    assert config["User"] == "7:8" and host["GroupAdd"] == ["8", "9"] and host["SecurityOpt"] == ["no-new-privileges"]
    assert "Privileged" not in host and host["CpuQuota"] == 1000
    assert [(m["Source"], m["Target"], m["ReadOnly"]) for m in host["Mounts"]] == [
        ("/a", "/b", True),
        ("/s", "/jarvis", False),
    ]
