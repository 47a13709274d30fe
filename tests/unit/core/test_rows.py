"""What rows tell of themselves beyond their fields."""

import msgspec
import pytest

from jarvis.core.attempt import Attempt, Rank
from jarvis.core.booking import Booking
from jarvis.core.changes import Changes
from jarvis.core.effects import Recorded
from jarvis.core.event import Event
from jarvis.core.ids import ElementKey
from jarvis.core.node import DEFAULT_WINDOWS, Node, NodeState
from jarvis.core.quota import Quota
from jarvis.core.resources import parse_byte_list, shortages
from jarvis.core.states import Cause, State
from jarvis.core.task import ArraySpec, Container, Element, FunctionCall, Task, TaskSpec


def task(**fields: object) -> Task:
    spec = TaskSpec(name="t", **fields)  # type: ignore[arg-type]
    return Task(id=3, uuid="u", project="p", user="u", spec=spec, submitted_at=0.0)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"command": ("true",)}, "process"),
        ({"container": Container(image="i")}, "container"),
        ({"function": FunctionCall(code="c", args=b"", python="3.11")}, "function"),
    ],
)
def test_a_task_is_of_one_kind(fields: dict[str, object], kind: str) -> None:
    assert task(**fields).spec.kind == kind


def test_a_gang_takes_its_resources_on_each_of_its_nodes() -> None:
    assert task(resources={"cpu": 500}).spec.whole == {"cpu": 500}
    assert task(resources={"cpu": 500}, nodes=3).spec.whole == {"cpu": 1500}


def test_elements_are_found_by_their_position() -> None:
    solo, array = task(), task(array=ArraySpec(((10, 20, 5),)))
    assert (solo.size, solo.key_at(0)) == (1, ElementKey(3))
    assert (array.size, array.key_at(2)) == (3, ElementKey(3, 20))
    assert Element(task=3, index=20, state=State.QUEUED).key == ElementKey(3, 20)


def test_an_attempt_is_where_its_ranks_are() -> None:
    attempt = Attempt(task=3, index=-1, attempt=1, token=7, node=4, number=1, assigned_at=0.0)
    ranks = (Rank(node=4, number=1), Rank(node=6, number=2, cause=Cause.EXIT, exit_code=0))
    gang = msgspec.structs.replace(attempt, ranks=ranks)
    assert (attempt.nodes, gang.nodes) == ((4,), (4, 6))
    assert [rank.went_well for rank in ranks] == [False, True]


def test_a_booking_admits_whose_it_is() -> None:
    upkeep = Booking(id=1, nodes=("a",), begin=0.0, end=9.0)
    project = Booking(id=2, nodes=("a",), begin=0.0, end=9.0, project="p")
    user = Booking(id=3, nodes=("a",), begin=0.0, end=9.0, user="u")
    assert [booking.kind for booking in (upkeep, project, user)] == ["maintenance", "reservation", "reservation"]
    assert [booking.admits("p", "u") for booking in (upkeep, project, user)] == [False, True, True]
    assert [booking.admits("q", "v") for booking in (upkeep, project, user)] == [False, False, False]


def test_a_turn_without_a_row_has_nothing_to_commit() -> None:
    assert not Changes()
    assert Changes(events=[Event(1, 0.0, "queued")])
    assert Changes(quotas={("p", ""): Quota(project="p")})
    assert Recorded(numbers=[1]).floor == 0


def test_a_node_takes_work_unless_something_is_said_against_it() -> None:
    assert Node(id=1, name="n").schedulable
    for node in (
        Node(id=1, name="n", state=NodeState.SUSPECT),
        Node(id=1, name="n", cordoned=True),
        Node(id=1, name="n", draining=True),
        Node(id=1, name="n", unfit="its disk is full"),
    ):
        assert not node.schedulable


def test_the_leader_waits_for_a_fence_a_quarter_longer_than_it_takes() -> None:
    assert (DEFAULT_WINDOWS.fence_s, DEFAULT_WINDOWS.grace_s) == (75.0, 5.0)
    assert DEFAULT_WINDOWS.superseded_s == 100.0


def test_what_is_missing_is_told_by_name() -> None:
    assert shortages({"cpu": 3, "gpu": 1, "memory": 5}, {"cpu": 1, "memory": 5}) == {"cpu": 2, "gpu": 1}


def test_what_a_node_could_hold_if_nothing_ran_there() -> None:
    node = Node(id=1, name="n", resources={"cpu": 2000, "gpu": 2000, "gpu_memory": 8 << 30})
    assert node.could_hold({"cpu": 2000, "gpu_memory": 4 << 30})
    assert not node.could_hold({"cpu": 3000})
    assert not node.could_hold({"gpu_memory": 5 << 30}), "no GPU has so much"
    assert parse_byte_list("24Gi, 1073741824") == (24 << 30, 1 << 30)
