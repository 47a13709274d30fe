"""One suite for every blob store."""

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.contract.harness import chunks
from tests.servers import s3
from tests.servers.postgres import shared

from jarvis.core.errors import InvalidValue, NotFound, StoreUnavailable
from jarvis.state.blob_store import BlobStore
from jarvis.state.blob_stores.directory import DirectoryBlobStore
from jarvis.state.blob_stores.memory import MemoryBlobStore
from jarvis.state.blob_stores.objects import ObjectBlobStore, open_bucket
from jarvis.state.blob_stores.postgres import PostgresBlobStore
from jarvis.state.stores.postgres import PostgresStore


@pytest.fixture(params=["memory", "directory", "postgres", "s3"])
async def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BlobStore]:
    if request.param == "postgres":
        store = PostgresStore(shared().database())
        await store.open()
        yield PostgresBlobStore(store.postgres)
        await store.close()
    elif request.param == "s3":
        yield ObjectBlobStore(open_bucket(s3.shared().bucket(), s3.shared().endpoint))
    else:
        yield MemoryBlobStore() if request.param == "memory" else DirectoryBlobStore(tmp_path / "blobs")


@pytest.fixture
def directory(tmp_path: Path) -> DirectoryBlobStore:
    return DirectoryBlobStore(tmp_path / "blobs")


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


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


async def test_a_long_stream_comes_back_and_a_long_one_that_breaks_leaves_nothing(blobs: BlobStore) -> None:
    block = os.urandom(1 << 20)

    async def stream(breaks: bool) -> AsyncIterator[bytes]:
        for number in range(10):
            yield block[number:]
        if breaks:
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await blobs.put_stream("p", stream(True), 1 << 30)
    with pytest.raises(InvalidValue):
        await blobs.put_stream("p", stream(False), 9 << 20)
    assert await blobs.total_bytes() == 0
    whole = b"".join([piece async for piece in stream(False)])
    for _ in range(2):
        assert await blobs.put_stream("p", stream(False), 1 << 30) == (hashlib.sha256(whole).hexdigest(), len(whole))
    assert await blobs.get("p", hashlib.sha256(whole).hexdigest()) == whole
    assert await blobs.total_bytes() == len(whole)


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


async def test_a_sweep_leaves_what_is_young_and_what_is_kept(blobs: BlobStore) -> None:
    kept, gone = await blobs.put("p", b"kept"), await blobs.put("p", b"gone")
    other = await blobs.put("q", b"kept")
    assert await blobs.sweep(time.time() - 60, {}) == 0
    assert await blobs.sweep(time.time() + 60, {"p": {kept}}) == 8
    assert await blobs.get("p", kept) == b"kept"
    for project, digest in (("p", gone), ("q", other)):
        with pytest.raises(NotFound):
            await blobs.get(project, digest)
    assert await blobs.total_bytes() == 4


async def test_a_touch_makes_young_and_says_what_is_missing(blobs: BlobStore) -> None:
    digest = await blobs.put("p", b"abc")
    await asyncio.sleep(0.05)
    before = time.time() - 0.02
    await blobs.touch("p", digest)
    assert await blobs.sweep(before, {}) == 0
    with pytest.raises(NotFound):
        await blobs.touch("q", digest)


async def test_a_bucket_that_does_not_serve_says_so() -> None:
    blobs = ObjectBlobStore(open_bucket("s3://no-such-bucket/x", s3.shared().endpoint))
    with pytest.raises((StoreUnavailable, NotFound)):
        await blobs.put("p", b"x")
    with pytest.raises((StoreUnavailable, NotFound)):
        await blobs.total_bytes()


async def test_nothing_is_written_outside(directory: DirectoryBlobStore, tmp_path: Path) -> None:
    for project in ("../..", "..", "/tmp/evil"):
        await directory.put(project, b"abc")
    assert {path.relative_to(tmp_path).parts[0] for path in files_of(tmp_path)} == {"blobs"}
    assert len(files_of(tmp_path)) == 3


async def test_a_sweep_takes_what_a_crash_left_half_written(directory: DirectoryBlobStore, tmp_path: Path) -> None:
    digest = await directory.put("p", b"abc")
    (path,) = files_of(tmp_path)
    for left in (path.with_name(".part-x"), tmp_path / "blobs" / ".part-y"):
        left.write_bytes(b"half")
        os.utime(left, (1.0, 1.0))
    assert await directory.sweep(time.time() - 60, {}) == 8
    assert files_of(tmp_path) == [path]
    assert await directory.get("p", digest) == b"abc"


async def test_a_link_is_not_followed(directory: DirectoryBlobStore, tmp_path: Path) -> None:
    digest = await directory.put("p", b"abc")
    (path,) = files_of(tmp_path)
    path.unlink()
    path.symlink_to("/etc/passwd")
    with pytest.raises(StoreUnavailable):
        await directory.get("p", digest)


async def test_many_at_once(directory: DirectoryBlobStore) -> None:
    bodies = [str(n % 20).encode() for n in range(200)]
    digests = await asyncio.gather(*(directory.put("p", body) for body in bodies))
    assert [await directory.get("p", digest) for digest in digests] == bodies
    assert await directory.total_bytes() == sum(map(len, set(bodies)))
