"""What every store promises about workflows and their steps."""

import asyncio

import pytest
from tests.contract.harness import Ticking, commit, insert, key, new

from jarvis.core.changes import Changes
from jarvis.core.command import NewCommand
from jarvis.core.errors import Conflict, IdempotencyConflict, InvalidValue, StaleEpoch
from jarvis.core.schedule import Rule, Schedule
from jarvis.core.states import State
from jarvis.core.task import Origin, Task, TaskSpec
from jarvis.core.workflow import Block, Kept, NewWorkflow, Step, StepDetail, StepSpec, Workflow, WorkflowSpec
from jarvis.state.coordination import Leadership
from jarvis.state.store import Store
from jarvis.state.workflow_store import WorkflowFilter


def wanted(name: str = "w", project: str = "p", user: str = "ann", reused: tuple[Step, ...] = ()) -> NewWorkflow:
    steps = (StepSpec(id="a", task=TaskSpec(name="t", command=("true",))), StepSpec(id="b", sleep=2.0))
    spec = WorkflowSpec(name=name, block=Block(steps), params={"n": 3, "list": [1, {"x": None}]})
    return NewWorkflow(uuid="u", project=project, user=user, spec=spec, reused=reused)


def step(workflow: int, path: str, state: State = State.RUNNING, **other: object) -> Step:
    return Step(workflow=workflow, path=path, state=state, **other)  # type: ignore[arg-type]


async def submitted(store: Store, *args: object, **kwargs: object) -> int:
    return (await store.workflow_insert(wanted(*args, **kwargs))).ids[0]  # type: ignore[arg-type]


async def changed(store: Store, lead: Leadership, ident: int, **fields: object) -> Workflow:
    (workflow,) = await store.workflow_get_many([ident])
    for name, value in fields.items():
        setattr(workflow, name, value)
    await commit(store, lead, workflows={ident: workflow})
    return workflow


async def test_a_workflow_comes_back_as_it_was_given(store: Store, clock: Ticking) -> None:
    ident = await submitted(store)
    (found,) = await store.workflow_get_many([ident, 999_999_999])
    assert found.spec == wanted().spec
    assert (found.state, found.submitted_at, found.user, found.wish) == (State.SUBMITTED, clock.now, "ann", "")
    assert [w.id for w in await store.workflow_list_submitted(10)] == [ident]


async def test_ids_are_those_of_tasks_and_never_meet(store: Store) -> None:
    lead = await store.leadership_acquire("a")
    (first,) = await insert(store, new())
    workflow = await submitted(store)
    reserved = list(await store.task_ids_reserve(3))
    (last,) = await insert(store, new())
    assert len({first, workflow, *reserved, last}) == 6
    made = Task(
        id=reserved[1], uuid="x", project="p", user="ann", state=State.QUEUED, submitted_at=7.0,
        spec=TaskSpec(name="made", command=("true",), origin=Origin(workflow, "a")),
    )  # fmt: skip
    await commit(store, lead, tasks_new={made.id: made}, tasks={made.id: made})
    assert await store.task_get_many([made.id]) == [made]
    (again,) = await insert(store, new())
    assert again > last


async def test_a_key_is_answered_with_the_first_workflow(store: Store) -> None:
    first = await store.workflow_insert(wanted(), key())
    again = await store.workflow_insert(wanted(), key())
    assert (list(again.ids), again.replayed) == (list(first.ids), True)
    with pytest.raises(IdempotencyConflict):
        await store.workflow_insert(wanted(), key(body="other"))
    assert len(await store.workflow_list(WorkflowFilter(), None, 10)) == 1


async def test_what_cannot_be_kept_leaves_nothing(store: Store) -> None:
    with pytest.raises(InvalidValue):
        await store.workflow_insert(wanted(name="\ud800"))
    assert await store.workflow_list(WorkflowFilter(), None, 10) == []


