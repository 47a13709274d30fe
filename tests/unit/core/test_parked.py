"""A task that is kept small is the same task to everybody who asks it something."""

import pickle

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jarvis.core.parked import ParkedTask, parked, plain, queue_of, unpark
from jarvis.core.states import State
from jarvis.core.task import Constraint, Dependency, Task, TaskSpec

words, seconds, idents = st.text(max_size=8), st.floats(0, 1e9), st.integers(1, 2**53)
specs = st.builds(
    TaskSpec, name=words, command=st.none() | words | st.lists(words, max_size=3).map(tuple),
    resources=st.dictionaries(words, idents, max_size=3), queue=words, priority=st.integers(-(10**6), 10**6),
    after=st.lists(st.builds(Dependency, st.just("afterok"), idents), max_size=2).map(tuple), begin=st.none() | seconds,
    constraints=st.lists(st.builds(Constraint, words, st.just("="), words), max_size=2).map(tuple), time_limit=st.none() | seconds,
    licenses=st.dictionaries(words, st.integers(1, 9), max_size=2), env=st.dictionaries(words, words, max_size=2),
)  # fmt: skip
tasks = st.builds(
    Task, id=idents, uuid=words, project=words, user=words, spec=specs, state=st.just(State.QUEUED), submitted_at=seconds,
    reason=words, retry_of=st.none() | idents,
)  # fmt: skip
SPEC = TaskSpec(name="t", command=("true", "x"), resources={"cpu": 2000}, queue="long", licenses={"a": 1})


def made() -> Task:
    return Task(id=7, uuid="u", project="p", user="a", spec=SPEC, state=State.QUEUED, submitted_at=1.5, retry_of=3)


def test_nothing_is_told_apart_but_the_size() -> None:
    task, small = made(), parked(made())
    for name in Task.__struct_fields__:
        assert getattr(small, name) == getattr(task, name), name
    assert small.size == 1
    assert small.key_at(0) == task.key_at(0)
    assert queue_of(small) == queue_of(task) == "long"
    with pytest.raises(AttributeError, match="colour"):
        _ = small.colour


def test_the_spec_stays_packed_until_it_is_unparked() -> None:
    small, other = parked(made()), parked(made())
    assert small.packed is other.packed, "tasks that are alike share it"
    assert small.spec is other.spec, "as long as few are asked for"
    with pytest.raises(AttributeError):
        object.__getattribute__(small, "spec")
    unpark(small)
    assert object.__getattribute__(small, "spec") == SPEC


def test_others_are_told_a_plain_one() -> None:
    task = made()
    assert plain(task) is task
    assert plain(parked(task)) == task


@given(tasks, st.sampled_from(State), words, st.booleans())
def test_it_is_the_same_task_whatever_becomes_of_it(task: Task, state: State, reason: str, at_hand: bool) -> None:
    small = parked(task)
    if at_hand:
        unpark(small)
    for either in (task, small):
        either.state, either.reason, either.started_at = state, reason, 2.5
    told = plain(small)
    assert type(told) is Task
    assert told == task
    assert msgspec.msgpack.encode(told) == msgspec.msgpack.encode(task)
    assert plain(parked(small)) == task


def test_it_travels() -> None:
    again = pickle.loads(pickle.dumps(parked(made())))
    assert isinstance(again, ParkedTask)
    assert again.spec == SPEC
    assert again.state is State.QUEUED
