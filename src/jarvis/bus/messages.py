"""The whole wire protocol between server and agent: msgpack frames of what has gathered.

A frame is one WebSocket binary message: a :class:`Frame`. ``seq`` counts frames of one direction of one session; ``ack``
is the highest frame of the other side whose content is safe (for reports: committed). A receiver ignores frames that it has had,
and ends a session in which one is missing. Instants never travel, only ages: seconds before the sending of the frame.

Versions: a node says in Hello which it speaks, the server takes the newest that both do and says so in Welcome. Within a
version fields may be added, which the other side ignores or gives their defaults; a message of another tag, or another meaning,
is a new version. Each side speaks the version before its newest, too, so that a cluster is upgraded one machine at a time.

1. everything but what follows
2. ``Heartbeat.beat`` and Seen: what is ``on_lost=fence`` ends on a node whose leader does not answer
3. Look and Looked: files that schedules wait for, on a node
"""

import msgspec

from jarvis.core.effects import Assign, Look, Recall, Recorded, Refused, Seen, Signal, Stop, Welcome
from jarvis.core.holdings import Holdings
from jarvis.core.inputs import Ended, Hello, NodeMessage, Returned, Started
from jarvis.core.schedule import Stamp

PROTOCOL_VERSION, OLDEST_VERSION = 3, 1
FENCE_VERSION, LOOK_VERSION = 2, 3
MAX_FRAME = 8 * 1024 * 1024


# ---------------------------------------------------------------- agent → server


class Heartbeat(NodeMessage, tag="beat"):
    """``health`` as in Node.health; ``told``: how many messages of the leader came in this session, -1: not counted;
    ``beat``: not 0 where the node has something under ``on_lost=fence``; answered with Seen;
    ``unfit``: what is wrong with the node by its own check; ``holds``: all that it holds of what tasks may need, said when that has
    changed and now and then, else None."""

    health: dict[str, float] = {}
    told: int = -1
    beat: int = 0
    unfit: str = ""
    holds: Holdings | None = None


class OutputChunk(NodeMessage, tag="chunk"):
    """A piece of an output stream for the blob store; ``data`` is zstd. Answered with ChunkStored after it is durable."""

    number: int
    token: int
    stream: str
    offset: int
    size: int
    data: bytes


class BlobGet(NodeMessage, tag="blob?"):
    """Ask for a range of a blob that a task of this node needs (code, arguments, script, entries)."""

    request: int
    task: int
    digest: str
    offset: int = 0
    length: int = 256 * 1024


class BlobPut(NodeMessage, tag="blob!"):
    """Store a body (a large result); answered with BlobStored."""

    request: int
    number: int
    token: int
    data: bytes


class Looked(NodeMessage, tag="looked"):
    """What a Look found: files by name, ``moving`` those that the look before did not find the same. ``mark`` stands for all of
    it; ``problem``: why there was nothing to be seen."""

    schedule: int
    files: dict[str, Stamp] = {}
    moving: list[str] = []
    mark: str = ""
    problem: str = ""


class StreamData(NodeMessage, tag="stream"):
    """Bytes of an interactive stream (stdin, pty, exec, log tail), either direction; empty with ``end`` closes that side.
    ``code``: with the end of an exec, its exit code as a shell gives it."""

    stream: int
    data: bytes = b""
    end: bool = False
    error: str = ""
    code: int | None = None


class StreamTaken(NodeMessage, tag="taken"):
    """Either direction: so much of a stream's data is off the receiver's hands (``bus.window``)."""

    stream: int
    size: int


# ---------------------------------------------------------------- server → agent


class ChunkStored(NodeMessage, tag="chunk="):
    number: int
    stream: str
    offset: int
    digest: str


class BlobData(NodeMessage, tag="blob="):
    request: int
    data: bytes = b""
    size: int = 0
    error: str = ""


class BlobStored(NodeMessage, tag="blob+"):
    request: int
    digest: str = ""
    error: str = ""


class StreamOpen(NodeMessage, tag="open"):
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


class StreamResize(NodeMessage, tag="resize"):
    stream: int
    rows: int
    columns: int


FromAgent = (
    Hello | Heartbeat | Started | Ended | Returned | OutputChunk | BlobGet | BlobPut | Looked | StreamData | StreamTaken
)
ToAgent = (
    Welcome | Refused | Assign | Recall | Stop | Signal | Recorded | Seen | Look | ChunkStored | BlobData | BlobStored
    | StreamOpen | StreamData | StreamTaken | StreamResize
)  # fmt: skip


class AgentFrame(msgspec.Struct, gc=False, array_like=True):
    seq: int
    ack: int
    messages: list[FromAgent]


class ServerFrame(msgspec.Struct, gc=False, array_like=True):
    seq: int
    ack: int
    messages: list[ToAgent]


def agreed(version: int, oldest: int) -> int | None:
    """The version of a session with a node that speaks ``oldest`` to ``version``; None when there is none."""
    both = min(version, PROTOCOL_VERSION)
    return both if both >= max(oldest, OLDEST_VERSION) else None


_encoder = msgspec.msgpack.Encoder()
_agent_decoder = msgspec.msgpack.Decoder(AgentFrame)
_server_decoder = msgspec.msgpack.Decoder(ServerFrame)


def encode(frame: AgentFrame | ServerFrame) -> bytes:
    return _encoder.encode(frame)


def decode_from_agent(data: bytes) -> AgentFrame:
    """Raises msgspec.DecodeError on anything that is not a frame: agents are not trusted."""
    return _agent_decoder.decode(data)


def decode_from_server(data: bytes) -> ServerFrame:
    return _server_decoder.decode(data)
