"""Corners of the leader's rules that the simulation found: one test per defect, in the order in which they were found."""

import asyncio
from collections.abc import Sequence

import pytest
from tests.unit.scheduler.harness import Case

from jarvis.bus.buses.memory import MemoryBus
from jarvis.core.command import NewCommand
from jarvis.core.effects import AckFrame, Refused, Seen, ToNode, ToSession, Welcome
from jarvis.core.errors import StaleEpoch, StoreUnavailable
from jarvis.core.ids import ElementKey
from jarvis.core.inputs import (
    CommandsTaken,
    Ended,
    Hello,
    Known,
    NodeConnected,
    NodeReported,
    NodesSeen,
    Started,
    TasksTaken,
)
from jarvis.core.node import NodeState
from jarvis.core.retry import RetryPolicy
from jarvis.core.states import Cause, State
from jarvis.core.task import Dependency, NewTask, Task, TaskSpec
from jarvis.scheduler import scheduler
from jarvis.scheduler.checks import check_cluster
from jarvis.scheduler.cluster import Cluster
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.explain import why
from jarvis.scheduler.nodes import BELIEVED_AGAIN_S, on_node_lost
from jarvis.scheduler.reactor import rebuild_attempts, rebuild_tasks
from jarvis.scheduler.scheduler import Scheduler
from jarvis.scheduler.turn import Turn
from jarvis.state.store import Submission
from jarvis.state.stores.memory import MemoryStore
from jarvis.utils.clock import Clock

K = ElementKey


def short_backlog(case: Case, tasks: int) -> list[int]:
    """A class known to be short, so that it is assigned ahead of room; the first fills the node."""
    case.node(cpus=4)
    case.ends(case.submit(cpus=1), wall=0.001)
    return [case.submit(cpus=1) for _ in range(tasks)]


def report(case: Case, *facts: Started | Ended) -> None:
    view = case.cluster.nodes[1]
    case.step(NodeReported("report", view.session or "", 1, 1, list(facts)))


def rebuilt(case: Case) -> Cluster:
    """What a new leader makes of the same rows."""
    cluster = Cluster(1, 1)
    for view in case.cluster.nodes.values():
        copy = type(view)(view.node)
        cluster.nodes[view.node.id] = copy
    for element in case.cluster.elements.values():
        cluster.add_element(element)
    cluster.attempts.update(case.cluster.attempts)
    for _ in rebuild_tasks(cluster, list(case.cluster.tasks.values())):
        continue
    rebuild_attempts(cluster)
    check_cluster(cluster)
    return cluster


def test_a_node_that_begins_its_backlog_in_another_order_is_not_counted_fuller_than_it_is() -> None:
    case = Case()
    tasks = short_backlog(case, 6)
    last = case.attempt(tasks[5])
    report(case, Started(number=last.number, token=last.token))
    view = case.cluster.nodes[1]
    assert view.used["cpu"] == 4000
    assert view.placed[last.number].begun
    assert not view.placed[last.number].ahead


def test_what_starts_in_the_room_of_an_end_on_its_way_counts_when_that_end_is_here() -> None:
    case = Case()
    tasks = short_backlog(case, 5)
    for task in tasks:
        case.started(task)
    view = case.cluster.nodes[1]
    assert view.used["cpu"] == 4000
    case.ends(tasks[0])
    assert not view.ahead
    assert view.used["cpu"] == 4000


def test_a_rebuild_puts_what_does_not_fit_into_the_backlog() -> None:
    case = Case()
    tasks = short_backlog(case, 7)
    case.started(tasks[6])
    view = rebuilt(case).nodes[1]
    assert view.used["cpu"] == 4000
    assert not view.placed[case.attempt(tasks[6]).number].ahead


def test_a_task_that_ends_while_it_waits_waits_for_nothing() -> None:
    case = Case()
    first = case.submit()
    second = case.submit(after=f"afterok:{first}")
    case.command("cancel", second)
    assert not case.cluster.waits_for


