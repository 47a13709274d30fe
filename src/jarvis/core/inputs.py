"""Inputs: what happened, as the leader's pure code takes it. Facts of nodes have the shape in which they travel."""

from dataclasses import dataclass, field

import msgspec

from jarvis.core.attempt import Output, Usage
from jarvis.core.command import Command
from jarvis.core.holdings import Holdings
from jarvis.core.resources import Resources
from jarvis.core.schedule import Stamp
from jarvis.core.states import Cause, State
from jarvis.core.task import Task
from jarvis.core.workflow import Workflow


class NodeMessage(msgspec.Struct, gc=False, tag_field="t", omit_defaults=True, kw_only=True):
    """Anything that travels between a node and a server; the tag tells which."""


class Known(msgspec.Struct, gc=False, array_like=True):
    """An assignment the node knows: ``state`` assigned (in its backlog), starting, running, or ended (unacknowledged)."""

    number: int
    token: int
    state: str


class Hello(NodeMessage, tag="hello"):
    """First message of a session. The node says who it is, what it has and every assignment it knows. It speaks the versions
    ``oldest`` to ``version`` of the protocol."""

    version: int
    software: str
    name: str
    node: int | None
    boot_id: str
    resources: Resources
    labels: dict[str, str]
    taints: tuple[str, ...] = ()
    watch: tuple[str, ...] = ()
    """Directories below which schedules may wait for files here."""
    known: list[Known] = []
    incarnation: int = 0
    epoch: int = 0
    """Highest (incarnation, epoch) the agent has seen: it refuses a session with a lower one."""
    ordinal: int = 0
    """Rises with each Hello of a boot: the network may deliver one of a session given up after that of its successor."""
    booted_at: float = 0.0
    """By the clock of the node, seconds since 1970: tells a late Hello of an earlier boot from a new boot."""
    oldest: int = 1
    gpu_memory: tuple[int, ...] = ()
    """Bytes of each GPU, or one size for all, where that is known."""


class Started(NodeMessage, tag="started"):
    """An attempt left the backlog: ``starting`` (preparing) or ``running``."""

    number: int
    token: int
    state: State = State.RUNNING
    age: float = 0.0


class Ended(NodeMessage, tag="ended"):
    """The end of an attempt. Sent again until acknowledged; the node keeps it until then."""

    number: int
    token: int
    cause: Cause
    exit_code: int | None = None
    signal: int | None = None
    message: str = ""
    exception: str | None = None
    """Class name of the exception that a function raised."""
    usage: Usage | None = None
    stdout: Output | None = None
    stderr: Output | None = None
    result: bytes | None = None
    """Pickled result or exception of a function, at most INLINE_LIMIT; opaque to the server."""
    result_digest: str | None = None
    output: bytes | None = None
    """Of a step: the JSON that it wrote to $JARVIS_OUTPUT."""
    artifacts: str | None = None
    """Digest of the manifest of the files that it left."""
    held: int = 0
    """Bytes of these that stay on its node for steps after it."""
    age: float = 0.0
    drain: str = ""
    """Why this node must take no more work until somebody looks at it: its epilog failed."""


class Returned(NodeMessage, tag="returned"):
    """Assignments given back unstarted, after a Recall or because the node cannot take them."""

    numbers: list[int]
    reason: str = ""
    drain: str = ""
    """As in Ended: its prolog failed."""


Fact = Started | Ended | Returned


@dataclass(frozen=True, slots=True)
class TasksTaken:
    """Rows in state ``submitted`` that the leader took from the store (or got as a hint from its own replica)."""

    cause_id: str
    tasks: list[Task]
    ended: dict[int, State] = field(default_factory=dict)
    """End states of tasks that these depend on and that the leader no longer holds; absent means there is none."""


@dataclass(frozen=True, slots=True)
class WorkflowsTaken:
    """Workflows in state ``submitted``; the rows of steps that a re-run takes over are in the store alone."""

    cause_id: str
    workflows: list[Workflow]


@dataclass(frozen=True, slots=True)
class CommandsTaken:
    cause_id: str
    commands: list[Command]


@dataclass(frozen=True, slots=True)
class LookAgain:
    """Another server has put something into the store. It says no more, so that nobody can make the leader believe things."""

    cause_id: str


@dataclass(frozen=True, slots=True)
class NodeConnected:
    """A node said Hello on a session that the gateway named ``session``; a newer session replaces an older one."""

    cause_id: str
    session: str
    hello: Hello


@dataclass(frozen=True, slots=True)
class NodeDisconnected:
    """The session ended. A hint only: the node is lost when its heartbeats say so."""

    cause_id: str
    session: str
    node: int


@dataclass(frozen=True, slots=True)
class NodeReported:
    """Facts of a node, in its order. ``seq`` is the frame to acknowledge once they are committed."""

    cause_id: str
    session: str
    node: int
    seq: int
    facts: list[Fact]


@dataclass(frozen=True, slots=True)
class ReportTaken:
    """Facts of a node that a server wrote into the store because the leader did not take them in time."""

    cause_id: str
    report: int
    node: int
    facts: list[Fact]


@dataclass(frozen=True, slots=True)
class NodesSeen:
    """Nodes heard of since the last one, with their health figures. ``told``: how many of the leader's messages each had
    received in its session. ``beats``: heartbeats that want an answer of the leader; ``unfit``: what is wrong with
    those of which something is; ``holds``: what some of them hold of what tasks need (``core.holdings``), all of it."""

    cause_id: str
    seen: dict[int, dict[str, float]]
    told: dict[int, int] = field(default_factory=dict)
    beats: dict[int, int] = field(default_factory=dict)
    unfit: dict[int, str] = field(default_factory=dict)
    holds: dict[int, Holdings] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FilesSeen:
    """What lies in the directory that a schedule waits for: ``settled`` are files that were the same at two looks.

    ``node``: who looked, 0 is the leader's own machine. ``mark`` is the node's word for what it found, and told to it at the
    next look; ``problem``: why it could not look."""

    cause_id: str
    schedule: int
    present: frozenset[str]
    settled: dict[str, Stamp]
    node: int = 0
    mark: str = ""
    problem: str = ""


Input = (
    TasksTaken | WorkflowsTaken | CommandsTaken | LookAgain | NodeConnected | NodeDisconnected | NodeReported | ReportTaken
    | NodesSeen | FilesSeen
)  # fmt: skip

_encoder = msgspec.msgpack.Encoder()
_facts = msgspec.msgpack.Decoder(list[Fact])


def encode_facts(facts: list[Fact]) -> bytes:
    """The body of a stored report."""
    return _encoder.encode(facts)


def decode_facts(body: bytes) -> list[Fact]:
    """Raises msgspec.DecodeError when it is none."""
    return _facts.decode(body)
