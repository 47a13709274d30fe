"""Schedules that wait for something to happen: one run for each time that it does, whoever leads."""

from typing import Any

import pytest
from tests.unit.scheduler.test_corners import Leader

from jarvis.api.workflow_documents import Given, Rules, compiled
from jarvis.core.changes import Changes
from jarvis.core.command import NewCommand
from jarvis.core.errors import StoreUnavailable
from jarvis.core.schedule import EndState, OnWebhook, OnWorkflow, Overlap, Rule, Schedule
from jarvis.core.states import State
from jarvis.core.task import TaskSpec
from jarvis.core.workflow import NewWorkflow, Workflow, WorkflowSpec
from jarvis.dag.schedules import circle
from jarvis.scheduler.schedules import end_event
from jarvis.state.coordination import Leadership
from jarvis.state.stores.memory import MemoryStore
from jarvis.state.workflow_store import WorkflowFilter

ASK = [{"id": "ask", "approval": True}]
AT_ONCE = [{"id": "nap", "sleep": 0}]


def spec(name: str, steps: list[dict[str, Any]], **more: Any) -> WorkflowSpec:
    return compiled(Given({"name": name, "steps": steps, **more}), Rules(0.0), on_event=True)


def after(
    name: str, makes: WorkflowSpec | None = None, state: EndState = "succeeded", project: str = "p",
    overlap: Overlap = "allow", ident: int = 0,
) -> Schedule:  # fmt: skip
    task = TaskSpec(name="t", command=("true",)) if makes is None else None
    return Schedule(
        id=ident, name=f"after-{name}-{state}-{ident}", project=project, user="bob", rule=Rule(on=OnWorkflow(name, state)),
        task=task, workflow=makes, overlap=overlap, created_at=0.0,
    )  # fmt: skip


class FailingOnce(MemoryStore):
    """The commit that is told to is never written."""

    def __init__(self) -> None:
        super().__init__(lambda: 1000.0)
        self.fails = False

    async def leader_commit(self, leadership: Leadership, changes: Changes) -> None:
        if self.fails:
            self.fails = False
            raise StoreUnavailable("away")
        await super().leader_commit(leadership, changes)


class Bed:
    """A leader over a store, its workflows and its schedules."""

    def __init__(self) -> None:
        self.store = FailingOnce()

    async def lead(self) -> None:
        self.leader = Leader(self.store)
        await self.leader.scheduler.start()

    async def turn(self) -> None:
        await self.leader.scheduler.run_once([])

    async def submit(self, wanted: WorkflowSpec, project: str = "p") -> int:
        new = NewWorkflow(uuid="u", project=project, user="ann", spec=wanted)
        ident = (await self.store.workflow_insert(new)).ids[0]
        self.leader.scheduler._next_poll = 0.0
        await self.turn()
        return ident

    async def command(self, verb: str, **target: Any) -> None:
        await self.store.command_insert_many([NewCommand(verb=verb, user="ann", **target)])  # type: ignore[arg-type]
        self.leader.scheduler._next_poll = 0.0
        await self.turn()

    async def decide(self, workflow: int, yes: bool) -> None:
        await self.command("workflow_decide", workflow=workflow, args={"step": "ask", "yes": yes})

    async def made(self, name: str) -> list[Workflow]:
        return await self.store.workflow_list(WorkflowFilter(name=name), None, 100)


@pytest.fixture
async def bed() -> Bed:
    made = Bed()
    await made.lead()
    return made


@pytest.mark.parametrize(
    ("state", "verb", "args", "runs"),
    [
        ("succeeded", "workflow_decide", {"step": "ask", "yes": True}, 1),
        ("succeeded", "workflow_decide", {"step": "ask", "yes": False}, 0),
        ("failed", "workflow_decide", {"step": "ask", "yes": True}, 0),
        ("failed", "workflow_decide", {"step": "ask", "yes": False}, 1),
        ("failed", "workflow_cancel", {}, 0),
        ("any", "workflow_decide", {"step": "ask", "yes": True}, 1),
        ("any", "workflow_cancel", {}, 1),
    ],
)
async def test_an_end_makes_a_run_in_the_same_commit(
    bed: Bed, state: EndState, verb: str, args: dict[str, Any], runs: int
) -> None:
    await bed.store.schedule_insert(after("first", spec("then", AT_ONCE), state))
    ident = await bed.submit(spec("first", ASK))
    assert await bed.made("then") == []
    await bed.command(verb, workflow=ident, args=args)
    (first,) = await bed.made("first")
    assert first.ended_at is not None
    assert len(await bed.made("then")) == runs
    (schedule,) = await bed.store.schedule_list()
    assert (schedule.runs, schedule.last_run is not None, schedule.next_at) == (runs, bool(runs), None)
    await bed.turn()
    await bed.lead()
    await bed.turn()
    assert len(await bed.made("then")) == runs, "another leader makes none again"


