"""Specs that are read once must say what each of them says when it is read by itself."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jarvis.core.task import FunctionCall, StepInput, TaskSpec
from jarvis.worker.alike_specs import SpecReader

pack = msgspec.msgpack.Encoder().encode


def call(args: bytes | None, code: str = "c", **more: Any) -> TaskSpec:
    return TaskSpec(name="f", function=FunctionCall(code, "3.11", args=args), **more)


def says(read: tuple[TaskSpec, bytes | None]) -> TaskSpec:
    spec, args = read
    if spec.function is None or args is None:
        return spec
    return msgspec.structs.replace(spec, function=msgspec.structs.replace(spec.function, args=args))


def test_calls_that_differ_in_their_arguments_alone_share_a_spec() -> None:
    reader = SpecReader()
    read = [reader.read(pack(call(args))) for args in (b"a", b"", b"x" * 70_000, b"args")]
    assert [args for _, args in read] == [b"a", b"", b"x" * 70_000, b"args"]
    assert len({id(spec) for spec, _ in read}) == 1
    assert read[0][0] == call(b""), "of nobody's arguments"


def test_elements_of_an_array_share_a_spec() -> None:
    reader = SpecReader()
    one, other = TaskSpec(name="t", command=("true",)), TaskSpec(name="t", command=("false",))
    read = [reader.read(pack(spec)) for spec in (one, one, call(b"a"), one, other, one)]
    assert [spec for spec, _ in read] == [one, one, call(b""), one, other, one]
    assert read[0][0] is read[1][0] is read[3][0]


@given(
    st.lists(
        st.one_of(
            st.builds(call, st.binary(max_size=40), st.sampled_from("cd")),
            st.builds(call, st.binary(max_size=4), env=st.just({"X": "args\x00\x01"})),
            st.just(call(None)),
            st.builds(TaskSpec, name=st.sampled_from(["f", "g"]), command=st.just(("true",))),
        ),
        max_size=12,
    )
)
def test_each_says_what_it_says_alone(specs: list[TaskSpec]) -> None:
    reader = SpecReader()
    assert [says(reader.read(pack(spec))) for spec in specs] == specs


def test_arguments_that_are_found_elsewhere_too_are_read_in_full() -> None:
    def twice(args: bytes, other: bytes) -> TaskSpec:
        given = {"0": StepInput(None, pickled=(pack("args") + pack(other),))}
        return TaskSpec(name="f", function=FunctionCall("c", "3.11", args=args, inputs=given))

    specs = [twice(b"Z", b"Z"), twice(b"Y", b"Z"), twice(b"Z", b"Y"), twice(b"Y", b"Y")]
    reader = SpecReader()
    assert [says(reader.read(pack(spec))) for spec in specs] == specs


def test_what_lies_between_must_be_one_value() -> None:
    reader = SpecReader()
    whole = pack(call(b"ab"))
    reader.read(whole)
    with pytest.raises(msgspec.DecodeError):
        reader.read(whole.replace(pack(b"ab"), pack(b"a") + b"\x01"))
    with pytest.raises(msgspec.DecodeError):
        reader.read(b"\x93")
