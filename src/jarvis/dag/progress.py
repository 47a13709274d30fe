"""PURE: the memory of a workflow that is under way: its steps, the blocks that they are in, what is to be done about it."""

from dataclasses import dataclass, field
from typing import Any

from jarvis.core.states import TERMINAL, State
from jarvis.core.workflow import PHASES, Block, Edge, Kept, Phase, Step, StepSpec


@dataclass(slots=True)
class Many:
    """A fan-out (``items``) or a loop under way. ``next`` is the position of the next element or iteration."""

    items: list[Any] | None
    most: int
    next: int = 0
    live: dict[int, "Vertex"] = field(default_factory=dict)
    outputs: dict[int, bytes] = field(default_factory=dict)
    parts: dict[int, bytes] = field(default_factory=dict)
    """Pickled results of functions."""
    digests: dict[int, str] = field(default_factory=dict)
    """Where larger ones are kept."""
    artifacts: dict[int, str] = field(default_factory=dict)
    """Manifests of the files that elements left."""
    unsaid: int = 0
    failures: int = 0
    last: bytes | None = None
    draining: bool = False
    wake_at: float | None = None
    """Of a loop: when the next iteration begins."""


@dataclass(slots=True, eq=False)
class Vertex:
    """A step, an element of a fan-out or an iteration of a loop (these have a ``parent``) with its row and its counters."""

    spec: StepSpec
    path: str
    scope: "Scope"
    row: Step
    rank: float
    """Of the longest path from it to the end of everything, itself included."""
    left: int = 0
    """Steps before it that have not ended."""
    met: int = 0
    failed: bool = False
    parent: "Vertex | None" = None
    index: int = 0
    many: Many | None = None
    inner: "Scope | None" = None
    queued: bool = False
    """Waits for its task to be made."""
    behind: float = 0.0
    """The rank of what follows it."""

    @property
    def over(self) -> bool:
        return self.row.state in TERMINAL


@dataclass(slots=True, eq=False)
class Scope:
    """A block under way. ``draining``: nothing begins in it any more; ``outcome``: how it ends whatever its steps do."""

    block: Block
    owner: Vertex | None
    prefix: str
    params: dict[str, Any] | None = None
    at: int = -1
    """Position of its phase."""
    vertices: dict[str, Vertex] = field(default_factory=dict)
    behind: dict[str, list[tuple[str, Edge]]] = field(default_factory=dict)
    """Step → those that wait for it."""
    open: int = 0
    failed: bool = False
    draining: bool = False
    killed: bool = False
    outcome: State | None = None
    winner: Vertex | None = None

    @property
    def phase(self) -> Phase:
        return PHASES[self.at]


@dataclass(slots=True)
class Deeds:
    """What follows from what happened: rows to write, tasks to stop, instants to look again at."""

    rows: dict[str, Step] = field(default_factory=dict)
    stops: list[int] = field(default_factory=list)
    wakes: list[tuple[float, str]] = field(default_factory=list)
    workflow: bool = False
    """The row of the workflow itself has changed."""
    kept: list[Kept] = field(default_factory=list)
    """Outputs for later workflows."""

    def __bool__(self) -> bool:
        return bool(self.rows or self.stops or self.wakes or self.workflow or self.kept)


@dataclass(frozen=True, slots=True)
class TaskEnd:
    """How the task of a step ended."""

    state: State
    reason: str = ""
    output: bytes | None = None
    """JSON, as the task wrote it."""
    result: bytes | None = None
    result_digest: str | None = None
    artifacts: str | None = None
