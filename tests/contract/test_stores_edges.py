"""The same suite, further out: full rows, bad neighbours, order, cursors, repeats, what goes and what stays."""

import asyncio
from pathlib import Path

import msgspec
import pytest
from tests.contract.harness import DAY, Ticking, attempt, commit, element, end, event, insert, key, move, new

from jarvis.core.attempt import Output, Rank, Usage
from jarvis.core.command import NewCommand
from jarvis.core.errors import Conflict, CursorTooOld, IdempotencyConflict, InvalidValue, StaleEpoch, StoreUnavailable
from jarvis.core.event import Event
from jarvis.core.ids import SOLO, ElementKey
from jarvis.core.node import Node
from jarvis.core.retry import RetryPolicy
from jarvis.core.states import LIVE, ON_NODE, TERMINAL, Cause, State
from jarvis.core.task import ArraySpec, Constraint, Dependency, FunctionCall, NewTask, Task, TaskSpec
from jarvis.state.coordination import Leadership, Token
from jarvis.state.store import Accepted, Bodies, IdempotencyKey, Store, Submission, TaskFilter
from jarvis.state.stores.sqlite import SqliteStore

S = State


async def test_a_rich_task_is_stored_as_it_was_meant(store: Store, clock: Ticking) -> None:
    rich = new(
        "rich", retry_of=7, resources={"cpu": 500, "memory": 1 << 40}, queue="fast", priority=-3, begin=1.5,
        after=(Dependency("afterany", 1),), retry=RetryPolicy(max_attempts=3, retry_on=("oom",)), time_limit=3.0,
        constraints=(Constraint("zone", "=", "a"),), env={"A": "ü\n\x00"}, hold=True,
        function=FunctionCall(code="c", python="3.11", args=b"\x00\xff"), array=ArraySpec(((0, 99, 1),), throttle=5),
    )  # fmt: skip
    first, second = await insert(store, new("plain"), rich)
    assert await store.task_get_many([second]) == [
        Task(id=second, uuid="u", project="p", user="ann", spec=rich.spec, submitted_at=clock.now, retry_of=7)
    ]
    assert second == first + 1
    assert await store.element_list(second, frozenset(), -2, 10) == [], "elements of an array follow by rule"


async def test_bodies_and_manifests_of_tasks_and_attempts_are_told(store: Store) -> None:
    lead = await store.leadership_acquire("a")
    (ident,) = await insert(store, new(script="s", push=("m1", "m2"), artifacts=("*",)))
    tries = [attempt(ident, nth=1, artifacts="m3"), attempt(ident, nth=2, number=2, result_digest="r")]
    await commit(store, lead, attempts_new={(ident, SOLO, a.attempt): a for a in tries})
    assert [a.artifacts for a in await store.attempt_list(ElementKey(ident, SOLO))] == ["m3", None]
    bodies = Bodies(frozenset({"s", "m1", "m2", "m3", "r"}), frozenset({"m1", "m2", "m3"}))
    assert await store.blob_list_referenced(1e12, 0, 9) == [(ident, "p", bodies)]


async def test_the_ranks_of_a_gang_are_kept_as_they_go(store: Store) -> None:
    lead = await store.leadership_acquire("a")
    (ident,) = await insert(store, new(nodes=2))
    begun = (Rank(node=1, number=1, started_at=2.0), Rank(node=2, number=7))
    over = Rank(
        node=2, number=7, ended_at=3.0, cause=Cause.EXIT, exit_code=3, message="m", usage=Usage(wall_s=1.0), failed_first=True,
        stdout=Output(size=9, chunks=((0, "o"),)), stderr=Output(size=9, chunks=((0, "e"),)),
    )  # fmt: skip
    at = (ident, SOLO, 1)
    await commit(store, lead, attempts_new={at: attempt(ident, ranks=begun)})
    assert [a.ranks for a in await store.attempt_list(ElementKey(ident))] == [begun]
    await commit(store, lead, attempts={at: attempt(ident, ranks=(begun[0], over))})
    assert [a.ranks for a in await store.attempt_list(ElementKey(ident))] == [(begun[0], over)]
    assert await store.blob_list_referenced(1e12, 0, 9) == [(ident, "p", Bodies(frozenset({"o", "e"}), frozenset()))]