@pytest.mark.parametrize("verb", ["requeue", "signal", "release", "suspend"])
def test_naming_a_queued_element_leaves_it_in_the_queue(verb: str) -> None:
    case = Case()
    task = case.submit(array="0-2")
    case.command(verb, task, index=1)
    assert K(task, 1) in case.turns[-1].changes.elements, "a new leader knows that it has a row"
    case.node(cpus=4)
    assert [case.state(K(task, i)) for i in range(3)] == ["assigned"] * 3


def test_an_element_cancelled_by_name_stays_cancelled() -> None:
    case = Case()
    task = case.submit(array="0-4")
    case.command("cancel", task, index=2)
    assert case.command("release", task, index=2) == "no such element"
    assert why(case.cluster, K(task, 2), case.now) is None
    case.node(cpus=9)
    assert [e.attempt for e in case.cluster.elements.values()] == [1] * 4


def test_a_queued_element_that_is_cancelled_by_name_leaves_nothing_in_the_queue() -> None:
    case = Case()
    task = case.submit(array="0-2")
    for verb in ("hold", "release", "cancel"):
        case.command(verb, task, index=1)
    case.node(cpus=9)
    case.expect(K(task, 1), "cancelled")


def test_held_and_released_twice_is_placed_once() -> None:
    case = Case()
    array, solo = case.submit(array="0-3"), case.submit()
    for verb in ("hold", "release", "hold", "release"):
        case.command(verb, array)
        case.command(verb, solo)
        case.command(verb, array, index=3)
    case.node(cpus=9)
    assert {e.attempt for e in case.cluster.elements.values()} == {1}
    assert len(case.cluster.attempts) == 5


def test_an_element_that_ran_before_its_array_does_not_run_with_it() -> None:
    case = Case()
    task = case.submit(array="0-3", hold=True)
    case.command("release", task, index=2)
    case.node(cpus=9)
    case.ends(K(task, 2))
    case.command("release", task)
    assert case.cluster.tasks[task].counts == {"succeeded": 1, "assigned": 3}


def test_an_element_of_a_rest_that_is_over_has_nothing_left_to_command() -> None:
    case = Case()
    case.node(cpus=1)
    task = case.submit(array="0-3")
    case.started(K(task, 0))
    case.command("cancel", task)
    assert case.command("requeue", task, index=3) == "no such element"


def test_no_attempt_begins_after_the_deadline() -> None:
    case = Case()
    case.node()
    task = case.submit(deadline=1010.0, retry=RetryPolicy(max_attempts=3))
    case.started(task)
    case.wait(11)
    case.expect(task, "cancelling")
    case.ends(task, exit_code=1)
    case.expect(task, "expired")


def test_a_cancel_is_not_taken_back_by_a_requeue() -> None:
    case = Case()
    case.node()
    task = case.submit()
    case.started(task)
    case.command("cancel", task)
    case.command("requeue", task)
    assert {stop.cause for stop in case.stops()} == {Cause.CANCELLED}
    case.ends(task, exit_code=None, cause=Cause.REQUEUED)
    case.expect(task, "cancelled")


def test_a_hold_that_came_too_late_does_not_make_a_failure_run_again() -> None:
    case = Case()
    case.node()
    task = case.submit()
    case.command("hold", task)
    assert case.turns[-1].changes.elements[K(task)].wish == "hold"
    case.started(task)
    case.ends(task, exit_code=1)
    case.expect(task, "failed")


def test_an_element_released_by_itself_still_waits_for_what_its_task_waits_for() -> None:
    case = Case()
    case.node(cpus=9)
    first = case.submit()
    task = case.submit(array="0-2", after=f"afterok:{first}", hold=True)
    case.command("release", task, index=1)
    case.expect(K(task, 1), "waiting")
    case.ends(first)
    assert [case.state(K(task, i)) for i in range(3)] == ["held", "assigned", "held"]


def test_an_element_released_before_the_begin_waits_for_it() -> None:
    case = Case()
    case.node(cpus=9)
    task = case.submit(array="0-1", begin=1010.0, hold=True)
    case.command("release", task, index=1)
    case.expect(K(task, 1), "waiting")
    assert [timer.kind for timer in rebuilt(case).timers] == ["begin"]
    case.wait(11)
    assert [case.state(K(task, i)) for i in range(2)] == ["held", "assigned"]