async def test_a_commit_that_is_lost_is_lost_with_the_run_and_both_come_back(bed: Bed) -> None:
    await bed.store.schedule_insert(after("first", spec("then", ASK)))
    ident = await bed.submit(spec("first", ASK))
    bed.store.fails = True
    with pytest.raises(StoreUnavailable):
        await bed.decide(ident, yes=True)
    assert await bed.made("then") == []
    await bed.lead()
    await bed.turn()
    assert len(await bed.made("then")) == 1


async def test_a_chain_goes_on_to_its_end(bed: Bed) -> None:
    for name, following in (("a", "b"), ("b", "c"), ("c", "d")):
        await bed.store.schedule_insert(after(name, spec(following, AT_ONCE)))
    await bed.submit(spec("a", AT_ONCE))
    assert [len(await bed.made(name)) for name in "abcd"] == [1, 1, 1, 1]


async def test_what_was_kept_just_before_does_not_miss_the_end(bed: Bed) -> None:
    ident = await bed.submit(spec("first", ASK))
    await bed.store.command_insert_many(
        [NewCommand(verb="workflow_decide", user="ann", workflow=ident, args={"step": "ask", "yes": True})]
    )
    bed.leader.scheduler._next_poll = 0.0
    poll = bed.leader.scheduler.workflows.poll

    async def late() -> list[Workflow]:  # after the schedules were looked at
        await bed.store.schedule_insert(after("first", spec("then", AT_ONCE)))
        return await poll()

    bed.leader.scheduler.workflows.poll = late  # type: ignore[method-assign]
    await bed.turn()
    assert len(await bed.made("then")) == 1


async def test_the_event_is_a_parameter_and_a_variable(bed: Bed) -> None:
    await bed.store.schedule_insert(
        after("first", spec("then", AT_ONCE, params={"event": {"type": "object", "default": {}}, "n": 1}))
    )
    await bed.store.schedule_insert(after("first", ident=1))
    ident = await bed.submit(spec("first", AT_ONCE, output={"rows": 3}))
    (then,) = await bed.made("then")
    event = {"workflow": ident, "name": "first", "state": "succeeded", "output": {"rows": 3}}
    assert then.spec.params == {"event": event, "n": 1}
    (task,) = bed.leader.scheduler.cluster.tasks.values()
    assert task.spec.env["JARVIS_EVENT"] == (
        f'{{"workflow":{ident},"name":"first","state":"succeeded","output":{{"rows":3}}}}'
    )


async def test_a_template_that_reads_the_event_waits_for_it(bed: Bed) -> None:
    steps = [{"id": "s", "command": ["echo", "${{ params.event.state }}", "${{ params.n }}"]}]
    params = {"event": {"type": "object", "default": {}}, "n": 1}
    await bed.store.schedule_insert(after("first", spec("then", steps, params=params)))
    await bed.submit(spec("first", AT_ONCE))
    await bed.turn()
    (task,) = bed.leader.scheduler.cluster.tasks.values()
    assert task.spec.command == ("echo", "succeeded", "1")


async def test_not_of_other_projects_nor_while_paused_nor_beside_a_run_that_goes_on(bed: Bed) -> None:
    await bed.store.schedule_insert(after("first", spec("then", ASK), project="q"))
    await bed.submit(spec("first", AT_ONCE))
    assert await bed.made("then") == []
    ident, *_ = (await bed.store.schedule_insert(after("first", spec("then", ASK), overlap="skip"))).ids
    await bed.submit(spec("first", AT_ONCE))
    await bed.submit(spec("first", AT_ONCE))
    assert len(await bed.made("then")) == 1
    await bed.command("schedule_pause", schedule=ident)
    await bed.decide((await bed.made("then"))[0].id, yes=True)
    await bed.submit(spec("first", AT_ONCE))
    assert len(await bed.made("then")) == 1
    assert (await bed.store.schedule_list())[1].skipped == 2
    await bed.command("schedule_resume", schedule=ident)
    await bed.submit(spec("first", AT_ONCE))
    assert len(await bed.made("then")) == 2


