"""The node's logic: every place an assignment can be in, times everything that can be said to it."""

import msgspec
import pytest

from jarvis.core.effects import Assignment, Gang
from jarvis.core.gpus import Share
from jarvis.core.inputs import Ended, Returned, Started
from jarvis.core.states import Cause, State
from jarvis.core.task import FunctionCall, TaskSpec
from jarvis.worker.machine import MAY_PASS, Deliver, Forget, Instruction, Kill, Machine, Say, Start, Withdraw, Work

TOTAL = {"cpu": 4000, "memory": 1000, "gpu": 2000}


def make(number: int, function: str | None = None, **resources: int) -> Assignment:
    call = None if function is None else FunctionCall(code="c", python="3.11", args=b"", environment=function)
    spec = TaskSpec(name="t", command=None if call else ("true",), function=call, resources=resources or {"cpu": 1000})
    raw = msgspec.Raw(msgspec.msgpack.encode(spec))
    return Assignment(number, 100 + number, 1, number, -1, "p", "u", raw)


def started(out: list[Instruction]) -> list[int]:
    return [item.work.number for item in out if isinstance(item, Start)]


def said(out: list[Instruction]) -> list[object]:
    return [item.message for item in out if isinstance(item, Say)]


def end(number: int, cause: Cause = Cause.EXIT) -> Ended:
    return Ended(number=number, token=100 + number, cause=cause)


class Case:
    """A machine with number 1 in each of its places (and 2 running, which the pipe belongs to)."""

    def __init__(self, place: str) -> None:
        self.machine = m = Machine({"cpu": 1000})
        if place == "waiting":
            m.assign([make(2), make(1)])
        elif place == "piped":
            m.assign([make(2, "f"), make(1, "f")])
            assert [w.number for w in m.ahead(m.active[2], 8)] == [1]
        elif place in {"starting", "running", "leaving", "ended", "settled"}:
            m.assign([make(1)])
        if place == "running":
            m.started(1)
        elif place == "leaving":
            m.vacated(1)
        elif place in {"ended", "settled"}:
            m.finished(end(1))
        if place == "settled":
            m.recorded([1], 0)

    @property
    def place(self) -> str:
        m = self.machine
        names = ("waiting", "piped", "active", "leaving", "ended")
        found = [name for name in names if 1 in getattr(m, name)]
        assert len(found) <= 1
        if found == ["active"]:
            return "running" if m.active[1].state is State.RUNNING else "starting"
        return found[0] if found else ("settled" if 1 in m.settled else "unknown")


PLACES = ("unknown", "waiting", "piped", "starting", "running", "leaving", "ended", "settled")


@pytest.mark.parametrize("place", PLACES)
def test_the_case_is_what_it_says(place: str) -> None:
    assert Case(place).place == place


@pytest.mark.parametrize("place", PLACES)
def test_assign(place: str) -> None:
    case = Case(place)
    out = case.machine.assign([make(1), make(1)])
    if place == "unknown":
        assert started(out) == [1]
    elif place == "settled":  # who assigns it did not hear that it was given back
        assert said(out) == [Returned(numbers=[1])] * 2 and case.place == place
    else:
        assert out == [] and case.place == place


@pytest.mark.parametrize(
    ("place", "answer", "after"),
    [
        ("unknown", "returned", "settled"),
        ("waiting", "returned", "settled"),
        ("piped", "withdraw", "piped"),
        ("starting", "", "starting"),
        ("running", "", "running"),
        ("leaving", "", "leaving"),
        ("ended", "", "ended"),
        ("settled", "", "settled"),
    ],
)
def test_recall(place: str, answer: str, after: str) -> None:
    case = Case(place)
    out = case.machine.recall([1])
    if answer == "returned":
        assert said(out) == [Returned(numbers=[1])]
    elif answer == "withdraw":
        assert [type(item) for item in out] == [Withdraw]
    else:
        assert out == []
    assert case.place == after
    assert said(case.machine.assign([make(1)])) == ([Returned(numbers=[1])] if after == "settled" else [])
    assert case.place == after


@pytest.mark.parametrize(
    ("place", "answer", "after"),
    [
        ("unknown", None, "unknown"),
        ("waiting", Say, "ended"),
        ("piped", Withdraw, "piped"),
        ("starting", Kill, "starting"),
        ("running", Kill, "running"),
        ("leaving", None, "leaving"),
        ("ended", Say, "ended"),
        ("settled", None, "settled"),
    ],
)
def test_stop(place: str, answer: type | None, after: str) -> None:
    case = Case(place)
    out = case.machine.stop(1, Cause.CANCELLED, 3.0)
    assert [type(item) for item in out] == ([answer] if answer else [])
    assert case.place == after
    if place == "waiting":
        (message,) = said(out)
        assert isinstance(message, Ended) and (message.cause, message.token) == (Cause.CANCELLED, 101)
    if answer is Kill:
        assert isinstance(out[0], Kill) and (out[0].cause, out[0].grace_s) == (Cause.CANCELLED, 3.0)


