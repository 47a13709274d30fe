"""Node: a machine that runs tasks; its id is never reused."""

from enum import StrEnum

import msgspec

from jarvis.core.resources import Resources


class NodeState(StrEnum):
    """What the heartbeat monitor knows of a node."""

    READY = "ready"
    SUSPECT = "suspect"
    LOST = "lost"


class Node(msgspec.Struct, gc=False, kw_only=True):
    """A registered node. ``cordoned`` takes no new work; ``draining`` also waits for (or ends) what runs."""

    id: int
    name: str
    state: NodeState = NodeState.READY
    boot_id: str = ""
    resources: Resources = {}
    labels: dict[str, str] = {}
    taints: tuple[str, ...] = ()
    cordoned: bool = False
    draining: bool = False
    drain_deadline: float | None = None
    reason: str = ""
    next_number: int = 1
    registered_at: float = 0.0
    seen_at: float = 0.0
    version: str = ""
    health: dict[str, float] = {}
    """Last figures of the resource monitor: cpu_ratio, memory_used, disk_free, load1 …"""

    @property
    def schedulable(self) -> bool:
        return self.state is NodeState.READY and not self.cordoned and not self.draining