def test_what_is_held_and_can_never_run_is_over() -> None:
    case = Case()
    first = case.submit()
    task = case.submit(array="0-1", after=f"afterok:{first}")
    case.command("hold", task, index=0)
    case.command("cancel", first)
    assert task not in case.cluster.tasks
    assert case.tasks[task].counts == {"upstream_failed": 2}


def test_a_hint_that_comes_before_that_of_its_dependency_is_left_to_the_poll() -> None:
    case = Case()
    spec = TaskSpec(name="t", after=(Dependency("afterok", 1),))
    second = Task(id=2, uuid="", project="p", user="u", submitted_at=case.now, spec=spec)
    case.step(TasksTaken("submit", [second], {1: State.SUBMITTED}))
    assert not case.cluster.tasks
    assert second.state is State.SUBMITTED


def test_a_new_leader_knows_what_a_held_task_waits_for() -> None:
    case = Case()
    first = case.submit()
    task = case.submit(after=f"afterok:{first}", hold=True)
    assert rebuilt(case).waits_for == {task: {first}}


def hello(ordinal: int, boot: str = "boot", booted_at: float = 100.0, known: Sequence[Known] = ()) -> Hello:
    return Hello(version=1, software="0", name="n1", node=1, boot_id=boot, resources={"cpu": 1000}, labels={},
                 ordinal=ordinal, booted_at=booted_at, known=list(known))  # fmt: skip


def runs_on_its_node(*, under_the_next_leader: bool) -> tuple[Case, int]:
    """A task that began in session ``new``, the second of its node."""
    case = Case()
    case.node(cpus=1)
    case.step(NodeConnected("hello", "new", hello(2)))
    task = case.submit()
    case.started(task)
    case.take()
    if under_the_next_leader:
        case.cluster = rebuilt(case)
        case.cluster.nodes[1].heard_at = case.now
    return case, task


def refused(case: Case, item: NodeConnected) -> bool:
    case.step(item)
    (answer,) = case.take()
    return isinstance(answer, ToSession) and isinstance(answer.message, Refused) and answer.close


@pytest.mark.parametrize("under_the_next_leader", [False, True])
@pytest.mark.parametrize("late", [hello(1), hello(9, "boot before", 99.0)])
def test_a_hello_that_was_overtaken_changes_nothing(late: Hello, under_the_next_leader: bool) -> None:
    case, task = runs_on_its_node(under_the_next_leader=under_the_next_leader)
    session = case.cluster.nodes[1].session
    assert refused(case, NodeConnected("hello", "old", late))
    case.expect(task, "running")
    assert case.cluster.nodes[1].session == session


def test_a_node_whose_clock_was_set_back_is_believed_when_it_was_silent_for_long() -> None:
    case, task = runs_on_its_node(under_the_next_leader=True)
    set_back = NodeConnected("hello", "newest", hello(1, "next boot", 99.0))
    assert refused(case, set_back)
    case.cluster.nodes[1].heard_at -= BELIEVED_AGAIN_S
    case.step(set_back)
    assert case.cluster.nodes[1].session == "newest"
    assert case.cluster.elements[K(task, -1)].state is not State.RUNNING


def test_a_node_that_tells_no_clock_is_believed_at_once() -> None:
    case, _ = runs_on_its_node(under_the_next_leader=True)
    case.step(NodeConnected("hello", "newest", hello(1, "next boot", 0.0)))
    assert case.cluster.nodes[1].session == "newest"


def test_a_lost_node_comes_back_with_a_hello_although_its_session_lives() -> None:
    case = Case()
    node = case.node(cpus=1)
    view = case.cluster.nodes[node]
    session = view.session
    case.take()
    turn = Turn(case.cluster, case.now, "heartbeats")
    on_node_lost(turn, view)
    (answer,) = turn.finish()
    assert isinstance(answer, ToSession)
    assert (answer.session, answer.close, view.session) == (session, True, None)