async def test_a_turn_is_written_whole_or_not_at_all(store: Store) -> None:
    old = await store.leadership_acquire("a")
    ident = await submitted(store)
    lead = await store.leadership_acquire("b")
    running = step(ident, "a", task=5, started_at=2.0, detail=StepDetail(items=[1, "x"], case="c", wake_at=9.0))
    with pytest.raises(StaleEpoch):
        await store.leader_commit(old, Changes(steps={(ident, "a"): running}))
    assert await store.step_list(ident, "", 10) == []
    await commit(store, lead, steps={(ident, "a"): running})
    assert await store.step_get(ident, "a") == running
    running.state, running.output, running.ended_at = State.SUCCEEDED, b'{"rows": 3}', 4.0
    await changed(store, lead, ident, state=State.RUNNING, started_at=1.0, wish="pause", reason="r")
    await commit(store, lead, steps={(ident, "a"): running, (ident, "a[0]"): step(ident, "a[0]", State.FAILED)})
    assert await store.step_get(ident, "a") == running
    assert await store.step_counts(ident) == {State.SUCCEEDED: 1, State.FAILED: 1}
    assert await store.workflow_list_submitted(10) == []


async def test_steps_are_listed_by_the_bytes_of_their_paths(store: Store) -> None:
    lead = await store.leadership_acquire("a")
    ident = await submitted(store)
    paths = ["b", "a", "a[10]", "a[2]", "a/x", "A", "ä", "a[2]/x", "_"]
    await commit(store, lead, steps={(ident, path): step(ident, path) for path in paths})
    listed = [s.path for s in await store.step_list(ident, "", 100)]
    assert listed == sorted(paths, key=str.encode)
    assert [s.path for s in await store.step_list(ident, listed[3], 2)] == listed[4:6]


async def test_a_rerun_comes_with_what_it_takes_over(store: Store) -> None:
    kept = step(1, "a", State.SUCCEEDED, output=b"1", detail=StepDetail(reused=1))
    ident = await submitted(store, reused=(kept,))
    (row,) = await store.step_list(ident, "", 10)
    assert (row.workflow, row.path, row.output, row.detail.reused) == (ident, "a", b"1", 1)


async def test_pages_and_filters(store: Store) -> None:
    lead = await store.leadership_acquire("a")
    ids = [await submitted(store, name, project) for name, project in (("ab", "p"), ("ac", "p"), ("b", "q"))]
    await changed(store, lead, ids[1], state=State.FAILED, ended_at=5.0, output=b"null")

    async def found(before: int | None = None, limit: int = 10, **where: object) -> list[int]:
        return [w.id for w in await store.workflow_list(WorkflowFilter(**where), before, limit)]  # type: ignore[arg-type]

    assert await found() == ids[::-1]
    assert await found(ids[2], 1) == [ids[1]]
    assert await found(name="a*", projects=frozenset({"p"})) == [ids[1], ids[0]]
    assert await found(states=frozenset({State.FAILED}), user="ann") == [ids[1]]
    assert await found(name="ab", project="q") == []
    assert [w.id for w in await store.workflow_list_live(ids[0] - 1, 10)] == [ids[0], ids[2]]
    assert [w.id for w in await store.workflow_list_live(ids[0], 10)] == [ids[2]]


async def test_what_ended_goes_with_its_steps_and_what_lives_stays(store: Store) -> None:
    lead = await store.leadership_acquire("a")
    ids = [await submitted(store) for _ in range(3)]
    await commit(store, lead, steps={(i, "a"): step(i, "a") for i in ids})
    await changed(store, lead, ids[0], state=State.SUCCEEDED, ended_at=9.0)
    await changed(store, lead, ids[1], state=State.FAILED, ended_at=5.0)
    assert await store.workflow_delete_ended(10.0, 1) == [ids[1]]
    assert await store.workflow_delete_ended(9.0, 10) == []
    assert [w.id for w in await store.workflow_list(WorkflowFilter(), None, 10)] == [ids[2], ids[0]]
    assert [len(await store.step_list(i, "", 9)) for i in ids] == [1, 0, 1]


def schedule(name: str = "s", project: str = "p") -> Schedule:
    task = TaskSpec(name="t", command=("true",))
    return Schedule(
        id=0,
        name=name,
        project=project,
        user="ann",
        rule=Rule("0 3 * * *", "UTC"),
        task=task,
        created_at=1.0,
        next_at=5.0,
    )


