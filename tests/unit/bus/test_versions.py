"""Versions of the wire protocol: which one is spoken, and frames of the version before, as they were recorded."""

import math
from collections.abc import Callable

import msgspec
import pytest

from jarvis.bus.messages import (
    OLDEST_VERSION,
    PROTOCOL_VERSION,
    AgentFrame,
    Heartbeat,
    agreed,
    decode_from_agent,
    decode_from_server,
    encode,
)
from jarvis.core.attempt import Usage
from jarvis.core.effects import Refused, Welcome
from jarvis.core.inputs import Ended, Hello, Known, Started
from jarvis.core.states import Cause

AGENT_V1 = bytes.fromhex(
    "9301009189a174a568656c6c6fa776657273696f6e01a8736f667477617265a5302e312e30a46e616d65a26e31a46e6f646507"
    "a7626f6f745f6964a162a97265736f757263657381a3637075cd0fa0a66c6162656c7381a461726368a67838365f3634"
    "a56b6e6f776e9193092aa772756e6e696e67"
)
SERVER_V1 = bytes.fromhex(
    "9301019187a174a777656c636f6d65a46e6f646507ab696e6361726e6174696f6e05a565706f636802ab6865617274626561745f73"
    "cb4000000000000000a766656e63655f73cb4052c00000000000a5666c6f6f7203"
)
REFUSED_V1 = bytes.fromhex("9301009182a174a772656675736564a6726561736f6ea3666f72")


@pytest.mark.parametrize(
    ("newest", "oldest", "spoken"),
    [
        (PROTOCOL_VERSION, OLDEST_VERSION, PROTOCOL_VERSION), (OLDEST_VERSION, 1, OLDEST_VERSION),
        (PROTOCOL_VERSION + 1, PROTOCOL_VERSION, PROTOCOL_VERSION), (PROTOCOL_VERSION + 1, PROTOCOL_VERSION + 1, None),
        (OLDEST_VERSION - 1, 0, None),
    ],
)  # fmt: skip
def test_the_newest_that_both_speak(newest: int, oldest: int, spoken: int | None) -> None:
    assert agreed(newest, oldest) == spoken


def test_an_agent_of_the_version_before_is_understood() -> None:
    (hello,) = decode_from_agent(AGENT_V1).messages
    assert isinstance(hello, Hello)
    assert (hello.version, hello.oldest, hello.known, hello.ordinal) == (1, 1, [Known(9, 42, "running")], 0)
    assert agreed(hello.version, hello.oldest) == 1


def test_a_server_of_the_version_before_is_understood() -> None:
    (welcome,) = decode_from_server(SERVER_V1).messages
    assert isinstance(welcome, Welcome)
    assert (welcome.node, welcome.fence_s, welcome.version, welcome.floor) == (7, 75.0, 1, 3)
    (refused,) = decode_from_server(REFUSED_V1).messages
    assert isinstance(refused, Refused)
    assert (refused.oldest, refused.newest) == (1, 1)


def test_fields_of_the_version_after_are_ignored() -> None:
    plain = msgspec.msgpack.decode(encode(AgentFrame(1, 0, [Heartbeat(health={"load1": 1.0})])))
    plain[2][0]["of_tomorrow"] = [1, {"a": b"x"}]
    assert decode_from_agent(msgspec.msgpack.encode(plain)).messages == [Heartbeat(health={"load1": 1.0})]


def test_to_the_version_before_nothing_is_said_that_it_would_not_know() -> None:
    """Defaults do not travel, so what is new is not there unless it was agreed on."""
    assert b"beat" not in encode(AgentFrame(1, 0, [Heartbeat(health={})])).replace(b"\xa1t\xa4beat", b"")


@pytest.mark.parametrize(
    "message",
    [
        Ended(number=1, token=1, cause=Cause.EXIT, exit_code=1 << 63), Ended(number=1, token=1, cause=Cause.EXIT, age=math.inf),
        Ended(number=1, token=1, cause=Cause.EXIT, usage=Usage(wall_s=-math.inf)), Started(number=1, token=1, age=math.nan),
        Started(number=(1 << 64) - 1, token=1),
    ],
)  # fmt: skip
def test_what_no_store_could_keep_is_no_frame(message: Started | Ended) -> None:
    """The leader would stop on it, for all nodes."""
    with pytest.raises(msgspec.DecodeError):
        decode_from_agent(encode(AgentFrame(1, 0, [message])))


@pytest.mark.parametrize("decode", [decode_from_agent, decode_from_server])
def test_text_that_is_none_is_no_frame(decode: Callable[[bytes], object]) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(b"\x93\x01\x00\x91\x81\xa1t\xa1\xff")
