"""A disk that fills: clear refusals, nothing half-written, everything acknowledged kept, and it goes on when there is room."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.contract.harness import commit, event, insert, new
from tests.disks import SmallDisk, small_disk

from jarvis.core.errors import StoreUnavailable
from jarvis.core.task import NewTask
from jarvis.state.blob_stores.directory import DirectoryBlobStore
from jarvis.state.stores.sqlite import SqliteStore
from jarvis.state.stores.sqlite.file import restore

pytestmark = pytest.mark.root


def big(at: int = 0) -> NewTask:
    """Unlike any other, so that each takes its room."""
    return new(env={"pad": f"{at:060000}"})


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", 6 << 20) as made:
        yield made


async def all_ids(store: SqliteStore) -> set[int]:
    return {task.id for task in await store.task_list_live(0, 10_000)}


async def insert_until_refused(store: SqliteStore, accepted: set[int]) -> None:
    for _ in range(100):
        accepted.update(await insert(store, big()))


async def put_until_refused(blobs: DirectoryBlobStore, kept: dict[str, bytes]) -> None:
    for number in range(100):
        data = bytes([number]) * 50_000
        kept[await blobs.put("p", data)] = data


@pytest.mark.parametrize("times", [1, 3])
async def test_the_database_refuses_and_recovers_by_itself(disk: SmallDisk, times: int) -> None:
    store = SqliteStore(disk.path / "state")
    await store.open()
    lead = await store.leadership_acquire("a")
    accepted: set[int] = set(await insert(store, new()))
    for number in range(1, times + 1):
        disk.fill(leave=500_000)
        outcomes = await asyncio.gather(*(insert(store, big()) for _ in range(40)), return_exceptions=True)
        with pytest.raises(StoreUnavailable, match="full"):
            await insert_until_refused(store, accepted)
        assert {type(o) for o in outcomes} <= {list, StoreUnavailable}
        accepted.update(ident for o in outcomes if isinstance(o, list) for ident in o)
        disk.fill()
        with pytest.raises(StoreUnavailable):
            await commit(store, lead, events=[event(1000 * number, kind="x" * 300_000)])
        assert await all_ids(store) == accepted, "what was acknowledged can be read, and nothing else is there"
        disk.drain()
        accepted.update(await insert(store, big()))
        await commit(store, lead, events=[event(1000 * number + 1)])
        assert await store.check() > 0
    await store.close()
    await store.open()
    assert await all_ids(store) == accepted
    await store.close()


async def test_a_database_closed_on_a_full_disk_opens_when_there_is_room(disk: SmallDisk) -> None:
    store = SqliteStore(disk.path / "state")
    await store.open()
    accepted = set(await insert(store, *map(big, range(10))))
    disk.fill()
    await store.close()
    with pytest.raises(StoreUnavailable, match=str(store.path)):
        await store.open()
    disk.drain()
    await store.open()
    assert await all_ids(store) == accepted
    await store.close()


async def test_a_backup_or_restore_without_room_leaves_nothing_behind(disk: SmallDisk, tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state")
    await store.open()
    ids = set(await insert(store, *map(big, range(20))))
    await store.backup(tmp_path / "copy")
    disk.fill(leave=400_000)
    with pytest.raises(StoreUnavailable, match=str(disk.path)):
        await store.backup(disk.path / "copy")
    with pytest.raises(StoreUnavailable):
        restore(tmp_path / "copy", disk.path / "state")
    left = {p.name for p in disk.path.rglob("*") if p.is_file()}
    assert left == {"ballast", "lock"}
    disk.drain()
    await store.backup(disk.path / "copy")
    restore(disk.path / "copy", disk.path / "state")
    assert await all_ids(store) == ids
    await store.close()


async def parts(count: int) -> AsyncIterator[bytes]:
    for number in range(count):
        yield bytes([number]) * 65_536


async def test_blobs_refuse_and_recover_by_themselves(disk: SmallDisk) -> None:
    blobs = DirectoryBlobStore(disk.path / "blobs")
    kept = {await blobs.put("p", b"first"): b"first"}
    disk.fill(leave=500_000)
    with pytest.raises(StoreUnavailable, match="full"):
        await put_until_refused(blobs, kept)
    with pytest.raises(StoreUnavailable, match="full"):
        await blobs.put_stream("p", parts(20), 1 << 30)
    disk.fill()
    with pytest.raises(StoreUnavailable, match="full"):
        await blobs.put("another project, so another folder", b"x" * 5000)
    assert {digest: await blobs.get("p", digest) for digest in kept} == kept
    assert await blobs.total_bytes() == sum(map(len, kept.values())), "nothing half-written is left"
    disk.drain()
    digest, size = await blobs.put_stream("p", parts(20), 1 << 30)
    assert await blobs.size("p", digest) == size == 20 * 65_536