async def test_a_submission_of_nothing_is_accepted(store: Store) -> None:
    (answer,) = await store.task_insert_many([Submission([])])
    assert isinstance(answer, Accepted) and list(answer.ids) == []
    assert await store.task_insert_many([]) == []
    assert await store.task_get_many([]) == []
    assert await store.command_insert_many([]) == []


async def test_ids_of_a_submission_follow_each_other_whoever_else_submits(store: Store) -> None:
    many = await asyncio.gather(*(insert(store, new(), new()) for _ in range(50)))
    assert len({ident for pair in many for ident in pair}) == 100
    assert all(second == first + 1 for first, second in many)


async def test_whatever_tasks_have_in_common_each_comes_back_as_it_was(store: Store) -> None:
    """Those that stand together are inserted together, in whatever sizes suit the store."""
    lengths = (1, 2, 600, 3, 1, 21)
    heads = [(f"p{run % 2}", f"u{run % 3}", f"name{run % 4}", run or None) for run in range(len(lengths))]
    tasks = [
        NewTask(uuid=f"{run}-{n}", project=p, user=u, retry_of=r, spec=TaskSpec(name=name, command=("x", f"{run}-{n}")))
        for run, (p, u, name, r) in enumerate(heads)
        for n in range(lengths[run])
    ]
    ids = await insert(store, *tasks)
    found = await store.task_get_many(ids)
    assert [task.id for task in found] == ids == sorted(ids)
    assert [(t.uuid, t.project, t.user, t.retry_of, t.spec) for t in found] == [
        (t.uuid, t.project, t.user, t.retry_of, t.spec) for t in tasks
    ]
    listed = await store.task_list(TaskFilter(project="p1", user="u1", name="name1"), None, 1000)
    assert [task.id for task in listed] == [ident for ident, t in zip(ids, tasks, strict=True) if t.uuid[0] == "1"][
        ::-1
    ]


async def test_a_repeat_gets_the_instant_of_the_first_too(store: Store, clock: Ticking) -> None:
    (first,) = await store.task_insert_many([Submission([new(), new()], key())])
    clock.now += 5
    (again,) = await store.task_insert_many([Submission([new(), new()], key())])
    assert isinstance(first, Accepted) and isinstance(again, Accepted)
    assert (list(again.ids), again.submitted_at, again.replayed) == (list(first.ids), first.submitted_at, True)
    assert len(await store.task_list_submitted(10)) == 2


async def test_keys_differ_by_principal_project_and_route(store: Store) -> None:
    keys = [key(), IdempotencyKey("bob", "p", "/tasks", "k", "b"), IdempotencyKey("ann", "q", "/tasks", "k", "b")]
    keys.append(IdempotencyKey("ann", "p", "/retry", "k", "b"))
    answers = await store.task_insert_many([Submission([new()], k) for k in keys])
    assert len({tuple(a.ids) for a in answers if isinstance(a, Accepted)}) == 4


async def test_a_key_is_forgotten_after_a_week(store: Store, clock: Ticking) -> None:
    await store.task_insert_many([Submission([new()], key())])
    clock.now += 7 * DAY - 1
    await store.task_delete_ended(0.0, 1)
    assert await store.idempotency_get(key()) is not None
    clock.now += 2
    await store.task_delete_ended(0.0, 1)
    assert await store.idempotency_get(key()) is None
    (answer,) = await store.task_insert_many([Submission([new()], key(body="other"))])
    assert isinstance(answer, Accepted) and not answer.replayed
    with pytest.raises(IdempotencyConflict):
        await store.idempotency_get(key())


