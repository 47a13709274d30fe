"""Attempt: one try at an element, numbered from 1, with one fencing token, one end and its placements."""

import msgspec

from jarvis.core.bounds import Finite, Whole
from jarvis.core.resources import Resources
from jarvis.core.states import Cause, State


class Placement(msgspec.Struct, gc=False, frozen=True, array_like=True):
    """A place of an attempt: a gang's attempt has several, any other one."""

    rank: int
    node: int
    resources: Resources


class Usage(msgspec.Struct, gc=False, frozen=True, array_like=True):
    """What an attempt used: seconds and bytes."""

    wall_s: Finite = 0.0
    cpu_user_s: Finite = 0.0
    cpu_system_s: Finite = 0.0
    max_rss: Whole = 0
    read: Whole = 0
    written: Whole = 0


class Output(msgspec.Struct, gc=False, frozen=True, omit_defaults=True):
    """Where an output stream is: inline up to 4 KiB, else chunks in the blob store; ``path`` on the node if the user chose it."""

    size: Whole = 0
    inline: bytes | None = None
    chunks: tuple[tuple[Whole, str], ...] = ()
    """(offset of its first byte, blob digest) of each chunk, ascending."""
    path: str | None = None


class Rank(msgspec.Struct, gc=False, kw_only=True, array_like=True):
    """How one rank of a gang's attempt goes; its place in ``Attempt.ranks`` is its number among them, and its ``cause`` is
    there once it is over. ``number`` is that of its own node."""

    node: int
    number: int
    started_at: float | None = None
    ended_at: float | None = None
    cause: Cause | None = None
    exit_code: int | None = None
    signal: int | None = None
    message: str = ""
    usage: Usage | None = None
    stdout: Output | None = None
    stderr: Output | None = None
    failed_first: bool = False
    """Whether it is the one on whose end the others were stopped."""

    @property
    def went_well(self) -> bool:
        return self.cause is Cause.EXIT and self.exit_code == 0


class Attempt(msgspec.Struct, gc=False, kw_only=True):
    """One try. ``state`` is that of the element while current; afterwards the end of this attempt."""

    task: int
    index: int
    attempt: int
    token: int
    node: int
    number: int
    """Position in the node's own count of assignments; journaled by the supervisor before a spawn, so nothing runs twice."""
    placements: tuple[Placement, ...] = ()
    state: State = State.ASSIGNED
    cause: Cause | None = None
    message: str = ""
    exit_code: int | None = None
    signal: int | None = None
    assigned_at: float
    started_at: float | None = None
    ended_at: float | None = None
    usage: Usage | None = None
    stdout: Output | None = None
    stderr: Output | None = None
    result: bytes | None = None
    result_digest: str | None = None
    output: bytes | None = None
    """JSON that the task of a step gave to those that follow."""
    artifacts: str | None = None
    """Digest of the manifest of the files that it left; None where none were asked for, or none could be kept."""
    ranks: tuple[Rank, ...] = ()
    """Of a gang; ``node``, ``number``, outputs and artifacts are then those of rank 0. Any other attempt has none."""

    @property
    def nodes(self) -> tuple[int, ...]:
        """All that it was assigned to."""
        return tuple(rank.node for rank in self.ranks) or (self.node,)