@pytest.mark.parametrize("place", PLACES)
def test_signal(place: str) -> None:
    out = Case(place).machine.signal(1, 10)
    assert [type(item) for item in out] == ([Deliver] if place in {"starting", "running"} else [])


@pytest.mark.parametrize("place", PLACES)
def test_started(place: str) -> None:
    case = Case(place)
    out = case.machine.started(1, 0.5)
    assert said(out) == ([Started(number=1, token=101, age=0.5)] if place == "starting" else [])


@pytest.mark.parametrize("place", PLACES)
def test_recorded(place: str) -> None:
    case = Case(place)
    out = case.machine.recorded([1], 0)
    assert [type(item) for item in out] == ([Forget] if place == "ended" else [])
    assert case.place == ("settled" if place in {"ended", "settled"} else place)


@pytest.mark.parametrize("place", PLACES)
def test_known(place: str) -> None:
    expected = {"waiting": "assigned", "piped": "assigned", "leaving": "running"}.get(place, place)
    known = {k.number: k.state for k in Case(place).machine.known()}
    assert known.get(1) == (None if place in {"unknown", "settled"} else expected)


@pytest.mark.parametrize("place", ["starting", "running", "leaving"])
def test_finished(place: str) -> None:
    case = Case(place)
    assert said(case.machine.finished(end(1))) == [end(1)]
    assert case.place == "ended" and case.machine.free == {"cpu": 1000}
    assert case.machine.finished(end(1, Cause.OOM)) == [], "the first end stays"
    assert case.machine.ended[1].cause is Cause.EXIT


@pytest.mark.parametrize(
    ("wish", "after"), [("none", "starting"), ("recall", "settled"), ("stop", "ended"), ("both", "ended")]
)
def test_what_is_withdrawn_goes_where_it_was_wished(wish: str, after: str) -> None:
    case = Case("piped")
    m = case.machine
    work = m.piped[1]
    if wish in {"recall", "both"}:
        m.recall([1])
    if wish in {"stop", "both"}:
        m.stop(1, Cause.CANCELLED, 1.0)
    m.withdrawn([work])
    m.finished(end(2))
    assert case.place == after


def test_an_heir_takes_over_and_a_stop_meets_it() -> None:
    case = Case("piped")
    m = case.machine
    m.stop(1, Cause.CANCELLED, 5.0)
    out = m.finished(end(2), heir=1)
    assert [type(item) for item in out] == [Say, Kill]
    assert case.place == "starting" and m.free == {"cpu": 0}
    m.finished(end(1))
    assert m.free == {"cpu": 1000}


def test_one_given_back_at_the_moment_it_was_due_starts_again() -> None:
    case = Case("piped")
    m = case.machine
    m.finished(end(2), heir=1)
    m.started(1)
    assert started(m.unbegun(1, None)) == [1]
    assert m.free == {"cpu": 0}


def test_a_new_session_says_every_end_again_and_ends_what_is_not_wanted() -> None:
    m = Machine(TOTAL)
    m.assign([make(n) for n in range(1, 7)])
    m.finished(end(1))
    m.finished(end(2))
    out = m.welcomed(forget=[1], stop=[3, 5], floor=2)
    assert [item.number for item in out if isinstance(item, Forget)] == [1]
    assert [item.work.number for item in out if isinstance(item, Kill)] == [3, 5]
    assert said(out) == [end(2)]
    assert m.floor == 2 and said(m.assign([make(1)])) == [Returned(numbers=[1])]


def test_order_and_passing() -> None:
    m = Machine({"cpu": 4000})
    assert started(m.assign([make(1, cpu=3000), make(2, cpu=2000), make(3, cpu=1000), make(4, cpu=1000)])) == [1, 3]
    assert started(m.finished(end(3))) == [4]
    assert started(m.finished(end(1))) == [2]


def test_a_large_one_is_not_passed_for_ever() -> None:
    m = Machine({"cpu": 2000})
    m.assign([make(1), make(2, cpu=2000)])
    number, passed = 3, 0
    while passed <= MAY_PASS and started(m.assign([make(number)])):
        passed += 1
        m.finished(end(number))
        number += 1
    assert passed == MAY_PASS
    assert started(m.finished(end(1))) == [2]


