"""Maintenance and reservations: nothing starts that may run into a time which is not its own; they begin and end by themselves."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.scheduler.harness import Case
from tests.unit.scheduler.test_affinity import nodes_of
from tests.unit.scheduler.test_licenses import taken_over, words

from jarvis.core.booking import Booking
from jarvis.core.command import Command, NewCommand
from jarvis.core.ids import ElementKey
from jarvis.core.inputs import CommandsTaken
from jarvis.core.states import State
from jarvis.core.task import ADDRESS_LABEL, TaskSpec
from jarvis.scheduler.bookings import booking_args, load
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.explain import why
from jarvis.scheduler.policy.backfill import BACKFILLS, Backfill
from jarvis.scheduler.whatif import plan_task


def book(case: Case, nodes: str, begin: float, seconds: float, ident: int = 900, **more: Any) -> str:
    """From so many seconds from now on."""
    at = case.now + begin
    booking = Booking(id=0, nodes=tuple(nodes.split(",")), begin=at, end=at + seconds, **more)
    body = NewCommand(verb="booking_add", user="admin", admin=True, project=booking.project, args=booking_args(booking))
    case.step(CommandsTaken("book", [Command(id=ident, at=case.now, body=body)]))
    return case.outcomes[ident]


def events(case: Case) -> list[str]:
    kinds = [event.kind for turn in case.turns for event in turn.changes.events]
    return [kind for kind in kinds if kind.startswith(("maintenance", "reservation"))]


def reasons(case: Case, task: int) -> list[tuple[str, str]]:
    return words(why(case.cluster, ElementKey(task), case.now, case.policy))


@pytest.mark.parametrize("backfill", BACKFILLS)
def test_what_may_run_into_it_does_not_start_and_what_is_shorter_does(backfill: str) -> None:
    case = Case(Policy(backfill=Backfill(backfill)))
    case.node(cpus=8)
    book(case, "n1", 100, 50, reason="new disks")
    case.submit(time_limit=101.0)
    case.submit()
    case.submit(time_limit=100.0)
    assert nodes_of(case) == {"n1": [3]}
    assert reasons(case, 1)[0] == (
        "ReqNodeNotAvail",
        "1 of 1 nodes: is to be under maintenance until 1970-01-01 00:19:10 UTC (new disks), from 1970-01-01 00:18:20 UTC on: "
        "in 100 s, and it may take 101 s",
    )
    case.wait(100)
    assert nodes_of(case) == {"n1": [3]}, "what runs goes on"
    assert reasons(case, 1) == [
        ("ReqNodeNotAvail", "1 of 1 nodes: is under maintenance until 1970-01-01 00:19:10 UTC (new disks)")
    ]
    assert (case.tasks[3].state, case.cluster.nodes[1].node.draining) == (State.ASSIGNED, False)
    case.wait(50)
    assert nodes_of(case) == {"n1": [1, 2, 3]}
    assert events(case) == ["maintenance.set", "maintenance.begun", "maintenance.ended"]


def test_a_start_after_a_maintenance_is_expected_at_its_end() -> None:
    case = Case(Policy(backfill=Backfill("easy")))
    for name, cpus in (("n1", 8), ("small", 1), ("n3", 8)):
        case.node(name, cpus=cpus, labels={ADDRESS_LABEL: name})
    task = TaskSpec(name="t", resources={"cpu": 8000}, time_limit=10.0)

    def starts(spec: TaskSpec) -> float | None:
        told = plan_task(case.cluster, case.policy, spec, ("p", "u"), case.now)
        return None if told["earliest"] is None else told["earliest"] - case.now

    book(case, "small", 0, 20, ident=900)
    book(case, "n1", 0, 50, ident=901)
    book(case, "n3", 0, 90, ident=902)
    book(case, "n1", 55, 40, ident=903)
    waiting = case.submit(cpus=8, time_limit=4.0)
    expected = why(case.cluster, ElementKey(waiting), case.now, case.policy)
    assert expected is not None and expected["expected"] == {"earliest_s": 50.0, "latest_s": 50.0}
    assert starts(TaskSpec(name="t", resources={"cpu": 1000}, time_limit=10.0)) == 20.0
    assert starts(TaskSpec(name="t", resources={"cpu": 8000}, time_limit=10.0, nodes=2)) == 95.0
    assert starts(task) == 90.0, "n1 is booked again too soon for it"
    case.wait(50)
    case.expect(waiting, "assigned")


def test_other_nodes_take_it_and_what_had_not_started_leaves() -> None:
    case = Case()
    case.node(cpus=2)
    case.node(cpus=2)
    case.submit(cpus=2, time_limit=10.0)
    case.submit(cpus=2, time_limit=1000.0)
    case.started(1)
    case.take()
    assert book(case, "n1,n2", 5, 10) == ""
    case.wait(5)
    assert case.recalls() == [case.attempt(2).number]
    case.returned(2)
    assert case.state(2) is State.QUEUED


def test_a_reservation_is_for_its_owner_alone() -> None:
    case = Case()
    case.node(cpus=8)
    book(case, "n1", 10, 100, project="p", user="u")
    case.submit_as("q", "v", 1, {"cpu": 1000}, time_limit=60.0)
    case.submit_as("q", "v", 1, {"cpu": 1000}, time_limit=10.0)
    case.submit_as("p", "w", 1, {"cpu": 1000}, time_limit=60.0)
    case.submit_as("p", "u", 1, {"cpu": 1000}, time_limit=60.0)
    assert nodes_of(case) == {"n1": [2, 4]}
    case.wait(20)
    assert reasons(case, 1) == [
        ("ReqNodeNotAvail", "1 of 1 nodes: is reserved for user u until 1970-01-01 00:18:30 UTC")
    ]
    case.submit_as("p", "u", 1, {"cpu": 1000})
    assert nodes_of(case) == {"n1": [2, 4, 5]}
    spec = TaskSpec(name="t", resources={"cpu": 1000})
    assert plan_task(case.cluster, case.policy, spec, ("p", "u"), case.now)["verdict"] == "now"
    told = plan_task(case.cluster, case.policy, spec, ("q", "v"), case.now)
    assert (told["verdict"], told["earliest"]) == ("wait", case.now + 90)
    case.command("booking_remove", booking=900)
    assert nodes_of(case) == {"n1": [1, 2, 3, 4, 5]}
    assert case.command("booking_remove", booking=900) == "it has ended already"
    assert events(case) == ["reservation.set", "reservation.begun", "reservation.removed"]


@pytest.mark.parametrize("backfill", ["none", "skip"])
def test_who_may_not_use_a_reservation_holds_up_nobody(backfill: str) -> None:
    case = Case(Policy(backfill=Backfill(backfill)))
    case.node(cpus=8)
    book(case, "n1", 0, 100, project="p")
    case.submit_as("q", "v", 2, {"cpu": 1000})
    case.submit_as("p", "u", 1, {"cpu": 1000})
    assert nodes_of(case) == {"n1": [3]}


def test_a_limit_that_ends_before_is_what_would_do() -> None:
    case = Case()
    case.node()
    book(case, "n1", 100, 50)
    case.submit(time_limit=500.0)
    told = why(case.cluster, ElementKey(1), case.now, case.policy)
    assert told is not None
    assert told["changes"] == ["with a time limit of 99 s it starts now on n1"]
    assert told["expected"]["earliest_s"] == 150.0


def test_a_node_that_comes_in_the_middle_is_under_maintenance_too() -> None:
    case = Case()
    case.node()
    book(case, "n1,n2", 0, 50)
    case.node("n2")
    case.submit(time_limit=1.0)
    assert nodes_of(case) == {}
    case.wait(50)
    assert len(nodes_of(case)) == 1
    assert book(case, "n1", -60, 50, ident=901) == "its end has passed"


_booking = st.tuples(st.integers(1, 3), st.integers(0, 60), st.integers(1, 60), st.sampled_from(["", "p", "q"]))
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("book"), _booking),
        st.tuples(st.just("submit"), st.tuples(st.sampled_from("pq"), st.sampled_from([5.0, 30.0, 90.0, None]))),
        st.tuples(st.just("wait"), st.integers(1, 40)), st.tuples(st.just("end"), st.integers(0, 9)),
        st.tuples(st.just("lead"), st.just(0)),
    ),
    max_size=20,
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(_steps, st.sampled_from(BACKFILLS), st.sampled_from(["least_loaded", "spread", "best_fit"]))
def test_nothing_starts_that_may_run_into_a_time_of_others(
    steps: list[tuple[str, Any]], backfill: str, balancer: str
) -> None:
    case = Case(Policy(backfill=Backfill(backfill), balancer=balancer))
    for _ in range(3):
        case.node(cpus=3)
    seen: set[ElementKey] = set()
    for count, (what, detail) in enumerate(steps):
        live = sorted(case.cluster.attempts)
        if what == "book":
            book(case, f"n{detail[0]}", detail[1], detail[2], ident=1000 + count, project=detail[3])
        elif what == "submit":
            case.submit_as(detail[0], "u", 1, {"cpu": 1000}, time_limit=detail[1])
        elif what == "wait":
            case.wait(detail)
        elif what == "lead":
            bookings = list(case.cluster.bookings.values())
            taken_over(case)
            load(case.cluster, bookings)
            case.step()
        elif live:
            case.ends(live[detail % len(live)])
        _check_new(case, seen)
    case.wait(200)
    assert not case.cluster.bookings
    assert not any(view.closed for view in case.cluster.nodes.values())
    for key in sorted(case.cluster.attempts):
        case.ends(key)
    while case.cluster.attempts:
        case.ends(next(iter(case.cluster.attempts)))
    assert not case.cluster.tasks


def _check_new(case: Case, seen: set[ElementKey]) -> None:
    for key, attempt in case.cluster.attempts.items():
        if key in seen or attempt.assigned_at != case.now:
            continue
        seen.add(key)
        task = case.cluster.tasks[key.task]
        ends = case.now + (task.spec.time_limit or 3600.0)
        name = case.cluster.nodes[attempt.node].node.name
        for booking in case.cluster.bookings.values():
            foreign = name in booking.nodes and booking.project != task.project
            assert not foreign or booking.end <= case.now or booking.begin >= ends or booking.begin == case.now, booking
