"""PORT: how packed entries get from one server to another. Any of them may be lost; none is delivered twice by one transport."""

from collections.abc import AsyncIterator
from typing import Protocol


class TransportDown(Exception):
    """It does not take entries at the moment."""


class Transport(Protocol):
    """One per server process and way."""

    name: str

    async def send(self, to: str, entry: bytes) -> None:
        """Put an entry into another server's inbox; raises :class:`TransportDown`."""
        ...

    def receive(self, inbox: str) -> AsyncIterator[bytes]:
        """What comes into this server's inbox from now on, in the order of each sender; goes on by itself after failures,
        until it is closed."""
        ...

    async def ping(self) -> float:
        """Seconds that a round trip takes; raises :class:`TransportDown`."""
        ...

    async def close(self) -> None: ...
