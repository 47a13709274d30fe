"""Identifiers that people type, and the indices of arrays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jarvis.core.errors import CursorTooOld, IdempotencyConflict, InvalidTransition, InvalidValue, NotFound
from jarvis.core.ids import MAX_ATTEMPT, ElementKey, fencing_token, parse_element
from jarvis.core.states import State, check_transition, rollup
from jarvis.core.task import ArraySpec, FunctionCall, TaskSpec, parse_array


@pytest.mark.parametrize(
    ("text", "key"), [("42", ElementKey(42)), ("42_7", ElementKey(42, 7)), ("0_0", ElementKey(0, 0))]
)
def test_elements_are_read_and_written(text: str, key: ElementKey) -> None:
    assert parse_element(text) == key
    assert str(key) == text


@pytest.mark.parametrize("text", ["", "x", "_7", "4_", "4_x", "-1", "4_7_1", "٣", "1 "])
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_element(text)


def test_tokens_grow_with_attempts_and_lives() -> None:
    tokens = [fencing_token(i, a) for i in (1, 2, 59_000_000) for a in (1, 2, MAX_ATTEMPT)]
    assert tokens == sorted(set(tokens))
    assert tokens[-1] < 2**53
    for attempt in (0, MAX_ATTEMPT + 1):
        with pytest.raises(InvalidValue):
            fencing_token(1, attempt)


@pytest.mark.parametrize(("text", "indices", "throttle"), [
    ("0-3", [0, 1, 2, 3], None), ("1,3,5-7", [1, 3, 5, 6, 7], None), ("0-9:3%2", [0, 3, 6, 9], 2), ("7", [7], None),
])  # fmt: skip
def test_arrays(text: str, indices: list[int], throttle: int | None) -> None:
    array = parse_array(text)
    assert [array.index_at(p) for p in range(array.count)] == indices
    assert array.throttle == throttle


@pytest.mark.parametrize(
    "text", ["", "x", "3-1", "0-9:0", "1,1", "5-7,6", "0-1000000", "0-9%0", "0-9%x", "-1", "0-3%", "0--3"]
)
def test_what_is_no_array_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_array(text)


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 30), st.integers(1, 7)), min_size=1, max_size=5),
    st.integers(-5, 400),
)
def test_positions_and_indices_are_inverse(parts: list[tuple[int, int, int]], other: int) -> None:
    ranges, start = [], 0
    for gap, length, step in parts:
        ranges.append((start + gap, start + gap + length, step))
        start = ranges[-1][1] + 1
    array = ArraySpec(tuple(ranges))
    indices = [array.index_at(p) for p in range(array.count)]
    assert indices == [i for first, last, step in ranges for i in range(first, last + 1, step)]
    assert [array.position_of(i) for i in indices] == list(range(array.count))
    for position, count in ((0, array.count), (1, 3), (array.count // 2, array.count), (array.count, 1), (0, 0)):
        assert array.indices(position, count) == indices[position : position + count]
    assert (array.position_of(other) is not None) == (other in indices)
    for position in (-1, array.count):
        with pytest.raises(IndexError):
            array.index_at(position)


def test_a_task_names_the_bodies_that_it_needs() -> None:
    call = FunctionCall(code="c", python="3.12", args_digest="a")
    assert TaskSpec(name="f", function=call).bodies == {"function.code": "c", "function.args_digest": "a"}
    array = ArraySpec(((0, 1, 1),), entries="e")
    assert TaskSpec(name="s", script="s", array=array).bodies == {"script": "s", "entries": "e"}
    assert TaskSpec(name="p", command=("true",)).bodies == {}


def test_transitions_and_rollup() -> None:
    check_transition("task 1", State.QUEUED, State.ASSIGNED, "c")
    with pytest.raises(InvalidTransition) as refused:
        check_transition("task 1", State.SUCCEEDED, State.RUNNING, "c")
    assert refused.value.entity == "task 1"
    assert rollup({State.SUCCEEDED: 3, State.RUNNING: 1}) is State.RUNNING
    assert rollup({State.SUCCEEDED: 3, State.FAILED: 1, State.CANCELLED: 1}) is State.FAILED
    with pytest.raises(ValueError, match="at least one"):
        rollup({})


def test_a_conflict_of_keys_says_what_to_do() -> None:
    assert "new key" in IdempotencyConflict("k").hint


def test_errors_name_what_they_are_about() -> None:
    assert (NotFound("task", 7).kind, str(NotFound("task", 7))) == ("task", "no task 7")
    assert CursorTooOld("5.9").hint == "start again from after=5.9"
