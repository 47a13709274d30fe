"""Manifests as they are read from bodies: checked, and the latest of them remembered while they are there."""

import hashlib

import pytest

from jarvis.core.errors import InvalidValue, NotFound
from jarvis.core.manifest import MAX_MANIFEST, File, Manifest, encode
from jarvis.state.blob_stores.memory import MemoryBlobStore
from jarvis.state.manifests import AT_ONCE, RECENT, RecentManifests, pieces_of, read_manifest

EMPTY = hashlib.sha256(b"").hexdigest()


def manifest(count: int, name: str = "") -> Manifest:
    return Manifest(tuple(File(f"{name}{n:06}", 1, EMPTY, (EMPTY,)) for n in range(count)))


@pytest.mark.parametrize("count", [0, 1, 1000])
async def test_small_and_large_ones_come_back(count: int) -> None:
    blobs, made = MemoryBlobStore(), manifest(count)
    digest = await blobs.put("p", encode(made))
    assert (await blobs.size("p", digest) > AT_ONCE) is (count == 1000)
    assert await read_manifest(blobs, "p", digest) == made
    assert await pieces_of(blobs, "p", [digest, "0" * 64]) == made.pieces


async def test_what_is_none_is_refused() -> None:
    blobs = MemoryBlobStore()
    for data, word in ((b"x", "list of files"), (b"x" * (MAX_MANIFEST + 1), "at most")):
        with pytest.raises(InvalidValue, match=word):
            await read_manifest(blobs, "p", await blobs.put("p", data))
    with pytest.raises(NotFound):
        await read_manifest(blobs, "p", EMPTY)


async def test_the_latest_are_remembered_while_they_are_there() -> None:
    blobs = MemoryBlobStore()
    recent = RecentManifests(blobs)
    digests = [await blobs.put("p", encode(manifest(1, str(n)))) for n in range(RECENT + 3)]
    first = await recent.get("p", digests[0])
    assert await recent.get("p", digests[0]) is first
    for digest in digests:
        await recent.get("p", digest)
    assert await recent.get("p", digests[0]) is not first, "no more than so many"
    with pytest.raises(NotFound):
        await recent.get("q", digests[0])
    await blobs.delete("p", digests[0])
    with pytest.raises(NotFound):
        await recent.get("p", digests[0])
