"""One suite for every store: what one adapter promises, all do."""

import msgspec
import pytest
from tests.contract.harness import Ticking, attempt, commit, element, end, insert, key, new

from jarvis.core.attempt import Placement, Usage
from jarvis.core.booking import Booking
from jarvis.core.changes import Changes
from jarvis.core.command import NewCommand
from jarvis.core.errors import CursorTooOld, IdempotencyConflict, StaleEpoch
from jarvis.core.event import Event
from jarvis.core.ids import SOLO, ElementKey
from jarvis.core.node import Node
from jarvis.core.quota import Quota, Used
from jarvis.core.states import Cause, State
from jarvis.core.task import ArraySpec, Dependency, NewTask, Task, TaskSpec
from jarvis.state.coordination import Leadership, Token
from jarvis.state.store import Accepted, Outcome, Store, Submission, TaskFilter


async def test_submissions_get_growing_ids_and_come_back_as_given(store: Store) -> None:
    first, second = await insert(store, new("a", env={"K": "ü"}), new("b"))
    assert second > first
    tasks = await store.task_get_many([second, first, 999_999_999])
    assert [t.spec.name for t in tasks] == ["b", "a"]
    assert tasks[1].spec.env == {"K": "ü"}
    assert tasks[1].state is State.SUBMITTED
    assert [t.id for t in await store.task_list_submitted(10)] == [first, second]


async def test_an_idempotency_key_answers_the_first_ids_again(store: Store) -> None:
    answers = await store.task_insert_many(
        [Submission([new()], key()), Submission([new()], key()), Submission([new()])]
    )
    assert isinstance(answers[0], Accepted)
    assert isinstance(answers[1], Accepted)
    assert isinstance(answers[2], Accepted)
    assert list(answers[1].ids) == list(answers[0].ids)
    assert answers[1].replayed
    assert not answers[0].replayed
    assert list(answers[2].ids) != list(answers[0].ids)
    again = await store.idempotency_get(key())
    assert again is not None
    assert list(again.ids) == list(answers[0].ids)
    assert await store.idempotency_get(key("other")) is None


async def test_another_body_under_the_same_key_is_refused_and_neighbours_are_unharmed(store: Store) -> None:
    await store.task_insert_many([Submission([new()], key())])
    answers = await store.task_insert_many([Submission([new()], key(body="x")), Submission([new("fine")])])
    assert isinstance(answers[0], IdempotencyConflict)
    assert isinstance(answers[1], Accepted)
    assert len(await store.task_list(TaskFilter(), None, 10)) == 2
    with pytest.raises(IdempotencyConflict):
        await store.idempotency_get(key(body="x"))


async def test_only_the_newest_leader_may_write(store: Store) -> None:
    old = await store.leadership_acquire("a")
    fresh = await store.leadership_acquire("b")
    assert fresh.epoch == old.epoch + 1
    (ident,) = await insert(store, new())
    with pytest.raises(StaleEpoch):
        await commit(store, old, queued=[(ident, ident)])
    assert (await store.task_get_many([ident]))[0].state is State.SUBMITTED
    await commit(store, fresh, queued=[(ident, ident)])
    assert (await store.task_get_many([ident]))[0].state is State.QUEUED


async def test_an_attempt_is_written_only_under_its_token(store: Store) -> None:
    lead = await store.leadership_acquire("a")
    ident, other = await insert(store, new(), new())
    await commit(
        store, lead, attempts_new={(ident, SOLO, 1): attempt(ident)}, elements={ElementKey(ident): element(ident)}
    )
    forged = attempt(ident, token=78)
    forged.state = State.SUCCEEDED
    with pytest.raises(StaleEpoch):
        await commit(store, lead, attempts={(ident, SOLO, 1): forged}, queued=[(other, other)])
    assert (await store.attempt_list(ElementKey(ident)))[0].state is State.ASSIGNED
    assert (await store.task_get_many([other]))[0].state is State.SUBMITTED, "the whole turn is refused"
    current = await store.attempt_list_current([ident])
    assert [(a.number, a.placements) for a in current] == [(1, (Placement(0, 1, {"cpu": 1000}),))]