async def test_what_cannot_be_kept_fails_alone_and_whole(store: Store) -> None:
    bad = [[new("\ud800")], [new(priority=1 << 70)], [new(project="\udfff")], [new("good"), new(env={"A": "\ud900"})]]
    submissions = [Submission([new("one")]), *(Submission(b, key(str(i))) for i, b in enumerate(bad))]
    answers = await store.task_insert_many([*submissions, Submission([new("two")])])
    assert [type(a) for a in answers] == [Accepted, *[InvalidValue] * 4, Accepted]
    assert [task.spec.name for task in await store.task_list_submitted(10)] == ["one", "two"]
    assert await store.idempotency_get(key("3")) is None


async def test_a_new_life_fences_the_leader_and_jumps_ids_even_before_the_first(store: Store) -> None:
    lead = await store.leadership_acquire("a")
    incarnation = await store.incarnation_bump("test")
    assert incarnation > lead.incarnation
    assert (await insert(store, new()))[0] > 1_000_000
    with pytest.raises(StaleEpoch):
        await commit(store, lead, events=[event(1)])
    again = await store.leadership_acquire("b")
    assert again == Leadership(incarnation, lead.epoch + 1)


async def test_an_incarnation_is_at_least_the_seconds_since_2025(store: Store, clock: Ticking) -> None:
    assert (await store.leadership_acquire("x")).incarnation == int(clock.now) - 1_735_689_600


async def test_queued_ranges_take_only_what_is_submitted(store: Store, lead: Leadership) -> None:
    a, b, c = await insert(store, new(), new(), new())
    await move(store, lead, b, S.HELD, reason="JobHeldUser")
    await commit(store, lead, queued=[(a, c), (c + 5, c + 9)])
    assert [t.state for t in await store.task_get_many([a, b, c])] == [S.QUEUED, S.HELD, S.QUEUED]
    assert await store.task_list_submitted(10) == []
    assert await store.task_get_many([c + 5]) == []


async def test_held_ranges_take_only_what_is_submitted_and_say_why(store: Store, lead: Leadership) -> None:
    a, b, c = await insert(store, new(), new(), new())
    await move(store, lead, b, S.CANCELLED)
    await commit(store, lead, held=[(a, c), (c + 5, c + 9)])
    found = [(t.state, t.base, t.reason) for t in await store.task_get_many([a, b, c])]
    assert found[::2] == [(S.HELD, S.HELD, "JobHeldUser")] * 2
    assert found[1][0] is S.CANCELLED
    assert await store.task_list_submitted(10) == []


async def test_a_task_through_its_whole_life(store: Store, lead: Leadership) -> None:
    (ident,) = await insert(store, new())
    solo = element(ident, eligible_at=2.5, lost_on=(1, 2), wish="cancel", failures=2, infra_losses=3, reason="r")
    current = attempt(ident)
    await commit(
        store, lead, queued=[(ident, ident)], elements={solo.key: solo}, attempts_new={(ident, SOLO, 1): current}
    )
    await move(store, lead, ident, S.ASSIGNED)
    assert await store.element_list_live([ident]) == await store.element_get_many([solo.key]) == [solo]
    assert await store.attempt_list_current([ident]) == [current]
    solo.state, solo.exit_code, solo.signal, solo.cause, solo.node = S.FAILED, 3, 9, "exit", None
    current.state, current.cause, current.exit_code, current.signal = S.FAILED, Cause.EXIT, 3, 9
    current.started_at, current.ended_at, current.message = 5.0, 9.0, "boom"
    current.usage, current.stdout = Usage(1.0, 0.5, 0.1, 4096, 1, 2), Output(5, b"hello")
    current.stderr = Output(10, None, ((0, "ab"), (5, "cd")), "/tmp/x")
    current.result, current.result_digest = b"\x00pickle", "d"
    await commit(store, lead, elements={solo.key: solo}, attempts={(ident, SOLO, 1): current})
    task = await move(store, lead, ident, S.FAILED, started_at=5.0, ended_at=9.0, reason="NonZeroExitCode")
    solo.reason = task.reason  # the two have one
    assert await store.task_get_many([ident]) == [task]
    assert await store.attempt_list(solo.key) == [current]
    assert await store.element_list(ident, TERMINAL, -2, 10) == [solo]
    assert await store.element_list_live([ident]) == []
    assert await store.attempt_list_current([ident]) == []
    assert await store.task_list_live(0, 10) == []


