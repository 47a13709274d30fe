"""Node: a machine that runs tasks; its id is never reused."""

from dataclasses import dataclass
from enum import StrEnum

import msgspec

from jarvis.core.gpus import could_hold
from jarvis.core.resources import Resources, fits


class NodeState(StrEnum):
    """What the heartbeat monitor knows of a node."""

    READY = "ready"
    SUSPECT = "suspect"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Windows:
    """How long silence may last, in seconds, each counted by one process on its own clock.

    The leader calls a node suspect after ``suspect_s`` and lost after ``lost_s``. Under ``on_lost=fence`` the node itself
    ends what it runs: it is asked to stop ``fence_s`` after the *sending* of the last heartbeat that the leader answered, and
    killed ``grace_s`` later; the leader waits for ``superseded_s`` since it *heard* one. The factor between both is what
    their clocks may differ in speed: a quarter.
    """

    heartbeat_s: float = 2.0
    suspect_s: float = 8.0
    lost_s: float = 20.0
    fence_s: float = 75.0

    @property
    def grace_s(self) -> float:
        return self.fence_s / 15

    @property
    def superseded_s(self) -> float:
        return 1.25 * (self.fence_s + self.grace_s)


DEFAULT_WINDOWS = Windows()


class Node(msgspec.Struct, gc=False, kw_only=True):
    """A registered node. ``cordoned`` takes no new work; ``draining`` also waits for (or ends) what runs."""

    id: int
    name: str
    state: NodeState = NodeState.READY
    boot_id: str = ""
    booted_at: float = 0.0
    """By the node's own clock; 0 where it does not tell."""
    hello: int = 0
    """Ordinal of the last Hello: the next leader must know as well which one is late."""
    resources: Resources = {}
    gpu_memory: tuple[int, ...] = ()
    """Bytes of each GPU, or one size for all; empty where that is not known, or ``resources`` tell it."""
    labels: dict[str, str] = {}
    taints: tuple[str, ...] = ()
    watch: tuple[str, ...] = ()
    """Directories below which schedules may wait for files there."""
    cordoned: bool = False
    draining: bool = False
    drain_deadline: float | None = None
    reason: str = ""
    unfit: str = ""
    """What the node's own check says is wrong with it; it takes no new work until that says nothing any more."""
    next_number: int = 1
    registered_at: float = 0.0
    seen_at: float = 0.0
    version: str = ""
    health: dict[str, float] = {}
    """Last figures of the resource monitor: cpu_ratio, memory_used, disk_free, load1 …"""

    def could_hold(self, need: Resources) -> bool:
        """Whether it would fit if nothing ran there."""
        return fits(need, self.resources) and could_hold(self.resources, self.gpu_memory, need)

    @property
    def schedulable(self) -> bool:
        return self.state is NodeState.READY and not (self.cordoned or self.draining or self.unfit)
