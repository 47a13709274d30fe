"""What a call is given beside its code: fetched once each, and not without a bound."""

import pytest

from jarvis.core.task import FunctionCall, StepInput
from jarvis.worker import function_protocol as protocol
from jarvis.worker.function_bodies import INPUTS_MOST, FunctionBodies
from jarvis.worker.function_protocol import Frames

STORED = {"code": b"c", "args": b"a", "small": b"s", "other": b"o", "huge": bytes(INPUTS_MOST), "args2": b"b"}


def call(*digests: str, args: bytes | None = b"()") -> FunctionCall:
    inputs = {str(at): StepInput("t", pickled=(b"", b"p"), digests=(digest, "")) for at, digest in enumerate(digests)}
    return FunctionCall(code="code", python="3", args=args, args_digest="args", inputs=inputs)


@pytest.fixture
def asked() -> list[str]:
    return []


@pytest.fixture
def bodies(asked: list[str]) -> FunctionBodies:
    async def fetch(task: int, digest: str) -> bytes:
        asked.append(digest)
        return STORED[digest]

    return FunctionBodies(fetch)


async def test_each_is_fetched_once_and_told_before_the_call(bodies: FunctionBodies, asked: list[str]) -> None:
    assert not bodies.has(call())
    fetched = await bodies.fetch(1, call("small", "other", "small"))
    assert asked == ["code", "small", "other"] and fetched.args is None
    told = [(kind, protocol.decode_body(data)) for kind, data in Frames().feed(fetched.frames())]
    assert [(kind, body.digest, body.data) for kind, body in told] == [
        (protocol.BODY, "small", b"s"), (protocol.BODY, "other", b"o"),
    ]  # fmt: skip
    assert bodies.has(call()) and not bodies.has(call("small")), "inputs are fetched each time"
    assert (await bodies.fetch(1, call(args=None))).args == b"a"


async def test_more_than_a_call_may_be_given_is_refused(bodies: FunctionBodies) -> None:
    await bodies.fetch(1, call("huge"))
    with pytest.raises(OSError, match="take more than 67108864 bytes: write them to files"):
        await bodies.fetch(1, call("huge", "small"))
