"""PORT: what travels between the parts of the control plane. Everything here is a hint or a copy; the store has the facts.

Losing any message costs time, never work: the leader also polls the store, and nodes say again what was not acknowledged.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from jarvis.core.effects import AckFrame, Effect, ToNode, ToSession
from jarvis.core.event import Event
from jarvis.core.inputs import Input


class Bus(Protocol):
    """One per server process. Bounded: ``offer`` answers False when the leader cannot take more for now."""

    def offer(self, item: Input) -> bool:
        """Hand an input to the leader."""
        ...

    async def take(self, timeout: float) -> list[Input]:
        """For the leader: everything that has gathered, in order; waits up to ``timeout`` seconds for the first."""
        ...

    def dispatch(self, effects: Sequence[Effect]) -> None:
        """From the leader, after its commit: to the gateways that hold the sessions."""
        ...

    def sessions(self) -> AsyncIterator[ToNode | ToSession | AckFrame]:
        """For this replica's gateway: what it has to deliver."""
        ...

    def publish(self, events: Sequence[Event]) -> None:
        """From the leader, after its commit: to everybody who watches."""
        ...

    def watch(self) -> AsyncIterator[list[Event]]:
        """Events as they are published, from now on; a slow watcher is ended and reads on from the store."""
        ...