def test_gpus_by_index_and_in_shares() -> None:
    m = Machine(TOTAL)
    m.assign([make(1, gpu=500), make(2, gpu=1000), make(3, gpu=500), make(4, gpu=300)])
    assert {n: w.gpus for n, w in m.active.items()} == {1: (0,), 2: (1,), 3: (0,)}
    m.finished(end(2))
    assert m.active[4].gpus == (1,)
    assert started(m.assign([make(5, gpu=1000)])) == [], "half a GPU here and there is not a whole one"
    m.finished(end(1))
    assert started(m.finished(end(3))) == [5]
    assert m.active[5].gpus == (0,)


def test_gpus_by_memory() -> None:
    m = Machine({"cpu": 4000, "gpu": 2000, "gpu_memory": 32}, (24, 8))
    m.assign([make(1, gpu_memory=10), make(2, gpu_memory=8), make(3, gpu_memory=14), make(4, gpu_memory=1)])
    assert {n: (w.gpus, w.gpu_memory) for n, w in m.active.items()} == {
        1: ((0,), (10,)),
        2: ((1,), (8,)),
        3: ((0,), (14,)),
    }
    assert started(m.assign([make(5, gpu=1000)])) == []
    m.finished(end(2))
    assert m.active[4].gpus == (1,)
    (message,) = said(m.assign([make(6, gpu_memory=30)]))
    assert isinstance(message, Returned) and message.reason == "this node never has that much GPU memory on one GPU"
    m.finished(end(1))
    assert started(m.finished(end(3))) == [5], "a whole one again, when nobody has any of it"
    assert m.active[5].gpu_memory == (24,)


def test_what_never_fits_is_returned_with_a_reason() -> None:
    m = Machine(TOTAL)
    (message,) = said(m.assign([make(1, cpu=5000, licence=1)]))
    assert isinstance(message, Returned)
    assert message.numbers == [1] and message.reason == "this node never has that much cpu, licence"


def test_an_unreadable_spec_ends() -> None:
    bad = msgspec.structs.replace(make(1), spec=msgspec.Raw(b"\xc1"))
    (message,) = said(Machine(TOTAL).assign([bad]))
    assert isinstance(message, Ended) and message.cause is Cause.START_FAILED


def test_calls_ahead_are_of_the_same_lane_and_in_order() -> None:
    m = Machine({"cpu": 1000})
    m.assign([make(1, "f"), make(2, "f"), make(3, "g"), make(4, "f"), make(5, "f")])
    assert [w.number for w in m.ahead(m.active[1], 3)] == [2, 4, 5]
    assert sorted(m.waiting) == [3]
    m.withdrawn([m.piped[5], m.piped[2]])
    assert [w.number for w in m.ahead(m.active[1], 1)] == [2], "back at the front, in order"


def test_adoption_takes_resources() -> None:
    m = Machine(TOTAL)
    assigned = make(1, gpu=1000)
    spec = msgspec.msgpack.decode(assigned.spec, type=TaskSpec)
    m.adopt(Work(assigned, spec, (Share(0, 1000),)), "active")
    m.adopt(Work(make(2), spec), "leaving")
    assert started(m.assign([make(1), make(3, gpu=1000)])) == [3] and m.active[3].gpus == (1,)
    assert {k.number: k.state for k in m.known()} == {1: "running", 2: "running", 3: "starting"}


def fenced(number: int) -> Assignment:
    raw = msgspec.msgpack.encode(TaskSpec(name="t", command=("true",), resources={"cpu": 1000}, on_lost="fence"))
    return msgspec.structs.replace(make(number), spec=msgspec.Raw(raw))


def test_what_is_fenced_waits_for_the_leader_and_holds_up_nobody() -> None:
    machine = Machine({"cpu": 1000}, fence_open=False)
    assert started(machine.assign([fenced(1), make(2), make(3)])) == [2]
    assert machine.fenced
    assert [w.number for w in machine.ahead(machine.active[2], 8)] == [3], "nor is it handed ahead"
    machine.piped.clear()
    for number in range(10, 10 + 2 * MAY_PASS):
        assert not started(machine.assign([make(number)]))
        assert started(machine.finished(end(number - 1 if number > 10 else 2))) == [number], "it may be passed for ever"
    assert not started(machine.open_fence()), "there is no room"
    assert started(machine.finished(end(number))) == [1]


def test_a_rank_of_a_gang_follows_nobody() -> None:
    machine = Machine({"cpu": 1000})
    rank = msgspec.structs.replace(make(2), gang=Gang(1, ("a", "b"), 20001))
    machine.assign([make(1), rank, make(3)])
    assert [work.number for work in machine.ahead(machine.active[1], 8)] == [3]
    assert started(machine.finished(end(1))) == [2]
    assert machine.active[2].rank == 1
