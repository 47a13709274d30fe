"""Artifacts when the server does not take them, or takes them late."""

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from jarvis.core.effects import Assignment
from jarvis.core.inputs import Ended
from jarvis.core.manifest import PIECE, decode
from jarvis.core.states import Cause
from jarvis.core.task import TaskSpec
from jarvis.worker import pulled
from jarvis.worker.attempt_files import NOT_KEPT, AttemptFiles
from jarvis.worker.machine import Work

Put = Callable[[int, int, bytes], Awaitable[str]]
SPEC = TaskSpec(name="t", command=("true",), artifacts=("*",))
WORK = Work(Assignment(1, 7, 1, 1, -1, "p", "ann", msgspec.Raw(b"")), SPEC)


async def fetch(task: int, digest: str) -> bytes:
    raise AssertionError("nothing is pushed")


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pulled, "FIRST_WAIT_S", 0.0)
    (tmp_path / "scratch/work").mkdir(parents=True)
    (tmp_path / "scratch/work/x").write_bytes(bytes(PIECE) + b"y")
    return tmp_path / "scratch"


async def kept(scratch: Path, put: Put, exit_code: int = 0) -> Ended:
    files = AttemptFiles(scratch.parent, fetch, put, 0)
    end = Ended(number=1, token=7, cause=Cause.EXIT, exit_code=exit_code, message="so" if exit_code else "")
    return await files.keep(WORK, str(scratch), None, end)


@pytest.mark.parametrize(("code", "message"), [(0, "its artifacts"), (3, "so; its artifacts")])
async def test_a_success_whose_artifacts_cannot_be_kept_is_none(scratch: Path, code: int, message: str) -> None:
    tries = 0

    async def put(number: int, token: int, data: bytes) -> str:
        nonlocal tries
        tries += 1
        raise OSError("the disk that holds the blobs is full")

    end = await kept(scratch, put, code)
    assert (end.exit_code, end.artifacts) == (code or NOT_KEPT, None)
    assert end.message.startswith(f"{message} could not be kept: the disk")
    assert tries >= pulled.TRIES


async def test_a_server_that_is_away_for_a_while_is_waited_for(scratch: Path) -> None:
    stored: dict[str, bytes] = {}
    answers = iter([TimeoutError(), OSError("busy"), TimeoutError(), OSError("busy")])

    async def put(number: int, token: int, data: bytes) -> str:
        assert (number, token) == (1, 7)
        if (error := next(answers, None)) is not None:
            raise error
        stored[hashlib.sha256(data).hexdigest()] = data
        return hashlib.sha256(data).hexdigest()

    end = await kept(scratch, put)
    assert (end.exit_code, end.message) == (0, "")
    assert end.artifacts is not None
    (file,) = decode(stored[end.artifacts]).files
    assert b"".join(stored[piece] for piece in file.pieces) == bytes(PIECE) + b"y"


async def test_more_than_a_manifest_holds_is_told(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jarvis.core.manifest.MAX_MANIFEST", 50)

    async def put(number: int, token: int, data: bytes) -> str:
        return hashlib.sha256(data).hexdigest()

    assert "pack them into one" in (await kept(scratch, put)).message