async def test_an_outcome_is_that_of_the_last_commit(store: Store, lead: Leadership) -> None:
    """Also where a task is tried and ends within one commit, where something is said later, and where it is deleted."""
    one, two = await insert(store, new(), new())
    tasks = {task.id: task for task in await store.task_get_many([one, two])}
    for task in tasks.values():
        task.state, task.ended_at = S.SUCCEEDED, 5.0
    first = {(i, SOLO, 1): attempt(i, result=b"first", ended_at=4.0) for i in (one, two)}
    await commit(store, lead, attempts_new={at: attempt(at[0]) for at in first})
    again = {(two, SOLO, 2): attempt(two, nth=2, result=b"second", ended_at=5.0)}
    await commit(store, lead, tasks=tasks, attempts=first, attempts_new=again)
    assert [o.result for o in await store.outcome_list([two, one, one])] == [b"first", b"second"]
    await commit(store, lead, attempts={(one, SOLO, 1): attempt(one, result=b"later", ended_at=4.0)})
    assert [o.result for o in await store.outcome_list([one, two])] == [b"later", b"second"]
    assert await store.task_delete_ended(9.0, 10) == [one, two]
    assert await store.outcome_list([one, two]) == []


async def test_tasks_that_become_alike_do_so_each_for_itself(store: Store, lead: Leadership) -> None:
    ids = await insert(store, *[new() for _ in range(5)])
    tasks = await store.task_get_many(ids)
    for task in tasks[:4]:
        task.state = S.ASSIGNED
    tasks[3].reason = "other"
    alike = {
        e.key: e for e in (element(ids[0]), element(ids[1]), element(ids[2], token=78), element(ids[3], reason="other"))
    }
    gone = max(ids) + 1
    there = {task.id: task for task in tasks[:4]}
    await commit(store, lead, tasks=there | {gone: msgspec.structs.replace(tasks[0], id=gone)}, elements=alike)
    assert await store.task_get_many([*ids, gone]) == tasks
    assert await store.element_get_many(list(alike)) == list(alike.values())


async def test_an_attempt_may_begin_and_go_on_in_one_commit(store: Store, lead: Leadership) -> None:
    (ident,) = await insert(store, new())
    at = (ident, SOLO, 1)
    await commit(store, lead, attempts_new={at: attempt(ident)}, attempts={at: attempt(ident, state=S.RUNNING)})
    assert [a.state for a in await store.attempt_list(ElementKey(ident))] == [S.RUNNING]
    with pytest.raises(StaleEpoch):
        await commit(store, lead, attempts_new={at: attempt(ident, token=78)}, events=[event(1)])
    assert [a.token for a in await store.attempt_list(ElementKey(ident))] == [77]
    assert await store.event_last_seq() == 0, "the whole turn is refused"


async def test_a_refused_turn_leaves_nothing_of_any_kind(store: Store, lead: Leadership) -> None:
    (ident,) = await insert(store, new())
    (task,) = await store.task_get_many([ident])
    (command,) = await store.command_insert_many([NewCommand(verb="cancel", user="ann", task=ident)])
    (report,) = await store.report_insert_many([(1, b"x")])
    task.state = S.RUNNING
    with pytest.raises(StaleEpoch):
        await commit(
            store, lead, tasks={ident: task}, nodes={1: Node(id=1, name="n")}, events=[event(1)],
            elements={ElementKey(ident): element(ident)}, attempts_new={(ident, SOLO, 1): attempt(ident)},
            attempts={(ident, SOLO, 2): attempt(ident, nth=2)}, commands_done={command.id: ""}, reports_done=[report],
        )  # fmt: skip
    assert [t.state for t in await store.task_get_many([ident])] == [S.SUBMITTED]
    assert await store.node_list() == []
    assert await store.element_get_many([ElementKey(ident)]) == []
    assert await store.attempt_list(ElementKey(ident)) == [] and await store.event_last_seq() == 0
    assert await store.command_list_open(9) == [command] and len(await store.report_list_open(9)) == 1