# ---------------------------------------------------------------- the loop around it


class Leader:
    """A scheduler over a memory store, driven turn by turn."""

    def __init__(self, store: MemoryStore) -> None:
        self.now = 1000.0
        self.store, self.bus = store, MemoryBus()
        self.scheduler = Scheduler(store, self.bus, Clock(lambda: self.now, lambda: self.now), Policy, "test")

    async def connect(self) -> None:
        hello = Hello(version=1, software="0", name="n1", node=None, boot_id="b", resources={"cpu": 1000}, labels={})
        await self.scheduler.run_once([NodeConnected("hello", "s-1", hello)])


async def test_a_hint_that_is_later_than_the_poll_does_not_bring_an_ended_task_back() -> None:
    store = MemoryStore(lambda: 1000.0)
    leader = Leader(store)
    await leader.scheduler.start()
    new = NewTask(uuid="u", project="p", user="u", spec=TaskSpec(name="t"))
    await store.task_insert_many([Submission([new])])
    hint = await store.task_list_submitted(10)
    await leader.scheduler.run_once([])
    assert list(leader.scheduler.cluster.tasks) == [1]
    cancel = await store.command_insert_many([NewCommand(verb="cancel", user="u", task=1)])
    await leader.scheduler.run_once([CommandsTaken("hint", cancel)])
    await leader.scheduler.run_once([TasksTaken("late", hint)])
    assert not leader.scheduler.cluster.tasks
    (task,) = await store.task_get_many([1])
    assert task.state is State.CANCELLED


async def test_what_is_more_than_a_page_is_looked_for_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "PAGE", 2)
    store = MemoryStore(lambda: 1000.0)
    leader = Leader(store)
    await leader.scheduler.start()
    await store.task_insert_many(
        [Submission([NewTask(uuid=f"u{n}", project="p", user="u", spec=TaskSpec(name="t"))]) for n in range(5)]
    )
    for _ in range(3):
        await leader.scheduler.run_once([])
    assert leader.scheduler._patience() > 0
    await store.command_insert_many([NewCommand(verb="cancel", user="u", task=task) for task in (1, 2, 3, 4, 5)])
    leader.now += 10.0
    for _ in range(3):
        await leader.scheduler.run_once([])
    assert {t.state for t in await store.task_get_many([1, 2, 3, 4, 5])} == {State.CANCELLED}
    assert not await store.command_list_open(10)
    assert leader.scheduler._patience() > 0


class SilentStore(MemoryStore):
    """Once it writes and does not say so."""

    silent = False

    async def leader_commit(self, leadership, changes):  # type: ignore[no-untyped-def]
        await super().leader_commit(leadership, changes)
        if self.silent:
            self.silent = False
            raise StoreUnavailable("the answer is lost")


async def test_sessions_begin_anew_after_a_commit_without_an_answer() -> None:
    store = SilentStore(lambda: 1000.0)
    leader = Leader(store)
    await leader.scheduler.start()
    await leader.connect()
    new = NewTask(uuid="u", project="p", user="u", spec=TaskSpec(name="t", resources={"cpu": 500}))
    await store.task_insert_many([Submission([new])])
    store.silent = True
    leader.now += 10.0
    with pytest.raises(StoreUnavailable):
        await leader.scheduler.run_once([])
    await leader.scheduler.rebuild()
    assert leader.scheduler.cluster.nodes[1].session is None
    outbox = leader.bus.sessions()
    said = [await anext(outbox), await anext(outbox)]
    assert isinstance(said[0].message, Welcome)  # type: ignore[union-attr]
    assert isinstance(said[1].message, Refused)  # type: ignore[union-attr]
    assert said[1].close  # type: ignore[union-attr]


async def test_who_was_silent_while_the_leader_stood_still_gets_the_whole_window_again() -> None:
    clock = [1000.0]
    leader = Leader(MemoryStore(lambda: clock[0]))
    await leader.scheduler.start()
    await leader.connect()
    leader.now = clock[0] = 1060.0  # a database that hangs, a server that is stopped, or a clock that jumps
    await leader.scheduler.run_once([])
    view = leader.scheduler.cluster.nodes[1]
    assert (view.node.state, view.heard_at) == (NodeState.READY, leader.now)
    for _ in range(21):
        leader.now = clock[0] = leader.now + 1.0
        await leader.scheduler.run_once([])
    assert view.node.state is NodeState.LOST