@pytest.mark.parametrize("wrong", [0, 150, 329, None])
async def test_many_attempts_are_written_only_if_each_is_under_its_token(store: Store, wrong: int | None) -> None:
    lead = await store.leadership_acquire("a")
    (ident,) = await insert(store, new())
    indexes = [7 * i for i in range(330)]
    made = {(ident, i, 1): attempt(ident, number=n, index=i, token=70 + n % 2) for n, i in enumerate(indexes)}
    elements = {ElementKey(ident, i): element(ident, index=i, token=70 + n % 2) for n, i in enumerate(indexes)}
    await commit(store, lead, attempts_new=made, elements=elements)
    ended = {
        key: msgspec.structs.replace(a, state=State.SUCCEEDED, result=b"%d" % n, token=a.token + (n == wrong))
        for n, (key, a) in enumerate(made.items())
    }
    if wrong is None:
        await commit(store, lead, attempts=ended)
    else:
        with pytest.raises(StaleEpoch):
            await commit(store, lead, attempts=ended)
    rows = [row for i in indexes for row in await store.attempt_list(ElementKey(ident, i))]
    assert rows == list((made if wrong is not None else ended).values())
    assert await store.element_list(ident, frozenset(), -1, 1000) == list(elements.values())


async def test_live_pages_and_elements(store: Store) -> None:
    lead = await store.leadership_acquire("a")
    ids = await insert(store, *[new() for _ in range(5)])
    await end(store, lead, ids[1], 5.0)
    assert [t.id for t in await store.task_list_live(ids[0], 2)] == [ids[2], ids[3]]
    rows = {
        ElementKey(ids[0], i): element(ids[0], s, i) for i, s in enumerate([State.RUNNING, State.FAILED, State.BACKOFF])
    }
    await commit(store, lead, elements=rows)
    assert [e.index for e in await store.element_list_live([ids[0]])] == [0, 2]
    assert [e.index for e in await store.element_list(ids[0], frozenset({State.FAILED, State.BACKOFF}), 0, 9)] == [1, 2]
    assert [e.state for e in await store.element_get_many([ElementKey(ids[0], 2), ElementKey(ids[0], 9)])] == [
        State.BACKOFF
    ]


async def test_filters_and_paging(store: Store) -> None:
    lead = await store.leadership_acquire("a")
    ids = await insert(
        store,
        new("ab", queue="gpu"),
        new("ac"),
        new("b"),
        NewTask(uuid="", project="q", user="bob", spec=TaskSpec(name="ab")),
    )
    await end(store, lead, ids[2], 9.0, State.FAILED)

    async def found(limit: int = 10, before: int | None = None, **where: object) -> list[int]:
        return [t.id for t in await store.task_list(TaskFilter(**where), before, limit)]  # type: ignore[arg-type]

    assert await found() == ids[::-1]
    assert await found(limit=2, before=ids[3]) == [ids[2], ids[1]]
    assert await found(states=frozenset({State.FAILED})) == [ids[2]]
    assert await found(states=frozenset({State.SUBMITTED})) == [ids[3], ids[1], ids[0]]
    assert await found(states=frozenset({State.SUBMITTED}), project="q") == [ids[3]]
    assert await found(projects=frozenset({"p"}), name="ab") == [ids[0]]
    assert await found(name="a*") == [ids[3], ids[1], ids[0]]
    assert await found(name="a%") == []
    assert await found(queue="gpu", user="ann") == [ids[0]]
    assert await found(ended_after=8.0) == [ids[2]]


async def test_commands_stay_open_until_acted_on(store: Store) -> None:
    lead = await store.leadership_acquire("a")
    one, two = await store.command_insert_many(
        [
            NewCommand(verb="cancel", user="ann", task=1),
            NewCommand(verb="node_drain", user="x", node=2, args={"reason": "r"}),
        ]
    )
    assert [c.id for c in await store.command_list_open(10)] == [one.id, two.id]
    await commit(store, lead, commands_done={one.id: ""})
    (left,) = await store.command_list_open(10)
    assert left == two


