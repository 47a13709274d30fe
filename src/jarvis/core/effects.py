"""Effects: deeds that follow a commit. What a lost effect would have done is repaired by comparing, never by repeating blindly."""

from dataclasses import dataclass

import msgspec

from jarvis.core.inputs import NodeMessage
from jarvis.core.states import Cause


class Welcome(NodeMessage, tag="welcome"):
    """Answer to Hello. ``forget`` are ends already recorded, ``stop`` are attempts the database does not want to run."""

    node: int
    incarnation: int
    epoch: int
    heartbeat_s: float
    fence_s: float
    forget: list[int] = []
    stop: list[int] = []
    floor: int = 0
    """Numbers below this are settled: never to be started again."""
    grace_s: float = 5.0
    """What is still there so long after ``fence_s`` is killed."""
    version: int = 1
    """Of the protocol, for this session: the newest that both sides speak."""


class Seen(NodeMessage, tag="seen"):
    """The leader has heard the heartbeat ``beat``, and led after it did: a fence counts from when that was sent."""

    beat: int


class Refused(NodeMessage, tag="refused"):
    """The session is not taken; ``retry_s`` says when to try again (full jitter), None means never with this Hello.
    The server speaks the versions ``oldest`` to ``newest`` of the protocol; one that does not say so speaks version 1 alone."""

    reason: str
    retry_s: float | None = None
    oldest: int = 1
    newest: int = 1


class Gang(msgspec.Struct, gc=False, frozen=True, array_like=True):
    """What a rank knows of its gang: its number, where every rank is, and a port on the node of rank 0 to meet at."""

    rank: int
    hosts: tuple[str, ...]
    port: int


class Assignment(msgspec.Struct, gc=False, array_like=True):
    """One element for this node, to be started in order as resources allow. ``spec`` is a msgpack TaskSpec."""

    number: int
    token: int
    attempt: int
    task: int
    index: int
    project: str
    user: str
    spec: msgspec.Raw
    position: int = 0
    count: int = 0
    restart: str = ""
    """Why the attempt before ended, for JARVIS_RESTART_REASON."""
    deadline_s: float | None = None
    """Seconds until the total deadline, at sending."""
    gang: Gang | None = None


class Assign(NodeMessage, tag="assign"):
    assignments: list[Assignment]


class Recall(NodeMessage, tag="recall"):
    """Give these back if they have not started; answered with Returned for those given back."""

    numbers: list[int]


class Stop(NodeMessage, tag="stop"):
    """End an attempt: soft signal, then kill after ``grace_s``. In the backlog: forget it and report its end."""

    number: int
    cause: Cause
    grace_s: float = 10.0


class Signal(NodeMessage, tag="signal"):
    number: int
    signum: int


class Look(NodeMessage, tag="look"):
    """Look for files whose names match ``pattern``, for a schedule; answered with Looked unless the leader has ``seen`` that."""

    schedule: int
    directory: str
    pattern: str
    seen: str = ""


class Recorded(NodeMessage, tag="recorded"):
    """Ends with these numbers are committed: forget them. ``floor`` as in Welcome."""

    numbers: list[int]
    floor: int = 0


ToNodeMessage = Welcome | Refused | Assign | Recall | Stop | Signal | Recorded | Seen | Look


@dataclass(frozen=True, slots=True)
class ToNode:
    """Send to the node's session; nothing is lost if there is none."""

    node: int
    message: Assign | Recall | Stop | Signal | Recorded | Seen | Look
    cause_id: str


@dataclass(frozen=True, slots=True)
class ToSession:
    """Answer the Hello of a session; ``close`` ends it after the message."""

    session: str
    message: Welcome | Refused
    cause_id: str
    close: bool = False


@dataclass(frozen=True, slots=True)
class AckFrame:
    """Everything up to frame ``seq`` of this session is committed."""

    session: str
    node: int
    seq: int
    cause_id: str


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something a person should look at (mass loss, quarantine, drained node)."""

    kind: str
    text: str
    cause_id: str


Effect = ToNode | ToSession | AckFrame | Alarm
