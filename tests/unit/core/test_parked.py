"""A task that is kept small is the same task to everybody who asks it something."""

import pickle

import pytest

from jarvis.core.parked import ParkedTask, parked, plain, queue_of, unpark
from jarvis.core.states import State
from jarvis.core.task import Task, TaskSpec

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


def test_it_travels() -> None:
    again = pickle.loads(pickle.dumps(parked(made())))
    assert isinstance(again, ParkedTask)
    assert again.spec == SPEC
    assert again.state is State.QUEUED
