"""PURE: which nodes hold what tasks need, and how much that counts: by levels, so that small differences leave the choice to the
balancer. A wish of the user comes before it, and so does all that must be."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from jarvis.core.holdings import Holdings, worth_telling

BALANCERS = frozenset({"least_loaded", "bin_pack", "best_fit", "fgd", "gpu_fit"})
"""Who says ``spread``, ``round_robin`` or ``random`` wants just that, and what other packages want is not known."""
STEP = 1e4
"""What a level counts in a score: more than all that a balancer says, and less than a wish of the least weight."""
LEAST = 64 << 20


@dataclass(frozen=True, slots=True)
class Locality:
    """``least``: bytes that a node must hold to count as near; 0: nothing does. ``queues``: where a queue has its own."""

    least: int = LEAST
    queues: dict[str, int] = field(default_factory=dict)

    def least_of(self, queue: str) -> int:
        return self.queues.get(queue, self.least) if self.queues else self.least


def level(held: int, least: int) -> int:
    """0 below the least, then one more with each doubling."""
    return (held // least).bit_length()


def worth(held: int, least: int) -> float:
    """What it counts in a score."""
    return STEP * level(held, least)


class Holding:
    """Nodes that hold a thing, with its bytes there."""

    __slots__ = ("most", "nodes", "version")

    def __init__(self) -> None:
        self.nodes: dict[int, int] = {}
        self.most = 0
        """No node holds more of it."""
        self.version = 0
        """Another one whenever anything of it is another; none comes twice."""


class Holders:
    """Who holds what, as nodes told it last: a hint for the choice of nodes, which nothing hangs on."""

    __slots__ = ("_by_node", "_versions", "of", "placed", "spared")

    def __init__(self) -> None:
        self.of: dict[str, Holding] = {}
        self._by_node: dict[int, Holdings] = {}
        self._versions = 0
        self.placed = 0
        """Elements that went where something that they need was already."""
        self.spared = 0
        """Bytes of it."""

    def tell(self, node: int, holds: Holdings) -> None:
        """All that a node holds."""
        before = self._by_node.get(node, {})
        if before == holds:
            return
        for name in before:
            if name not in holds:
                self._change(name, node, 0)
        for name, size in holds.items():
            if before.get(name) != size:
                self._change(name, node, size)
        if holds:
            self._by_node[node] = holds
        else:
            self._by_node.pop(node, None)

    def add(self, node: int, name: str, size: int) -> None:
        """One thing more, of which the node will tell itself."""
        self.tell(node, worth_telling({**self.on(node), name: size}))

    def _change(self, name: str, node: int, size: int) -> None:
        holding = self.of.get(name)
        if holding is None:
            holding = self.of[name] = Holding()
        self._versions += 1
        holding.version = self._versions
        if size:
            holding.nodes[node] = size
            holding.most = max(holding.most, size)
        elif len(holding.nodes) > 1:
            del holding.nodes[node]
        else:
            del self.of[name]

    def count(self, every: Iterable[int]) -> None:
        """Bytes of what each element needs that were there where it went."""
        for held in every:
            self.placed += held > 0
            self.spared += held

    def on(self, node: int) -> Holdings:
        return self._by_node.get(node, {})

    def bytes_on(self, node: int, names: Iterable[str]) -> int:
        """What a node holds of all these."""
        held = self._by_node.get(node)
        return sum(held.get(name, 0) for name in names) if held else 0
