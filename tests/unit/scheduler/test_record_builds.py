"""A record that another build of the same version wrote: decided again where that goes, and said precisely where it does not."""

import asyncio
import zlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from jarvis.bus.buses.memory import MemoryBus
from jarvis.core.task import NewTask, TaskSpec
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.replay.recording import Deed, Opening, Record, RecordedScheduler, build
from jarvis.scheduler.replay.replaying import Diverged, OtherCode, check
from jarvis.state.store import Submission
from jarvis.state.stores.memory import MemoryStore
from jarvis.utils.clock import Clock
from jarvis.utils.record_file import LENGTH, RecordFiles, frames, segments


async def record_in(directory: Path) -> None:
    """A lead and a turn that takes in a task."""
    store, files = MemoryStore(lambda: 1000.0), RecordFiles(directory, 1 << 20)
    clock = Clock(lambda: 1000.0, lambda: 1000.0)
    scheduler = RecordedScheduler(store, MemoryBus(), clock, Policy, "s1", record=Record(files))
    await scheduler.start()
    await store.task_insert_many([Submission([NewTask(uuid="u", project="p", user="u", spec=TaskSpec(name="t"))])])
    await scheduler.run_once([])
    await asyncio.to_thread(files.end)


def rewrite(directory: Path, opening: Callable[[Opening], None], deed: Callable[[Deed], None] = lambda _: None) -> None:
    """As if it had been recorded so."""
    (path,) = segments(directory)
    first, *others = frames(path)
    changed = [msgspec.msgpack.decode(first, type=Opening)]
    opening(changed[0])
    deeds = [msgspec.msgpack.decode(frame, type=Deed) for frame in others]
    for each in deeds:
        deed(each)
    content = [msgspec.msgpack.encode(item) for item in (*changed, *deeds)]
    path.write_bytes(zlib.compress(b"".join(LENGTH.pack(len(frame)) + frame for frame in content)))


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    asyncio.run(record_in(tmp_path))
    return tmp_path


def of_another_build(opening: Opening) -> None:
    opening.build = "0123456789ab"


def with_memory_of_old(opening: Opening) -> None:
    """It names a class that is here no more."""
    of_another_build(opening)
    opening.memory = opening.memory.replace(b"TaskQueue", b"TaskLines")


def otherwise(deed: Deed) -> None:
    deed.commits = [b"another" for _ in deed.commits]


def test_one_that_is_decided_the_same_is_no_matter(recorded: Path) -> None:
    rewrite(recorded, of_another_build)
    (replay,) = check(recorded)
    assert replay.commits == 1


def test_one_whose_memory_is_made_otherwise(recorded: Path) -> None:
    rewrite(recorded, with_memory_of_old)
    with pytest.raises(OtherCode, match=f"another build of version .*, 0123456789ab; this one is {build()}.*TaskLines"):
        check(recorded)


def test_one_that_decides_otherwise(recorded: Path) -> None:
    rewrite(recorded, of_another_build, otherwise)
    with pytest.raises(OtherCode, match=r"0123456789ab.*commit 1 is not the one that was recorded"):
        check(recorded)


def test_one_from_before_builds_were_told_apart(recorded: Path) -> None:
    rewrite(recorded, lambda opening: setattr(opening, "build", ""), otherwise)
    with pytest.raises(OtherCode, match="an earlier one; this one is"):
        check(recorded)


def test_of_this_build_it_is_a_defect(recorded: Path) -> None:
    rewrite(recorded, lambda opening: None, otherwise)
    with pytest.raises(Diverged):
        check(recorded)


def test_one_of_another_version(recorded: Path) -> None:
    rewrite(recorded, lambda opening: setattr(opening, "software", "0.0"))
    with pytest.raises(OtherCode, match=r"recorded by version 0\.0"):
        check(recorded)