async def test_reports_are_kept_until_taken(store: Store) -> None:
    lead = await store.leadership_acquire("a")
    ids = await store.report_insert_many([(1, b"x"), (2, b"y")])
    assert [(r.id, r.body) for r in await store.report_list_open(9)] == list(zip(ids, [b"x", b"y"], strict=True))
    await commit(store, lead, reports_done=[ids[0]])
    assert [r.id for r in await store.report_list_open(9)] == [ids[1]]


async def test_nodes_and_their_ids(store: Store) -> None:
    lead = await store.leadership_acquire("a")
    assert await store.node_next_id() == 1
    assert await store.node_list() == []
    await commit(store, lead, nodes={1: Node(id=1, name="n1", resources={"cpu": 4000})})
    await store.node_seen_many([(1, 50.0, {"load1": 0.5}), (7, 1.0, {})])
    (node,) = await store.node_list()
    assert (node.name, node.seen_at, node.health) == ("n1", 50.0, {"load1": 0.5})
    await commit(store, lead, nodes_removed=[1])
    assert await store.node_list() == [] and await store.node_next_id() == 2, "an id is never reused"


async def test_bookings(store: Store) -> None:
    lead = await store.leadership_acquire("a", 0)
    assert await store.booking_list() == []
    whole = Booking(id=7, nodes=("n1", "n2"), begin=10.0, end=20.0, reason="disks", by="root")
    kept = Booking(id=3, nodes=("n1",), begin=5.0, end=20.0, project="A", user="ann")
    await commit(store, lead, bookings={7: whole, 3: kept})
    assert await store.booking_list() == [kept, whole]
    begun = msgspec.structs.replace(whole, begun=True)
    await commit(store, lead, bookings={7: begun, 3: None, 4: None})
    assert await store.booking_list() == [begun]


async def test_quotas_and_what_was_used(store: Store) -> None:
    lead = await store.leadership_acquire("a", 0)
    assert (await store.quota_list(), await store.used_list()) == ([], [])
    whole = Quota(project="A", resources={"cpu": 4000}, weight=2.0)
    one = Quota(project="A", user="ann", running=3, tasks=10)
    used = Used(project="A", user="ann", at=5.0, recent={"cpu": 0.5}, total={"cpu": 1.5}, elements=7)
    await commit(store, lead, quotas={("A", "ann"): one, ("A", ""): whole}, used={("A", "ann"): used})
    assert await store.quota_list() == [whole, one]
    assert await store.used_list() == [used]
    more = Used(project="A", user="ann", at=6.0, total={"cpu": 2.5}, elements=8)
    await commit(store, lead, quotas={("A", ""): None, ("B", ""): None}, used={("A", "ann"): more})
    assert await store.quota_list() == [one]
    assert await store.used_list() == [more]


async def test_events_by_number_and_by_task(store: Store, clock: Ticking) -> None:
    lead = await store.leadership_acquire("a")
    assert await store.event_last_seq() == 0
    await commit(store, lead, events=[Event(1, 10.0, "queued", 5), Event(2, 10.0, "queued", 9)])
    await commit(store, lead, events=[Event(3, 20.0, "running", 5, detail={"x": 1.5})])
    assert [e.seq for e in await store.event_list(0, 10)] == [1, 2, 3]
    assert [e.seq for e in await store.event_list(1, 1)] == [2]
    assert [(e.seq, e.detail) for e in await store.event_list(0, 10, task=5)] == [(1, {}), (3, {"x": 1.5})]
    assert await store.event_last_seq() == 3
    await store.event_delete_before(15.0, 100)
    assert await store.event_oldest_seq() == 2
    with pytest.raises(CursorTooOld):
        await store.event_list(0, 10)
    assert [e.seq for e in await store.event_list(2, 10)] == [3]