async def test_a_task_that_is_gone_is_not_brought_back(store: Store, lead: Leadership) -> None:
    (ident,) = await insert(store, new())
    (task,) = await store.task_get_many([ident])
    await end(store, lead, ident, 1.0)
    assert await store.task_delete_ended(2.0, 9) == [ident]
    await commit(store, lead, tasks={ident: task})
    assert await store.task_get_many([ident]) == []


async def test_attempts_are_in_order_and_only_the_current_one_counts(store: Store, lead: Leadership) -> None:
    a, b = await insert(store, new(array=ArraySpec(((0, 9, 1),))), new())
    tries = [attempt(a, index=i, nth=n, token=n, number=10 * i + n) for i, n in ((2, 2), (2, 1), (0, 1), (5, 1))]
    rows = [element(a, S.RUNNING, 2, nth=2), element(a, S.CANCELLING, 0), element(a, S.BACKOFF, 5), element(b)]
    tries.append(attempt(b, number=99))
    await commit(
        store, lead, elements={e.key: e for e in rows}, attempts_new={(t.task, t.index, t.attempt): t for t in tries}
    )
    assert [t.attempt for t in await store.attempt_list(ElementKey(a, 2))] == [1, 2]
    assert [t.number for t in await store.attempt_list_current([b, a, 999])] == [1, 22, 99]
    assert [e.index for e in await store.element_list_live([b, a])] == [0, 2, 5, SOLO]
    assert [e.index for e in await store.element_list(a, frozenset(), 0, 1)] == [2]
    assert [e.index for e in await store.element_list(a, ON_NODE, -1, 9)] == [0, 2]


@pytest.mark.parametrize("state", list(State))
async def test_every_state_is_kept_and_counted(store: Store, lead: Leadership, state: State) -> None:
    (ident,) = await insert(store, new())
    ended = 5.0 if state in TERMINAL else None
    await move(store, lead, ident, state, ended_at=ended, base=state, counts={state: 3})
    (task,) = await store.task_get_many([ident])
    assert (task.state, task.base, task.counts, task.ended_at) == (state, state, {state: 3}, ended)
    assert (await store.counts()).tasks_by_state == {state: 1}
    for where in (frozenset({state}), LIVE if state in LIVE else TERMINAL):
        assert await store.task_list(TaskFilter(states=where), None, 9) == [task]
    assert await store.task_list(TaskFilter(states=TERMINAL if state in LIVE else LIVE), None, 9) == []
    assert await store.task_list_live(0, 9) == ([task] if state in LIVE else [])
    assert await store.task_list_submitted(9) == ([task] if state is S.SUBMITTED else [])


async def test_filters_by_time_name_and_project(store: Store, lead: Leadership, clock: Ticking) -> None:
    begun = clock.now
    (a,) = await insert(store, new("alpha"))
    clock.now += 10
    (b,) = await insert(store, new("alphabet", project="q", user="v"))
    clock.now += 10
    (c,) = await insert(store, new("al*"))
    await end(store, lead, a, 50.0, S.FAILED)

    async def ids(before: int | None = None, limit: int = 10, **where: object) -> list[int]:
        return [t.id for t in await store.task_list(TaskFilter(**where), before, limit)]  # type: ignore[arg-type]

    assert await ids(before=a) == await ids(projects=frozenset()) == []
    assert await ids(states=frozenset({S.SUBMITTED, S.FAILED})) == [c, b, a]
    assert await ids(states=frozenset({S.SUBMITTED}), before=c, limit=1) == [b]
    assert await ids(projects=frozenset({"q", "z"})) == await ids(project="q") == await ids(user="v") == [b]
    assert await ids(name="alpha") == [a]
    assert await ids(name="*") == [c, b, a]
    assert await ids(name="al**") == [c]
    assert await ids(name="a_p%") == await ids(name="ALPHA") == await ids(name="") == []
    assert await ids(submitted_after=begun) == [c, b]
    assert await ids(submitted_before=begun + 20) == [b, a]
    assert await ids(ended_after=49.0) == [a]
    assert await ids(ended_after=50.0) == []
    assert await ids(states=frozenset({S.SUBMITTED}), ended_after=1.0) == []


