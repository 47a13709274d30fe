"""The whole wire protocol between server and agent, version 1: msgpack frames of what has gathered.

A frame is one WebSocket binary message: a :class:`Frame`. ``seq`` counts frames of one direction of one session; ``ack``
is the highest frame of the other side whose content is safe (for reports: committed). A receiver ignores frames it has
acknowledged. Instants never travel, only ages: seconds before the sending of the frame.
"""

import msgspec

from jarvis.core.attempt import Output, Usage
from jarvis.core.resources import Resources
from jarvis.core.states import Cause, State

PROTOCOL_VERSION = 1
MAX_FRAME = 8 * 1024 * 1024


class _Message(msgspec.Struct, tag_field="t", omit_defaults=True, kw_only=True):
    pass


# ---------------------------------------------------------------- agent → server


class Known(msgspec.Struct, array_like=True):
    """An assignment the node knows: ``state`` assigned (in its backlog), starting, running, or ended (unacknowledged)."""

    number: int
    token: int
    state: str


class Hello(_Message, tag="hello"):
    """First message of a session. The node says who it is, what it has and every assignment it knows."""

    version: int
    software: str
    name: str
    node: int | None
    boot_id: str
    resources: Resources
    labels: dict[str, str]
    taints: tuple[str, ...] = ()
    known: list[Known] = []
    incarnation: int = 0
    epoch: int = 0
    """Highest (incarnation, epoch) the agent has seen: it refuses a session with a lower one."""


class Heartbeat(_Message, tag="beat"):
    """``health`` as in Node.health."""

    health: dict[str, float] = {}


class Started(_Message, tag="started"):
    """An attempt left the backlog: ``starting`` (preparing) or ``running``."""

    number: int
    token: int
    state: State = State.RUNNING
    age: float = 0.0


class Ended(_Message, tag="ended"):
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
    age: float = 0.0


class Returned(_Message, tag="returned"):
    """Assignments given back unstarted, after a Recall or because the node cannot take them."""

    numbers: list[int]
    reason: str = ""


class OutputChunk(_Message, tag="chunk"):
    """A piece of an output stream for the blob store; ``data`` is zstd. Answered with ChunkStored after it is durable."""

    number: int
    token: int
    stream: str
    offset: int
    size: int
    data: bytes


class BlobGet(_Message, tag="blob?"):
    """Ask for a range of a blob that a task of this node needs (code, arguments, script, entries)."""

    request: int
    task: int
    digest: str
    offset: int = 0
    length: int = 256 * 1024


class BlobPut(_Message, tag="blob!"):
    """Store a body (a large result); answered with BlobStored."""

    request: int
    number: int
    token: int
    data: bytes


class StreamData(_Message, tag="stream"):
    """Bytes of an interactive stream (stdin, pty, exec, log tail), either direction; empty with ``end`` closes that side."""

    stream: int
    data: bytes = b""
    end: bool = False
    error: str = ""


# ---------------------------------------------------------------- server → agent


class Welcome(_Message, tag="welcome"):
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


class Refused(_Message, tag="refused"):
    """The session is not taken; ``retry_s`` says when to try again (full jitter), None means never with this Hello."""

    reason: str
    retry_s: float | None = None


class Assignment(msgspec.Struct, array_like=True):
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


class Assign(_Message, tag="assign"):
    assignments: list[Assignment]


class Recall(_Message, tag="recall"):
    """Give these back if they have not started; answered with Returned for those given back."""

    numbers: list[int]


class Stop(_Message, tag="stop"):
    """End an attempt: soft signal, then kill after ``grace_s``. In the backlog: forget it and report its end."""

    number: int
    cause: Cause
    grace_s: float = 10.0


class Signal(_Message, tag="signal"):
    number: int
    signum: int


class Recorded(_Message, tag="recorded"):
    """Ends with these numbers are committed: forget them. ``floor`` as in Welcome."""

    numbers: list[int]
    floor: int = 0


class ChunkStored(_Message, tag="chunk="):
    number: int
    stream: str
    offset: int
    digest: str


class BlobData(_Message, tag="blob="):
    request: int
    data: bytes = b""
    size: int = 0
    error: str = ""


class BlobStored(_Message, tag="blob+"):
    request: int
    digest: str = ""
    error: str = ""


class StreamOpen(_Message, tag="open"):
    """Open an interactive stream to an attempt. ``kind``: stdin, pty, exec, tail."""

    stream: int
    number: int
    kind: str
    argv: tuple[str, ...] = ()
    env: dict[str, str] = {}
    pty: tuple[int, int] | None = None
    output: str = "stdout"
    offset: int = 0
    follow: bool = False


class StreamResize(_Message, tag="resize"):
    stream: int
    rows: int
    columns: int


FromAgent = Hello | Heartbeat | Started | Ended | Returned | OutputChunk | BlobGet | BlobPut | StreamData
ToAgent = (
    Welcome | Refused | Assign | Recall | Stop | Signal | Recorded | ChunkStored | BlobData | BlobStored
    | StreamOpen | StreamData | StreamResize
)  # fmt: skip


class AgentFrame(msgspec.Struct, array_like=True):
    seq: int
    ack: int
    messages: list[FromAgent]


class ServerFrame(msgspec.Struct, array_like=True):
    seq: int
    ack: int
    messages: list[ToAgent]


_encoder = msgspec.msgpack.Encoder()
_agent_decoder = msgspec.msgpack.Decoder(AgentFrame)
_server_decoder = msgspec.msgpack.Decoder(ServerFrame)


def encode(frame: AgentFrame | ServerFrame) -> bytes:
    return _encoder.encode(frame)


def decode_from_agent(data: bytes) -> AgentFrame:
    """Raises msgspec.DecodeError on anything that is not a frame of version 1: agents are not trusted."""
    return _agent_decoder.decode(data)


def decode_from_server(data: bytes) -> ServerFrame:
    return _server_decoder.decode(data)
