"""The checks that judge everything else are right themselves: each bites."""

from typing import TYPE_CHECKING

import pytest

from jarvis.core import invariants
from jarvis.core.attempt import Attempt, Placement, Rank
from jarvis.core.ids import ElementKey
from jarvis.core.invariants import InvariantBroken
from jarvis.core.node import Node
from jarvis.core.permissions import Principal, allowed
from jarvis.core.states import Cause, State
from jarvis.core.task import ArraySpec, Element, Task, TaskSpec

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = ElementKey(1)


def task(state: State = State.RUNNING, **fields: object) -> Task:
    spec = TaskSpec(name="t", command=("true",), array=fields.pop("array", None))  # type: ignore[arg-type]
    return Task(id=1, uuid="u", project="p", user="u", spec=spec, state=state, submitted_at=0.0, **fields)  # type: ignore[arg-type]


def element(state: State = State.RUNNING, token: int = 7) -> Element:
    return Element(task=1, index=-1, state=state, attempt=1, token=token)


def attempt(token: int = 7) -> Attempt:
    return Attempt(task=1, index=-1, attempt=1, token=token, node=1, number=1, assigned_at=0.0)


def node(**resources: int) -> Node:
    return Node(id=1, name="n", boot_id="b", resources=resources)


def test_what_is_right_passes() -> None:
    invariants.check_elements({1: task()}, {KEY: element()})
    invariants.check_attempts({KEY: element()}, {KEY: attempt()})
    invariants.check_node(node(cpu=2000), {"cpu": 1500}, [{"cpu": 500}, {"cpu": 1000}])
    counts = {State.RUNNING: 1, State.SUCCEEDED: 1}
    array = task(counts=counts, array=ArraySpec(((0, 1, 1),)))
    invariants.check_elements({1: array}, {ElementKey(1, 0): element()})
    invariants.check_counts(array, [State.RUNNING, State.SUCCEEDED])


def test_what_is_wrong_is_named() -> None:
    array = ArraySpec(((0, 1, 1),))
    wrong: tuple[Callable[[], None], ...] = (
        lambda: invariants.check_elements({}, {KEY: element()}),
        lambda: invariants.check_elements({1: task()}, {KEY: element(State.SUCCEEDED)}),
        lambda: invariants.check_elements({1: task(State.QUEUED)}, {KEY: element()}),
        lambda: invariants.check_elements({1: task(counts={State.RUNNING: 1}, array=array)}, {}),
        lambda: invariants.check_elements({1: task(counts={State.QUEUED: 2}, array=array)}, {}),
        lambda: invariants.check_counts(task(counts={State.QUEUED: 1}), [State.RUNNING]),
        lambda: invariants.check_attempts({}, {KEY: attempt()}),
        lambda: invariants.check_attempts({KEY: element(State.QUEUED)}, {KEY: attempt()}),
        lambda: invariants.check_attempts({KEY: element(token=8)}, {KEY: attempt()}),
        lambda: invariants.check_attempts({KEY: element()}, {}),
        lambda: invariants.check_node(node(cpu=2000), {"cpu": 1}, [{"cpu": 500}]),
        lambda: invariants.check_node(node(cpu=400), {"cpu": 500}, [{"cpu": 500}]),
    )
    for check in wrong:
        with pytest.raises(InvariantBroken):
            check()


@pytest.mark.parametrize(("role", "access", "project", "owner", "may"), [
    ("admin", "operate", None, None, True), ("node", "agent", None, None, True), ("node", "read", "red", None, False),
    ("user", "see", None, None, True), ("user", "operate", None, None, False), ("user", "agent", None, None, False),
    ("user", "read", "red", None, True), ("user", "read", "blue", None, False), ("user", "act", "red", "ann", True),
    ("user", "act", "red", "bob", False), ("task", "submit", "red", None, True),
])  # fmt: skip
def test_who_may_do_what(role: str, access: str, project: str | None, owner: str | None, may: bool) -> None:
    ann = Principal("ann", role, ("red",))  # type: ignore[arg-type]
    assert allowed(ann, access, project, owner) is may  # type: ignore[arg-type]


def test_whose_tasks_are_seen() -> None:
    assert Principal("a", "admin").projects_seen is None
    assert Principal("a", "user", ("*",)).projects_seen is None
    assert Principal("a", "user", ("red",)).projects_seen == frozenset({"red"})
    assert Principal("a", "node", ("red",)).projects_seen == frozenset()


def gang(*ranks: Rank, placed: int = 2, number: int = 1) -> Attempt:
    places = tuple(Placement(at, at + 1, {}) for at in range(placed))
    return Attempt(
        task=1, index=-1, attempt=1, token=7, node=1, number=number, assigned_at=0.0, ranks=ranks, placements=places
    )


def check_gang(made: Attempt, state: State = State.RUNNING) -> None:
    spec = TaskSpec(name="t", command=("true",), nodes=2)
    whole = Task(id=1, uuid="u", project="p", user="u", spec=spec, state=state, submitted_at=0.0)
    invariants.check_gangs({1: whole}, {KEY: element(state)}, {KEY: made})


def test_a_gang_is_whole() -> None:
    first, second = Rank(node=1, number=1), Rank(node=2, number=4)
    well, ill = (
        Rank(node=2, number=4, cause=Cause.EXIT, exit_code=0),
        Rank(node=2, number=4, cause=Cause.EXIT, exit_code=1),
    )
    begun = Rank(node=2, number=4, started_at=1.0)
    for made, state in (
        (gang(first, second), State.ASSIGNED),
        (gang(first, begun), State.RUNNING),
        (gang(first, well), State.RUNNING),
        (gang(first, ill), State.CANCELLING),
    ):
        check_gang(made, state)
    for made, state in (
        (gang(first), State.RUNNING),
        (gang(first, Rank(node=1, number=2)), State.RUNNING),
        (gang(first, second, placed=1), State.RUNNING),
        (gang(first, second, number=9), State.RUNNING),
        (gang(Rank(node=1, number=1, cause=Cause.EXIT, exit_code=0), well), State.RUNNING),
        (gang(first, ill), State.RUNNING),
        (gang(first, begun), State.ASSIGNED),
    ):
        with pytest.raises(InvariantBroken):
            check_gang(made, state)