async def test_a_circle_that_two_servers_let_in_makes_no_runs(bed: Bed) -> None:
    await bed.store.schedule_insert(after("a", spec("b", AT_ONCE)))
    await bed.store.schedule_insert(after("b", spec("a", AT_ONCE)))
    await bed.submit(spec("a", AT_ONCE))
    assert (len(await bed.made("a")), len(await bed.made("b"))) == (1, 0)
    assert [s.skipped for s in await bed.store.schedule_list()] == [1, 0]


async def test_a_span_of_times_means_nothing_to_it(bed: Bed) -> None:
    ident, *_ = (await bed.store.schedule_insert(after("a", spec("b", AT_ONCE)))).ids
    await bed.command("schedule_backfill", schedule=ident, args={"begin": 0.0, "end": 9e9})
    assert await bed.made("b") == []
    await bed.command("schedule_trigger", schedule=ident)
    assert len(await bed.made("b")) == 1


def test_circles_are_told_by_their_names() -> None:
    def makes(name: str) -> WorkflowSpec:
        return spec(name, AT_ONCE)

    chain = [after("a", makes("b"), ident=1), after("b", makes("c"), ident=2), after("b", makes("x"), ident=3)]
    assert circle(after("c", makes("a")), chain) == ["c", "a", "b", "c"]
    assert circle(after("a", makes("a")), []) == ["a", "a"]
    assert circle(after("c", makes("d")), chain) == []
    assert circle(after("c"), chain) == []
    assert circle(after("c", makes("a"), project="q"), chain) == []
    turning = [after("x", makes("y"), ident=4), after("y", makes("x"), ident=5)]
    assert circle(after("z", makes("x")), turning) == [], "it is not in it itself"


def test_lost_and_late_ones_have_failed() -> None:
    from jarvis.dag.schedules import follows

    one = Workflow(id=1, uuid="u", project="p", user="ann", spec=spec("a", AT_ONCE), submitted_at=0.0)
    for state, wanted in (
        (State.TIMEOUT, True),
        (State.LOST, True),
        (State.CANCELLED, False),
        (State.SUCCEEDED, False),
    ):
        one.state = state
        assert follows(after("a", state="failed"), one) is wanted


def hooked(makes: WorkflowSpec) -> Schedule:
    return Schedule(
        id=0, name="hook", project="p", user="bob", rule=Rule(on=OnWebhook("s" * 16)), workflow=makes, created_at=0.0
    )


async def test_what_a_signed_request_told_becomes_one_run(bed: Bed) -> None:
    makes = spec("then", AT_ONCE, params={"event": {"type": "object"}})
    ident, *_ = (await bed.store.schedule_insert(hooked(makes))).ids
    await bed.command("schedule_event", schedule=ident, args={"event": '{"n": [1, {"x": null}]}'})
    (made,) = await bed.made("then")
    assert made.spec.params == {"event": {"n": [1, {"x": None}]}}
    await bed.command("schedule_pause", schedule=ident)
    await bed.command("schedule_event", schedule=ident, args={"event": "{}"})
    assert (len(await bed.made("then")), (await bed.store.schedule_list())[0].skipped) == (1, 1)
    await bed.command("schedule_remove", schedule=ident)
    await bed.command("schedule_event", schedule=ident, args={"event": "{}"})
    assert len(await bed.made("then")) == 1


async def test_what_was_told_to_a_leader_that_ended_is_done_by_the_next_one(bed: Bed) -> None:
    ident, *_ = (await bed.store.schedule_insert(hooked(spec("then", AT_ONCE)))).ids
    await bed.turn()
    bed.store.fails = True
    with pytest.raises(StoreUnavailable):
        await bed.command("schedule_event", schedule=ident, args={"event": "{}"})
    assert await bed.made("then") == []
    await bed.lead()
    await bed.turn()
    await bed.turn()
    assert len(await bed.made("then")) == 1


async def test_numbers_that_no_store_takes_fail_a_step_and_stop_no_leader(bed: Bed) -> None:
    steps = [{"id": "fan", "for_each": "[9223372036854775807 * 4 + 0 * workflow.id]", "command": "true"}]
    await bed.submit(spec("large", steps))
    (made,) = await bed.made("large")
    assert made.state is State.FAILED
    assert "64 bits" in (await bed.store.step_list(made.id, "", 9))[0].reason


def test_an_output_that_cannot_be_kept_is_left_out_of_the_event() -> None:
    one = Workflow(id=1, uuid="u", project="p", user="ann", spec=spec("a", AT_ONCE), submitted_at=0.0)
    one.output = b'{"n": 123456789012345678901234567890}'
    assert end_event(one)["output"] is None
    one.output = b"[1]"
    assert end_event(one)["output"] == [1]