async def test_commands_and_reports_keep_their_order_and_take_no_end_twice(store: Store, lead: Leadership) -> None:
    rich = NewCommand(verb="cancel", user="u", task=3, index=4, args={"grace": 2.5, "why": None, "n": 1})
    a, b = await store.command_insert_many([rich, NewCommand(verb="node_drain", user="u", admin=True, node=1)])
    assert a.body == rich
    assert await store.command_list_open(1) == [a]
    await commit(store, lead, commands_done={a.id: "", 99: "unknown"})
    await commit(store, lead, commands_done={a.id: "again"})
    assert await store.command_list_open(10) == [b]
    (c,) = await store.command_insert_many([rich])
    assert c.id > b.id
    one, two = await store.report_insert_many([(1, b"x"), (1, b"x")])
    assert [(r.id, r.node, r.body) for r in await store.report_list_open(9)] == [(one, 1, b"x"), (two, 1, b"x")]
    await commit(store, lead, reports_done=[one, 1234])
    await commit(store, lead, reports_done=[one])
    assert [r.id for r in await store.report_list_open(9)] == [two], "what is the same is the leader's to see"
    await commit(store, lead, reports_done=[two])
    assert (await store.report_insert_many([(1, b"")]))[0] > two
    assert await store.report_list_open(0) == []


async def test_a_node_as_the_leader_and_the_heartbeats_tell_it(store: Store, lead: Leadership) -> None:
    await commit(store, lead, nodes={5: Node(id=5, name="e"), 2: Node(id=2, name="b", labels={"zone": "a"})})
    await store.node_seen_many([(2, 20.0, {"load1": 2.0}), (5, 1.0, {}), (2, 30.0, {"load1": 3.0})])
    b, e = await store.node_list()
    assert (b.name, b.labels, b.seen_at, b.health) == ("b", {"zone": "a"}, 30.0, {"load1": 3.0})
    assert (e.id, e.seen_at) == (5, 1.0)
    await commit(store, lead, nodes_removed=[5, 77])
    assert [n.id for n in await store.node_list()] == [2]
    assert await store.node_next_id() == 6


async def test_events_after_a_cursor(store: Store, lead: Leadership) -> None:
    assert (await store.event_last_seq(), await store.event_oldest_seq()) == (0, 0)
    assert await store.event_list(0, 10) == []
    rich = Event(3, 2.0, "failed", 5, 7, 2, 1, "cause-1", {"exit_code": 3, "reason": "ü", "wall": 1.5})
    await commit(store, lead, events=[event(1, 4), event(2, 5), rich])
    await commit(store, lead, events=[event(4, 4)])
    assert await store.event_list(2, 1) == [rich]
    assert [e.seq for e in await store.event_list(0, 10, task=5)] == [2, 3]
    assert [e.seq for e in await store.event_list(0, 1, task=4)] == [1]
    assert [e.seq for e in await store.event_list(1, 5, task=4)] == [4]
    assert await store.event_list(0, 10, task=6) == []
    assert await store.event_list(4, 10) == await store.event_list(99, 10) == []
    assert (await store.counts()).events == 4