async def test_schedules_have_names_and_go_on_with_the_runs_that_they_make(store: Store) -> None:
    lead = await store.leadership_acquire("a")
    first = (await store.schedule_insert(schedule())).ids[0]
    with pytest.raises(Conflict):
        await store.schedule_insert(schedule())
    second = (await store.schedule_insert(schedule(project="q"))).ids[0]
    one, two = await store.schedule_list()
    assert await store.schedule_list(first) == [two]
    assert (one.id, two.id, one.rule, two.project) == (first, second, Rule("0 3 * * *", "UTC"), "q")
    (ident,) = await store.task_ids_reserve(1)
    new_one = wanted()
    made = Workflow(id=ident, uuid="u", project="p", user="ann", spec=new_one.spec, submitted_at=7.0)
    one.next_at, one.last_run, one.runs = 9.0, ident, 1
    await commit(store, lead, workflows_new={ident: made}, schedules={first: one}, schedules_removed=[second])
    assert await store.schedule_list() == [one]
    assert await store.workflow_get_many([ident]) == [made]


async def test_a_schedule_is_kept_once_for_a_key(store: Store) -> None:
    first = await store.schedule_insert(schedule(), key())
    again = await store.schedule_insert(schedule(), key())
    assert (list(again.ids), first.replayed, again.replayed) == (list(first.ids), False, True)
    with pytest.raises(IdempotencyConflict):
        await store.schedule_insert(schedule("other"), key(body="other"))
    with pytest.raises(Conflict):
        await store.schedule_insert(schedule(), key("another"))
    third = await store.schedule_insert(schedule("t"), key("another"))
    assert [s.id for s in await store.schedule_list()] == [first.ids[0], third.ids[0]], "a refusal leaves no key behind"


async def test_a_command_is_told_once_for_a_key(store: Store) -> None:
    lead = await store.leadership_acquire("a")
    wish = NewCommand(verb="schedule_event", user="ann", schedule=3, args={"event": "{}"})
    first = await store.command_insert_once(wish, key())
    again = await store.command_insert_once(wish, key())
    assert (list(again.ids), first.replayed, again.replayed) == (list(first.ids), False, True)
    (command,) = await store.command_list_open(10)
    assert (command.id, command.body) == (first.ids[0], wish)
    await commit(store, lead, commands_done={command.id: ""})
    assert (await store.command_insert_once(wish, key())).replayed, "also when it is done"
    with pytest.raises(IdempotencyConflict):
        await store.command_insert_once(wish, key(body="other"))
    assert list((await store.command_insert_once(wish, key("next"))).ids) != list(first.ids)
    assert len(await store.command_list_open(10)) == 1


async def test_of_two_that_say_the_same_at_once_one_is_kept(store: Store) -> None:
    wish = NewCommand(verb="schedule_event", user="ann", schedule=3)
    answers = await asyncio.gather(*(store.command_insert_once(wish, key()) for _ in range(8)))
    assert len({answer.ids[0] for answer in answers}) == 1
    assert sum(not answer.replayed for answer in answers) == 1
    assert len(await store.command_list_open(10)) == 1


def kept(key: str = "k", project: str = "p", **other: object) -> Kept:
    values: dict[str, object] = {
        "workflow": 3,
        "task": 4,
        "output": b"[1]",
        "result": b"\x80",
        "at": 1.0,
        "expires_at": 9.0,
    }
    return Kept(project=project, key=key, **values | other)  # type: ignore[arg-type]


async def test_what_steps_gave_is_found_by_its_project_and_key_until_it_is_removed(store: Store) -> None:
    old = await store.leadership_acquire("a")
    lead = await store.leadership_acquire("b")
    first = kept()
    with pytest.raises(StaleEpoch):
        await store.leader_commit(old, Changes(kept={("p", "k"): first}))
    assert await store.kept_get("p", "k") is None
    await commit(
        store, lead, kept={("p", "k"): first, ("q", "k"): kept(project="q", task=None, output=None, result=None)}
    )
    assert await store.kept_get("p", "k") == first
    assert await store.kept_get("p", "other") is None
    later = kept(workflow=7, expires_at=20.0)
    await commit(store, lead, kept={("p", "k"): later, ("p", "m"): kept("m", expires_at=8.0)})
    assert await store.kept_get("p", "k") == later
    assert await store.kept_delete(8.0, 10) == 0
    assert await store.kept_delete(10.0, 1) == 1
    assert (await store.kept_get("p", "m"), (await store.kept_get("q", "k") or first).project) == (None, "q")
    assert await store.kept_delete(float("inf"), 10) == 2
    assert await store.kept_get("p", "k") is None
