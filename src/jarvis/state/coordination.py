"""PORT: what the servers of a cluster agree on through the store: who leads, who is there, who may enter, what all know."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Leadership:
    """What a leader writes under: nobody else may once the stored epoch differs."""

    incarnation: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Leader:
    """Who leads, or led last. ``left_s``: seconds until the lease ends, not above 0 when it has."""

    holder: str
    leadership: Leadership
    left_s: float


@dataclass(frozen=True, slots=True)
class Takeover:
    """That a server began to lead. ``at``: database time; ``silent_s``: how long before it the last leader had renewed."""

    epoch: int
    holder: str
    at: float
    cause: str
    silent_s: float


TAKEOVERS = 100
"""How many are kept."""


def takeover_cause(epoch: int, *, lease_s: float, left_s: float, released: bool) -> str:
    """Why the leader of ``epoch`` was followed by another, for people."""
    if epoch == 0:
        return "the first leader"
    if lease_s == 0.0:
        return "started"
    if released:
        return "handed over"
    return "the leader was gone" if left_s > 0 else "the lease had ended"


@dataclass(frozen=True, slots=True)
class Replica:
    """A server of the cluster. ``url``: where the other servers and the nodes reach it; ``epoch``: the latest that it has heard
    of, as ``seq`` is the number of the last event; ``seen_at``: database time."""

    name: str
    url: str
    version: str
    role: str = "all"
    epoch: int = 0
    seq: int = 0
    seen_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Token:
    """What lets somebody in; only the hash of the token itself is stored. ``expires_at``: database time, None for never."""

    hash: str
    user: str
    role: str
    projects: tuple[str, ...] = ()
    label: str = ""
    expires_at: float | None = None


class Coordination(Protocol):
    """Small rows that change seldom. Errors as in the store's own port, which this is a part of."""

    async def leadership_acquire(self, holder: str, lease_s: float = 0.0) -> Leadership:
        """Become the leader for ``lease_s`` seconds: epoch = stored + 1, committed before it returns.

        Raises :class:`LeadershipHeld` while the lease of another epoch runs, its own holder's included: a process that
        starts anew cannot know what its predecessor still does. A store that can prove the holder gone grants earlier.
        A lease of 0 seconds never keeps anybody out: for a store that only one process can open.
        """
        ...

    async def leadership_renew(self, leadership: Leadership, lease_s: float) -> None:
        """The lease ends ``lease_s`` from now; raises :class:`StaleEpoch` when superseded."""
        ...

    async def leadership_release(self, leadership: Leadership) -> None:
        """The lease ends now; nothing happens when somebody else leads already."""
        ...

    async def leader_get(self) -> Leader: ...

    async def takeover_list(self, limit: int) -> list[Takeover]:
        """Who began to lead when and why, the last first."""
        ...

    async def incarnation_bump(self, reason: str) -> int:
        """Start a new life of the database (restore, promote); ids jump by 1,000,000. Returns the new incarnation."""
        ...

    async def replica_seen(self, replica: Replica) -> None:
        """This server is there, now (its ``seen_at`` is not read). Servers not seen for an hour are forgotten."""
        ...

    async def replica_list(self, max_age_s: float) -> list[Replica]:
        """Those seen within so many seconds, by name."""
        ...

    async def node_seen_many(self, seen: Sequence[tuple[int, float, dict[str, float]]], replica: str = "") -> None:
        """(node, instant, health figures): one batched update. ``replica`` holds their sessions."""
        ...

    async def node_replicas(self) -> dict[int, str]:
        """The replica that was last heard to hold each node's session; nodes that no replica ever named are absent."""
        ...

    async def secret_keep(self, name: str, value: bytes) -> bytes:
        """What the whole cluster keeps under a name: the first value wins and is what everybody gets."""
        ...

    async def token_put(self, token: Token) -> None:
        """Add it, or replace the one with the same hash."""
        ...

    async def token_take(self, token_hash: str) -> Token | None:
        """Remove it and say what it was; of several who ask at once, one alone gets it."""
        ...

    async def token_list(self) -> list[Token]:
        """Those that have not expired, by hash."""
        ...
