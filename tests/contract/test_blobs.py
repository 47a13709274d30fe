"""One suite for every blob store."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.contract.harness import chunks

from jarvis.core.errors import InvalidValue, NotFound
from jarvis.state.blob_store import BlobStore
from jarvis.state.blob_stores.directory import DirectoryBlobStore
from jarvis.state.blob_stores.memory import MemoryBlobStore


@pytest.fixture(params=["memory", "directory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    return MemoryBlobStore() if request.param == "memory" else DirectoryBlobStore(tmp_path / "blobs")


async def test_bytes_come_back_under_their_digest(blobs: BlobStore) -> None:
    for data in (b"", b"x", bytes(range(256)) * 4096):
        digest = await blobs.put("p", data)
        assert digest == hashlib.sha256(data).hexdigest()
        assert await blobs.get("p", digest) == data
        assert await blobs.size("p", digest) == len(data)


async def test_the_same_bytes_are_stored_once(blobs: BlobStore) -> None:
    digests = await asyncio.gather(*(blobs.put("p", b"abc") for _ in range(20)))
    assert await blobs.put_stream("p", chunks(b"a", b"bc"), 3) == (hashlib.sha256(b"abc").hexdigest(), 3)
    assert len(set(digests)) == 1
    assert await blobs.total_bytes() == 3


async def test_ranges(blobs: BlobStore) -> None:
    digest = await blobs.put("p", b"0123456789")
    assert await blobs.read("p", digest, 2, 3) == b"234"
    assert await blobs.read("p", digest, 8, 100) == b"89"
    assert await blobs.read("p", digest, 10, 5) == await blobs.read("p", digest, 99, 5) == b""
    assert await blobs.read("p", digest, 0, 0) == b""


async def test_projects_see_only_their_own(blobs: BlobStore) -> None:
    digest = await blobs.put("p", b"secret")
    with pytest.raises(NotFound):
        await blobs.get("q", digest)
    assert not await blobs.delete("q", digest)
    assert await blobs.get("p", digest) == b"secret"


async def test_what_is_deleted_is_gone_and_may_come_again(blobs: BlobStore) -> None:
    digest = await blobs.put("p", b"abc")
    assert await blobs.delete("p", digest)
    assert not await blobs.delete("p", digest)
    for asked in (blobs.get("p", digest), blobs.size("p", digest), blobs.read("p", digest, 0, 1)):
        with pytest.raises(NotFound):
            await asked
    assert await blobs.total_bytes() == 0
    assert await blobs.put("p", b"abc") == digest
    assert await blobs.get("p", digest) == b"abc"


async def test_a_stream_above_the_limit_leaves_nothing(blobs: BlobStore) -> None:
    with pytest.raises(InvalidValue):
        await blobs.put_stream("p", chunks(b"abc", b"def"), 5)
    assert await blobs.total_bytes() == 0
    assert (await blobs.put_stream("p", chunks(b"abc", b"", b"de"), 5))[1] == 5
    assert (await blobs.put_stream("p", chunks(), 5))[1] == 0


async def test_a_stream_that_breaks_leaves_nothing(blobs: BlobStore) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"abc"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await blobs.put_stream("p", broken(), 100)
    assert await blobs.total_bytes() == 0


@pytest.mark.parametrize("project", ["..", "../../x", "/etc", "a/b", "", "\x00", "ü", "x" * 500, "\ud800"])
async def test_any_project_name_is_only_a_name(blobs: BlobStore, project: str) -> None:
    digest = await blobs.put(project, b"abc")
    assert await blobs.get(project, digest) == b"abc"
    with pytest.raises(NotFound):
        await blobs.get("p", digest)


@pytest.mark.parametrize("digest", ["", "..", "../../../etc/passwd", "a" * 63, "A" * 64, "a" * 63 + "/", "a" * 65])
async def test_what_is_no_digest_is_never_there(blobs: BlobStore, digest: str) -> None:
    for asked in (blobs.get("p", digest), blobs.size("p", digest), blobs.read("p", digest, 0, 1)):
        with pytest.raises(NotFound):
            await asked
    assert not await blobs.delete("p", digest)