async def test_a_cursor_before_the_oldest_event_is_too_old(store: Store, lead: Leadership) -> None:
    for n in range(4):
        await commit(store, lead, events=[event(2 * n + 1, at=n), event(2 * n + 2, at=n + 0.5)])
    assert await store.event_delete_before(0.5, 100) == 0
    assert await store.event_delete_before(2.0, 1) == 2
    assert await store.event_delete_before(2.0, 100) == 2
    assert await store.event_oldest_seq() == 4
    assert [e.seq for e in await store.event_list(4, 100)] == [5, 6, 7, 8]
    for task in (None, 1):
        with pytest.raises(CursorTooOld) as caught:
            await store.event_list(3, 100, task)
        assert caught.value.oldest == f"{lead.incarnation}.4"
    assert await store.event_delete_before(100.0, 100) == 4
    assert (await store.event_oldest_seq(), await store.event_last_seq()) == (8, 8)
    assert await store.event_list(8, 10) == []
    assert (await store.counts()).events == 0


async def test_a_token_is_replaced_by_its_hash(store: Store) -> None:
    await store.token_put(Token("h2", "bob", "user", ("p", "q"), "laptop"))
    await store.token_put(Token("h1", "root", "admin"))
    await store.token_put(Token("h2", "bob", "viewer", ("p",), "desk"))
    assert await store.token_list() == [Token("h1", "root", "admin"), Token("h2", "bob", "viewer", ("p",), "desk")]


async def test_retention_takes_the_longest_ended_first_with_all_that_is_theirs(store: Store, lead: Leadership) -> None:
    old, array, recent = await insert(store, new(), new(array=ArraySpec(((0, 3, 1),))), new())
    rows = [element(old, S.FAILED), element(array, S.FAILED, 0), element(recent, S.FAILED)]
    attempts = {(e.task, e.index, 1): attempt(e.task, index=e.index, state=S.FAILED) for e in rows}
    await commit(store, lead, elements={e.key: e for e in rows}, attempts_new=attempts)
    for ident, at in ((old, 20.0), (array, 10.0), (recent, 30.0)):
        await end(store, lead, ident, at, S.FAILED)
    assert await store.task_delete_ended(10.0, 10) == []
    assert await store.task_delete_ended(30.0, 1) == [array]
    assert await store.task_delete_ended(30.0, 10) == [old]
    assert [t.id for t in await store.task_get_many([old, array, recent])] == [recent]
    assert [e.task for e in await store.element_get_many([e.key for e in rows])] == [recent]
    assert await store.attempt_list(ElementKey(old)) == await store.attempt_list(ElementKey(array, 0)) == []
    assert (await insert(store, new()))[0] > recent


@pytest.mark.parametrize("state", sorted(LIVE))
async def test_retention_never_takes_what_lives_or_is_awaited(store: Store, lead: Leadership, state: State) -> None:
    awaited, live = await insert(store, new(), new())
    (waits,) = await insert(store, new(after=(Dependency("afterok", awaited),)))
    await end(store, lead, awaited, 1.0)
    await move(store, lead, live, state)
    assert await store.task_delete_ended(1e12, 10) == []
    await end(store, lead, waits, 2.0)
    assert await store.task_delete_ended(1e12, 10) == [awaited, waits]
    assert [t.state for t in await store.task_get_many([live])] == [state]


async def test_what_was_acknowledged_is_there_for_the_next_owner(
    store: Store, lead: Leadership, tmp_path: Path
) -> None:
    (ident,) = await insert(store, new())
    target = tmp_path / "copy"
    if isinstance(store, SqliteStore):
        await store.backup(target)
        content = target.read_bytes()
        with pytest.raises(Conflict):
            await store.backup(target)
        assert target.read_bytes() == content
        assert [p.name for p in tmp_path.glob("*copy*")] == ["copy"]  # noqa: ASYNC240 - one listing
    else:
        with pytest.raises((StoreUnavailable, Conflict)):
            await store.backup(target)
        assert not target.exists()
    if not store.durable:
        return
    await commit(store, lead, queued=[(ident, ident)], events=[event(1, ident)])
    await store.close()
    await store.open()
    assert [t.state for t in await store.task_get_many([ident])] == [S.QUEUED]
    assert [e.task for e in await store.event_list(0, 9)] == [ident]
    assert await store.leadership_acquire("b") == Leadership(lead.incarnation, lead.epoch + 1)
    assert (await insert(store, new()))[0] > ident
