"""What has ended goes by age and by size, with its bodies, and the space comes back; what lives or is named stays."""

import asyncio
import hashlib
import threading
import time
from pathlib import Path

import pytest
from tests.contract.harness import attempt, commit, end, insert, key, new

from jarvis.bus.buses.memory import MemoryBus
from jarvis.core.attempt import Output
from jarvis.core.errors import InvalidValue, NotFound
from jarvis.core.ids import SOLO, ElementKey
from jarvis.core.manifest import File, Manifest, encode
from jarvis.core.schedule import Rule, Schedule
from jarvis.core.states import State
from jarvis.core.task import Dependency, FunctionCall, TaskSpec
from jarvis.core.workflow import Block, NewWorkflow, Step, StepDetail, StepSpec, WorkflowSpec
from jarvis.state.blob_stores.directory import DirectoryBlobStore
from jarvis.state.retention import YOUNG_S, Keep, Retention
from jarvis.state.state_manager import StateManager
from jarvis.state.store import Submission
from jarvis.state.stores.sqlite import SqliteStore
from jarvis.state.stores.sqlite.submissions import TAIL_TASKS

DAY = 86400.0
FOREVER = 10_000 * DAY


@pytest.fixture
def store(sqlite: SqliteStore) -> SqliteStore:
    return sqlite


@pytest.fixture
def blobs(tmp_path: Path) -> DirectoryBlobStore:
    return DirectoryBlobStore(tmp_path / "blobs")


