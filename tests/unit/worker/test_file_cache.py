"""Files that are kept for others: what goes while it is copied is copied all the same."""

import hashlib
from pathlib import Path

import pytest

from jarvis.core.manifest import File
from jarvis.worker import file_cache
from jarvis.worker.file_cache import FileCache

DATA = b"some bytes"
DIGEST = hashlib.sha256(DATA).hexdigest()


async def fetch(task: int, digest: str) -> bytes:
    return b"some bytes, and some more"


@pytest.mark.parametrize("packed", [False, True])
async def test_what_makes_room_during_a_copy_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "made").mkdir()
    source, write = tmp_path / "kept" / DIGEST, file_cache._write
    source.write_bytes(DATA)

    def write_and_lose(*args: object) -> None:
        write(*args)  # type: ignore[arg-type]
        source.unlink(missing_ok=True)

    monkeypatch.setattr(file_cache, "_write", write_and_lose)
    cache, piece = FileCache(tmp_path / "kept", fetch, 10**6), hashlib.sha256(await fetch(1, "")).hexdigest()
    if packed:
        await cache.put_pack(1, [File("x", len(DATA), DIGEST, (piece,), within=0)], tmp_path / "made")
    else:
        await cache.put(1, File("x", len(DATA), DIGEST, (DIGEST,)), tmp_path / "made" / "x")
    assert (tmp_path / "made" / "x").read_bytes() == DATA
