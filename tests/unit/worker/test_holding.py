"""What a node tells of what it holds: as it is now, once for each change, and again in case it was not heard."""

import asyncio
import hashlib
import os
from pathlib import Path

import pytest

from jarvis.core.holdings import HELD_LEAST, HELD_MOST, Holdings
from jarvis.core.manifest import PIECE, File
from jarvis.worker import holding
from jarvis.worker.file_cache import FileCache
from jarvis.worker.file_sets import FILES_MOST, FileSets
from jarvis.worker.holding import AGAIN_S, Holding

MANIFEST = "ab" * 32


def file(name: str, size: int) -> File:
    return File(name, size, hashlib.sha256(name.encode()).hexdigest(), ())


def keep(kept: Path, *files: File) -> None:
    for one in files:
        (kept / one.digest).touch()


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    (tmp_path / "files").mkdir()
    return tmp_path / "files"


def sets_of(kept: Path) -> FileSets:
    return FileSets(kept.parent / "sets", kept)


async def test_of_a_set_it_is_told_how_much_is_there(kept: Path) -> None:
    sets, files = sets_of(kept), [file("a", HELD_LEAST), file("b", 3 * HELD_LEAST)]
    assert await sets.held() == {}
    keep(kept, *files)
    assert await sets.made(MANIFEST, files) == 4 * HELD_LEAST
    assert sets.made_some.is_set()
    assert await sets.held() == {MANIFEST: 4 * HELD_LEAST}
    (kept / files[1].digest).unlink()
    assert await sets.held() == {MANIFEST: HELD_LEAST}
    assert await sets_of(kept).held() == {MANIFEST: HELD_LEAST}, "an agent that starts anew knows as much"
    (kept / files[0].digest).unlink()
    assert await sets.held() == {MANIFEST: 0}
    assert await sets.made(MANIFEST, files) == 0, "a cache that is too small for it keeps nothing"


async def test_what_is_small_is_not_looked_for(kept: Path) -> None:
    sets = sets_of(kept)
    assert await sets.made(MANIFEST, [file("a", HELD_LEAST - 1)]) == 0
    assert not sets.made_some.is_set()
    assert not names(kept.parent / "sets")


async def test_the_largest_files_stand_for_all(kept: Path) -> None:
    sets, large = sets_of(kept), [file(f"l{at}", PIECE) for at in range(FILES_MOST)]
    keep(kept, *large)
    await sets.made(MANIFEST, [*large, *(file(f"s{at}", 1024) for at in range(FILES_MOST))])
    assert await sets.held() == {MANIFEST: FILES_MOST * (PIECE + 1024)}
    for one in large[: FILES_MOST // 2]:
        (kept / one.digest).unlink()
    assert await sets.held() == {MANIFEST: FILES_MOST * (PIECE + 1024) // 2}


async def test_sets_that_were_made_long_ago_are_forgotten(kept: Path) -> None:
    sets, one = sets_of(kept), file("a", HELD_LEAST)
    keep(kept, one)
    for at in [*range(HELD_MOST), 0, HELD_MOST]:
        await sets.made(f"{at:064x}", [one])
        os.utime(kept.parent / "sets" / f"{at:064x}", (at or 999, at or 999))
    wanted = {f"{at:064x}" for at in [0, *range(2, HELD_MOST + 1)]}
    (kept.parent / "sets" / ".broken-off").write_bytes(b"\x92")
    assert (await sets.held()).keys() == wanted == (await sets_of(kept).held()).keys()
    assert names(kept.parent / "sets") == wanted


@pytest.mark.parametrize("left", [b"", b"\x92\xcd", b"\x92\x01\x01", b"\x00" * 64])
async def test_what_a_power_loss_left_of_one_is_forgotten(kept: Path, left: bytes) -> None:
    sets, one = sets_of(kept), file("a", HELD_LEAST)
    keep(kept, one)
    await sets.made(MANIFEST, [one])
    (kept.parent / "sets" / ("cd" * 32)).write_bytes(left)
    assert await sets_of(kept).held() == {MANIFEST: HELD_LEAST}
    assert names(kept.parent / "sets") == {MANIFEST}


async def test_a_full_disk_spoils_nothing(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    sets, one = sets_of(kept), file("a", HELD_LEAST)
    keep(kept, one)
    monkeypatch.setattr(Path, "write_bytes", full)
    assert await sets.made(MANIFEST, [one]) == HELD_LEAST
    assert await sets.held() == {MANIFEST: HELD_LEAST}


def test_it_is_said_once_and_again_after_a_while() -> None:
    told = Holding()
    assert told.to_say(0.0) is None, "who holds nothing has nothing to say"
    told.found = {"a": HELD_LEAST}
    assert told.to_say(1.0) == {"a": HELD_LEAST}
    assert told.to_say(AGAIN_S) is None
    assert told.to_say(AGAIN_S + 1) == {"a": HELD_LEAST}
    told.found = {}
    assert told.to_say(AGAIN_S + 2) == {}
    assert told.to_say(AGAIN_S + 3) is None
    assert told.to_say(2 * AGAIN_S + 2) == {}, "also that there is nothing any more"
    told.found = {"a": HELD_LEAST}
    assert told.to_say(2 * AGAIN_S + 3) == {"a": HELD_LEAST}
    told.welcomed(2 * AGAIN_S + 4)
    assert told.to_say(2 * AGAIN_S + 5) == {"a": HELD_LEAST}, "a new session knows nothing"


async def test_images_and_sets_are_looked_at_and_soon_after_a_set_was_made(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "SOON_S", 0.0)
    looks = asyncio.Queue[None]()

    async def images() -> Holdings:
        looks.put_nowait(None)
        return {"docker.io/library/x:1": HELD_LEAST, "docker.io/library/small:1": 5}

    told, sets, one = Holding(), sets_of(kept), file("a", HELD_LEAST)
    looking = asyncio.create_task(told.keep_looking(sets, images))
    async with asyncio.timeout(10):
        await looks.get()
        while not told.found:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert told.found == {"docker.io/library/x:1": HELD_LEAST}
        keep(kept, one)
        await sets.made(MANIFEST, [one])
        await looks.get()
        while MANIFEST not in told.found:  # noqa: ASYNC110
            await asyncio.sleep(0)
    looking.cancel()


# ---------------------------------------------------------------- what stays of what an attempt left


async def test_a_file_that_is_read_stays(kept: Path, tmp_path: Path) -> None:
    data = os.urandom(100_000)
    (tmp_path / "made").write_bytes(data)
    made = File("made", len(data), hashlib.sha256(data).hexdigest(), (), executable=True)

    async def fetch(task: int, digest: str) -> bytes:
        raise AssertionError("it is here")

    cache = FileCache(kept, fetch, 10 * len(data))
    descriptor = os.open(tmp_path / "made", os.O_RDONLY)
    try:
        await cache.add(made, descriptor)
        await cache.add(made, descriptor)
    finally:
        os.close(descriptor)
    assert names(kept) == {made.digest}
    await cache.put(1, made, tmp_path / "given")
    assert (tmp_path / "given").read_bytes() == data
    assert (tmp_path / "given").stat().st_mode & 0o111


async def test_what_is_too_large_or_cannot_be_read_does_not(kept: Path, tmp_path: Path) -> None:
    async def fetch(task: int, digest: str) -> bytes:
        raise AssertionError

    made = File("made", 1000, MANIFEST, ())
    await FileCache(kept, fetch, 1999).add(made, -1)
    await FileCache(kept, fetch, 2000).add(made, -1)
    assert not names(kept)