async def ended(store: SqliteStore, blobs: DirectoryBlobStore, count: int, size: int) -> list[int]:
    """Tasks that have ended now, each with a body of its own of about ``size`` bytes."""
    lead = await store.leadership_acquire("a")
    ids = await insert(store, *(new(env={"pad": f"{at:01000}"}) for at in range(count)))
    for ident in ids:
        digest = await blobs.put("p", f"{ident}".encode() * (size // len(str(ident))))
        made = attempt(ident)
        made.stdout = Output(size=size, chunks=((0, digest),))
        await commit(store, lead, attempts_new={(ident, SOLO, 1): made})
        await end(store, lead, ident, time.time())
    return ids


async def test_by_age(store: SqliteStore, blobs: DirectoryBlobStore) -> None:
    ids = await ended(store, blobs, 20, 10_000)
    (live,) = await insert(store, new(script=await blobs.put("p", b"#!/bin/sh\n")))
    before = await blobs.total_bytes()
    retention = Retention(store, blobs, Keep(DAY, DAY, 1 << 40))
    now = await store.now()
    assert await retention.run_once(now) == 0
    assert await retention.run_once(now + DAY + YOUNG_S + 60) == 20
    assert [t.id for t in await store.task_get_many([*ids, live])] == [live]
    assert await blobs.total_bytes() == len(b"#!/bin/sh\n") < before


async def test_by_size_the_files_become_smaller(store: SqliteStore, blobs: DirectoryBlobStore) -> None:
    await ended(store, blobs, 600, 20_000)
    full = (await store.counts()).database_bytes
    retention = Retention(store, blobs, Keep(FOREVER, FOREVER, 4_000_000))
    removed = await retention.run_once(await store.now() + YOUNG_S + 60)
    assert removed > 0
    assert (await store.counts()).database_bytes < full / 2
    assert (await store.counts()).database_bytes + await blobs.total_bytes() <= 4_000_000


async def test_by_size_what_lives_stays_though_it_is_too_much(store: SqliteStore, blobs: DirectoryBlobStore) -> None:
    ids = await insert(store, *(new(env={"pad": "x" * 1000}) for _ in range(100)))
    script = await blobs.put("p", b"x" * 100_000)
    await insert(store, new(script=script))
    assert await Retention(store, blobs, Keep(DAY, DAY, 1)).run_once(await store.now() + 30 * DAY) == 0
    assert len(await store.task_get_many(ids)) == 100
    assert await blobs.size("p", script) == 100_000


async def test_by_size_nothing_goes_in_vain(store: SqliteStore, blobs: DirectoryBlobStore) -> None:
    """Bodies of this hour are kept, so removing the tasks that name them would make no room: they stay until it does."""
    ids = await ended(store, blobs, 30, 200_000)
    retention = Retention(store, blobs, Keep(FOREVER, FOREVER, 4_000_000))
    now = await store.now()
    assert await retention.run_once(now + 1) == 0
    assert len(await store.task_get_many(ids)) == 30
    assert await retention.run_once(now + YOUNG_S + 60) == 30
    assert await blobs.total_bytes() == 0


async def test_by_size_of_the_database_alone_the_young_go_too(store: SqliteStore, blobs: DirectoryBlobStore) -> None:
    await ended(store, blobs, 600, 10)
    full = store.path.stat().st_size + store.path.with_name("jarvis.db-wal").stat().st_size
    assert await Retention(store, blobs, Keep(FOREVER, FOREVER, 600_000)).run_once(await store.now() + 1) >= 500
    assert (await store.counts()).database_bytes < 600_000
    assert store.path.stat().st_size < full / 4, "the file itself became smaller"


async def test_nobody_waits_for_the_writer_while_it_is_seen_what_waits(store: SqliteStore) -> None:
    """Each submission does: what the writer does itself must not grow with what is stored, be anything due or not."""
    lead = await store.leadership_acquire("a")
    old, older, awaited = await insert(store, new(), new(), new())
    for ident in (old, older, awaited):
        await end(store, lead, ident, 1.0)
    await insert(store, *(new(hold=True) for _ in range(3000)), new(after=(Dependency("afterok", awaited),)))
    await insert(store, *(new(hold=True, cwd=f"/{n:0100}") for n in range(300) for _ in range(TAIL_TASKS)))
    steps = [0]

    def step() -> None:
        steps[0] += 10

    store._connection.set_progress_handler(step, 10)
    for before, gone in ((1.0, []), (2.0, [old]), (2.0, [older]), (2.0, [])):
        assert await store.task_delete_ended(before, 1) == gone
    assert 0 < steps[0] < 3000


async def test_what_comes_while_it_is_seen_what_waits_is_asked_as_well(store: SqliteStore) -> None:
    lead = await store.leadership_acquire("a")
    old, awaited = await insert(store, new(), new())
    for ident in (old, awaited):
        await end(store, lead, ident, 1.0)
    begun, go_on = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        begun.set()
        go_on.wait(30)

    held = asyncio.create_task(store._writer.do(hold))
    assert await asyncio.to_thread(begun.wait, 10)
    waits = asyncio.create_task(insert(store, new(after=(Dependency("afterok", awaited),))))
    removal = asyncio.create_task(store.task_delete_ended(2.0, 10))
    try:
        async with asyncio.timeout(10):
            while store._writer._queue.qsize() < 2:  # noqa: ASYNC110 - the insertion and, after a look at what waits, the removal
                await asyncio.sleep(0.001)
    finally:
        go_on.set()
    assert await removal == [old]
    assert len(await store.task_get_many(await waits)) == 1
    await held


async def test_keys_of_long_ago_go_some_at_a_time(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jarvis.state.stores.sqlite.store.KEYS_AT_ONCE", 2)
    await store.task_insert_many([Submission([new()], key(f"k{number}")) for number in range(5)])
    store._clock = lambda: time.time() + 8 * DAY
    for left in (3, 1, 0):
        await store.task_delete_ended(0.0, 1)
        known = [await store.idempotency_get(key(f"k{number}")) for number in range(5)]
        assert sum(found is not None for found in known) == left


async def test_it_runs_by_itself(store: SqliteStore, blobs: DirectoryBlobStore) -> None:
    ids = await ended(store, blobs, 3, 10)
    running = asyncio.create_task(Retention(store, blobs, Keep(0.0, FOREVER, 1 << 40)).run())
    async with asyncio.timeout(30):
        while await store.task_get_many(ids):  # noqa: ASYNC110 - the files are the judge
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_body_that_a_new_task_names_is_young_again(store: SqliteStore, blobs: DirectoryBlobStore) -> None:
    script = await blobs.put("p", b"#!/bin/sh\n")
    manager = StateManager(store, blobs, MemoryBus())
    await manager.submit([Submission([new(script=script)])])
    assert await blobs.sweep(time.time() - 1, {}) == 0
    missing = "0" * 64
    good, bad = await manager.submit([Submission([new(script=script)]), Submission([new(script=missing)])])
    assert isinstance(bad, InvalidValue)
    assert bad.field == "script"
    assert not isinstance(good, Exception), "a neighbour is unharmed"
    with pytest.raises(NotFound):
        await blobs.get("p", missing)


async def test_files_of_tasks_live_and_go_with_them(store: SqliteStore, blobs: DirectoryBlobStore) -> None:
    """Pieces are kept by what lists them: pushed ones by a task that lives, artifacts by one that has not gone yet."""
    lead = await store.leadership_acquire("a")
    listed = {}
    for name in ("pushed", "left", "both"):
        piece = await blobs.put("p", name.encode())
        listed[name] = await blobs.put("p", encode(Manifest((File(name, len(name), piece, (piece,)),))))
    (ended_one,) = await insert(store, new(push=(listed["both"],)))
    made = attempt(ended_one, artifacts=listed["left"])
    await commit(store, lead, attempts_new={(ended_one, SOLO, 1): made})
    assert (await store.attempt_list(ElementKey(ended_one, SOLO)))[0].artifacts == listed["left"]
    await end(store, lead, ended_one, time.time())
    await insert(store, new(push=(listed["pushed"], listed["both"])))
    retention, now = Retention(store, blobs, Keep(DAY, DAY, 1 << 40)), await store.now()
    assert await retention.sweep(now + YOUNG_S + 60) == 0, "all is referred to"
    assert await retention.run_once(now + DAY + YOUNG_S + 60) == 1
    for name in ("pushed", "both"):
        assert await blobs.get("p", hashlib.sha256(name.encode()).hexdigest()) == name.encode()
    for gone in (listed["left"], hashlib.sha256(b"left").hexdigest()):
        with pytest.raises(NotFound):
            await blobs.get("p", gone)


async def test_schedules_keep_what_their_runs_will_need(store: SqliteStore, blobs: DirectoryBlobStore) -> None:
    script, code = await blobs.put("p", b"#!/bin/sh"), await blobs.put("p", b"code")
    piece = await blobs.put("p", b"piece")
    pushed = await blobs.put("p", encode(Manifest((File("x", 5, piece, (piece,)),))))
    step = StepSpec(id="a", task=TaskSpec(name="f", function=FunctionCall(code, "3.12")))
    manager = StateManager(store, blobs, MemoryBus())
    rule = Rule(every=3600.0)
    common = {"id": 0, "project": "p", "user": "ann", "rule": rule, "created_at": 1.0}
    await manager.schedule(Schedule(name="t", task=TaskSpec(name="t", script=script, push=(pushed,)), **common))  # type: ignore[arg-type]
    await manager.schedule(Schedule(name="w", workflow=WorkflowSpec(name="w", block=Block((step,))), **common))  # type: ignore[arg-type]
    assert await Retention(store, blobs, Keep(DAY, DAY, 1 << 40)).sweep(await store.now() + YOUNG_S + 60) == 0
    with pytest.raises(InvalidValue, match="script"):
        await manager.schedule(Schedule(name="x", task=TaskSpec(name="t", script="0" * 64), **common))  # type: ignore[arg-type]
    assert len(await store.schedule_list()) == 2


async def test_a_damaged_manifest_keeps_nothing_and_stops_nothing(
    store: SqliteStore, blobs: DirectoryBlobStore
) -> None:
    piece = await blobs.put("p", b"piece")
    digest = await blobs.put("p", encode(Manifest((File("x", 5, piece, (piece,)),))))
    await insert(store, new(push=(digest, "0" * 64)))
    (path,) = (path for path in (blobs._root).rglob(digest[2:]))
    path.write_bytes(b"damaged")
    assert await Retention(store, blobs, Keep(DAY, DAY, 1 << 40)).sweep(await store.now() + YOUNG_S + 60) == 5


async def test_pieces_that_a_new_task_names_are_young_again(store: SqliteStore, blobs: DirectoryBlobStore) -> None:
    piece = await blobs.put("p", b"piece")
    digest = await blobs.put("p", encode(Manifest((File("x", 5, piece, (piece,)),))))
    manager = StateManager(store, blobs, MemoryBus())
    missing = "0" * 64
    assert await manager.missing("p", [piece, missing, digest]) == [missing]
    assert await blobs.sweep(time.time() - 1, {}) == 0
    other = await blobs.put("p", encode(Manifest((File("x", 5, missing, (missing,)),))))
    good, bad = await manager.submit([Submission([new(push=(digest,))]), Submission([new(push=(digest, other))])])
    assert not isinstance(good, Exception)
    assert isinstance(bad, InvalidValue)
    assert bad.field == "push.1"


async def test_workflows_keep_the_bodies_of_their_steps_until_they_go_themselves(
    store: SqliteStore, blobs: DirectoryBlobStore
) -> None:
    lead = await store.leadership_acquire("a")
    code = await blobs.put("p", b"a function")
    step = StepSpec(id="a", task=TaskSpec(name="f", function=FunctionCall(code, "3.12")))
    new_one = NewWorkflow(uuid="u", project="p", user="ann", spec=WorkflowSpec(name="w", block=Block((step,))))
    ident = (await store.workflow_insert(new_one)).ids[0]
    one, two = await blobs.put("p", b"a result"), await blobs.put("p", b"of an element")
    details = (StepDetail(result_digest=one), StepDetail(parts=(b"", b"x"), part_digests=(two, "")))
    rows = {
        (ident, path): Step(workflow=ident, path=path, state=State.SUCCEEDED, detail=detail)
        for path, detail in zip("bc", details, strict=True)
    }
    await commit(store, lead, steps=rows)
    retention, now = Retention(store, blobs, Keep(DAY, DAY, 1 << 40)), await store.now()
    await ended(store, blobs, 1, 10)
    await retention.run_once(now + DAY + YOUNG_S + 60)
    assert await blobs.get("p", code) == b"a function"
    assert [await blobs.get("p", digest) for digest in (one, two)] == [b"a result", b"of an element"]
    (workflow,) = await store.workflow_get_many([ident])
    lead = await store.leadership_acquire("a")
    workflow.state, workflow.ended_at = State.FAILED, now
    await commit(store, lead, workflows={ident: workflow})
    await ended(store, blobs, 1, 10)
    await retention.run_once(now + 3 * DAY)
    assert await store.workflow_get_many([ident]) == []
    for digest in (code, one, two):
        with pytest.raises(NotFound):
            await blobs.get("p", digest)
