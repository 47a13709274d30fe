"""A stream to a node of another server ends for its user whatever ended it in between."""

import asyncio
from typing import Any, Self, cast

from jarvis.api.peers import Relay
from jarvis.api.session import StreamHandle
from jarvis.bus.messages import StreamOpen


class Wrong:
    """A connection to the other server that brings what nobody foresaw."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing is held."""

    async def send(self, data: bytes) -> None:
        """It goes nowhere."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        raise ZeroDivisionError("a defect")


async def test_a_defect_in_between_ends_it() -> None:
    relay = Relay(cast("Any", Wrong()))
    handle = StreamHandle(relay, 1)
    relay.begin(handle, StreamOpen(stream=1, number=7, kind="tail"))
    async with asyncio.timeout(5):
        end = await handle.receive()
    assert end.end
    assert "is gone" in end.error