async def test_retention_keeps_what_live_tasks_refer_to(store: Store) -> None:
    lead = await store.leadership_acquire("a")
    old, needed, live = await insert(store, new(), new(), new())
    await insert(store, new(after=(Dependency("afterok", needed),)))
    for ident in (old, needed):
        await commit(store, lead, attempts_new={(ident, SOLO, 1): attempt(ident)})
        await end(store, lead, ident, 100.0)
    assert await store.task_delete_ended(100.0, 10) == []
    assert await store.task_delete_ended(101.0, 10) == [old]
    assert await store.attempt_list(ElementKey(old)) == []
    assert [t.id for t in await store.task_get_many([old, needed, live])] == [needed, live]
    await store.space_return()


async def test_counts_tokens_and_check(store: Store) -> None:
    await insert(store, new(), new())
    assert (await store.counts()).tasks_by_state == {State.SUBMITTED: 2}
    await store.token_put(Token("hash", "ann", "user", ("p",), "laptop"))
    assert await store.token_list() == [Token("hash", "ann", "user", ("p",), "laptop")]
    assert await store.check() >= 0


async def test_a_new_life_jumps_the_ids(store: Store) -> None:
    (before,) = await insert(store, new())
    first = (await store.leadership_acquire("a")).incarnation
    assert await store.incarnation_bump("restore") > first
    assert (await insert(store, new()))[0] >= before + 1_000_000


async def test_what_is_read_cannot_change_what_is_stored(store: Store) -> None:
    (ident,) = await insert(store, new())
    (task,) = await store.task_get_many([ident])
    task.state = State.FAILED
    assert (await store.task_get_many([ident]))[0].state is State.SUBMITTED


async def test_an_array_s_counts_survive(store: Store) -> None:
    lead = await store.leadership_acquire("a")
    (ident,) = await insert(store, new())
    (task,) = await store.task_get_many([ident])
    changed: Task = task
    changed.counts, changed.next_position, changed.base = {State.RUNNING: 2, State.QUEUED: 8}, 2, State.QUEUED
    await commit(store, lead, tasks={ident: changed})
    (stored,) = await store.task_get_many([ident])
    assert stored.counts == {State.RUNNING: 2, State.QUEUED: 8}
    assert stored.next_position == 2


async def test_the_last_attempts_of_what_has_ended(store: Store, lead: Leadership) -> None:
    retried, live, array = await insert(store, new(), new(), new(array=ArraySpec(((0, 20, 1),))))
    tries = [attempt(retried, nth=n, number=n, ended_at=5.0 + n, usage=Usage(1.5, max_rss=9)) for n in (1, 2)]
    tries += [attempt(live, number=3, ended_at=1.0), attempt(live, nth=2, number=4)]
    tries += [attempt(array, index=index, number=10 + index, ended_at=7.0) for index in (0, 7, 8)]
    await store.leader_commit(lead, Changes(attempts_new={(a.task, a.index, a.attempt): a for a in tries}))
    assert await store.attempt_list_ended([array, live, retried, 999]) == [tries[1], tries[4], tries[5]]
    assert await store.attempt_list_ended([]) == []


async def test_outcomes_are_the_last_words_of_what_has_ended(store: Store, lead: Leadership) -> None:
    done, never, live, array = await insert(store, new(), new(), new(), new(array=ArraySpec(((0, 1, 1),))))
    tries = {
        (done, SOLO, n): attempt(done, nth=n, cause=cause, message=f"m{n}", result=b"r", result_digest="d")
        for n, cause in ((1, Cause.TIMEOUT), (2, Cause.EXIT))
    }
    tries[array, 0, 1] = attempt(array, index=0, message="an element's")
    await store.leader_commit(lead, Changes(attempts_new=tries))
    for ident in (done, never, array):
        await end(store, lead, ident, 100.0)
    assert await store.outcome_list([array, never, live, done, done, 999]) == [
        Outcome(done, "p", State.SUCCEEDED, "exit", "m2", b"r", "d"),
        Outcome(never, "p", State.SUCCEEDED), Outcome(array, "p", State.SUCCEEDED),
    ]  # fmt: skip
    assert await store.outcome_list([]) == []