async def test_a_heartbeat_is_answered_only_after_the_lease_was_renewed() -> None:
    store = MemoryStore(lambda: 1000.0)
    leader = Leader(store)
    leader.scheduler.lease_s = 10.0
    await leader.scheduler.start()
    await leader.connect()
    outbox = leader.bus.sessions()
    assert isinstance((await anext(outbox)).message, Welcome)  # type: ignore[union-attr]
    await leader.scheduler.run_once([NodesSeen("seen", {1: {}}, {}, {1: 77})])
    waiting: asyncio.Future[object] = asyncio.ensure_future(anext(leader.bus.sessions()))
    await asyncio.sleep(0)
    assert not waiting.done(), "nobody knows yet whether another one leads"
    leader.now += 2.0
    await leader.scheduler.run_once([])
    item = await waiting
    assert isinstance(item, ToNode)
    assert item.message == Seen(beat=77)


async def test_a_heartbeat_that_a_lead_left_unanswered_is_not_answered_in_the_next() -> None:
    """The node has asked others since, and asks again."""
    clock = [1000.0]
    store = MemoryStore(lambda: clock[0])
    leader = Leader(store)
    leader.scheduler.lease_s = 10.0
    await leader.scheduler.start()
    await leader.connect()
    await leader.scheduler.run_once([NodesSeen("seen", {1: {}}, {}, {1: 77})])
    leader.now = clock[0] = 1020.0
    await store.leadership_acquire("another", 10.0)
    with pytest.raises(StaleEpoch):
        await leader.scheduler.run_once([NodesSeen("seen", {1: {}}, {}, {1: 78})])
    leader.now = clock[0] = 1040.0
    await leader.scheduler.start()
    leader.now = clock[0] = 1042.0
    await leader.scheduler.run_once([])
    leader.bus.dispatch([AckFrame("s-1", 1, 99, "the last")])
    said = []
    async for item in leader.bus.sessions():
        if isinstance(item, AckFrame):
            break
        said.append(item.message)
    assert said
    assert not any(isinstance(message, Seen) for message in said)


async def test_a_node_that_is_not_fit_takes_nothing_until_it_is() -> None:
    """Although it took something before, and looks as it did then."""
    clock = [1000.0]
    leader = Leader(MemoryStore(lambda: clock[0]))
    await leader.scheduler.start()
    await leader.connect()
    placed = leader.scheduler.cluster.nodes[1].placed
    for number, unfit in ((1, ""), (1, "health check exited with 1"), (3, "")):
        await leader.scheduler.run_once([NodesSeen("seen", {1: {"load1": 1.0}}, unfit={1: unfit} if unfit else {})])
        new = NewTask(uuid=f"u{unfit}{number}", project="p", user="u", spec=TaskSpec(name="t", resources={"cpu": 100}))
        await leader.store.task_insert_many([Submission([new])])
        leader.now = clock[0] = leader.now + 3.0
        await leader.scheduler.run_once([NodesSeen("seen", {1: {"load1": 1.0}}, unfit={1: unfit} if unfit else {})])
        assert len(placed) == number


async def test_others_are_heard_while_many_new_tasks_are_taken_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "TAKEN_AT_ONCE", 10)
    store = MemoryStore(lambda: 1000.0)
    leader = Leader(store)
    await leader.scheduler.start()
    news = [NewTask(uuid=f"u{n}", project="p", user="u", spec=TaskSpec(name="t")) for n in range(35)]
    await store.task_insert_many([Submission([new]) for new in news])
    seen = set()

    async def watch() -> None:
        while True:
            seen.add(len(leader.scheduler.cluster.tasks))
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    await leader.scheduler.run_once([])
    watching.cancel()
    assert seen >= {10, 20, 30}
    assert len(leader.scheduler.cluster.queue) == 35
