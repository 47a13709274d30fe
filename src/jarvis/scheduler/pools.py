"""PURE: the nodes that a class can go to, best first, kept from cycle to cycle.

A pool is a cache: it is right whenever it is looked at, because an entry counts only while its score is that of the node, and
because whatever made a node better stands in a log that each pool reads as far as it needs. So work grows with the classes
looked at and the nodes that changed, not with classes times nodes.
"""

from typing import TYPE_CHECKING, NamedTuple

from jarvis.core.gpus import ask_of
from jarvis.core.task import Constraint
from jarvis.scheduler.filters import unsuitable
from jarvis.scheduler.load_balancer import EXACT
from jarvis.scheduler.policy.backfill import NEVER
from jarvis.scheduler.policy.locality import Locality
from jarvis.scheduler.policy.plugged import refusal
from jarvis.scheduler.rankings import Ranking
from jarvis.scheduler.task_queue import PlacementClass

if TYPE_CHECKING:
    from collections.abc import Callable

    from jarvis.core.resources import Resources
    from jarvis.scheduler.cluster import NodeView

LOG_SPARE = 10_000
STALE = 8
"""An order is made anew when the nodes that changed since are so many, and this part of all."""
PARTS_MOST = 8
"""Parts of a pool that are kept: of those that it was asked for last."""
POOLS_MOST = 20_000
"""Pools kept; beyond, all are made anew as they are needed."""


class Limits(NamedTuple):
    """``ahead_seconds``, ``ahead_most``: how far beyond room a node is given work; ``extra``: whether what ends after a
    reservation begins may have the room that it leaves."""

    ahead_seconds: float
    ahead_most: int
    extra: bool
    locality: Locality = Locality(0)


class Search(NamedTuple):
    """What is looked for in a pool. ``peek``: whether there is any node at all; ``aside``: nodes that keep their room for later."""

    task: int
    until: float
    peek: bool
    aside: list[tuple[float, int]]
    owner: tuple[str, str]
    latest: float
    """When its limit ends it, if it starts now."""


ANYTHING = Search(0, NEVER, True, [], ("", ""), NEVER)


class GroupKey(NamedTuple):
    """What decides whether a node suits, apart from the size of the request."""

    constraints: tuple[Constraint, ...]
    tolerations: tuple[str, ...]
    kind: str
    asked: PlacementClass | None = None
    """The whole class, where filters of other packages look at it."""
    gang: bool = False


PartKey = tuple[tuple[str, ...], int]
"""What nodes hold, and from how many bytes on that counts."""


class Known:
    """What all pools that are made of the same nodes have in common, as long as nothing changes on these."""

    def __init__(self) -> None:
        self.members: dict[GroupKey, set[int]] = {}
        self.orders: dict[GroupKey, dict[str, tuple[int, list[tuple[float, int]]]]] = {}
        self.refused: dict[GroupKey, list[Resources]] = {}
        """Needs for which none of the members has room, were nothing placed."""


class Group:
    """The nodes that suit, and for each balancer their order at some position of the log."""

    __slots__ = ("members", "near", "orders", "parts", "ranking", "refused", "untouched", "version")

    def __init__(
        self, members: set[int], untouched: dict[str, tuple[int, list[tuple[float, int]]]] | None = None,
        refused: "list[Resources] | None" = None,
    ) -> None:  # fmt: skip
        self.members = members
        self.untouched, self.refused = untouched, refused
        """The orders of all pools of the same nodes, and what found no room in them, while nothing was placed; None: these are
        the only ones."""
        self.orders: dict[str, tuple[int, list[tuple[float, int]]]] = {} if untouched is None else dict(untouched)
        self.ranking = Ranking()
        self.version = 0
        """Rises when other nodes may suit."""
        self.near: dict[int, float] | None = None
        """Of a part, by how much the score of each node is better for what it holds."""
        self.parts: dict[PartKey, tuple[tuple[int, ...], Group]] = {}
        """Nodes that hold something, as long as these versions are those of today (``scheduler.near``)."""


class Pool:
    """The candidates of one class: an order shared with its group from ``at`` on, and a heap of what changed since, which the
    ``log`` of all pools tells. It knows nothing that knows it, so that a question leaves nothing to the collector of cycles."""

    __slots__ = (
        "affine",
        "at",
        "balancer",
        "best",
        "cursor",
        "gpu",
        "gpu_shape",
        "group",
        "has_own_order",
        "heap",
        "is_led",
        "is_plain",
        "licenses",
        "log",
        "need",
        "nodes",
        "order",
        "parts",
        "placement_class",
        "version",
        "whole",
        "wishes",
    )

    def __init__(self, placement_class: PlacementClass, balancer: str, group: Group, log: list[int]) -> None:
        self.placement_class = placement_class
        self.need: Resources = placement_class.need
        self.nodes, self.whole = placement_class.nodes, placement_class.whole
        self.gpu = ask_of(self.need)
        self.gpu_shape = balancer, self.need.get("cpu", 0), self.gpu
        """All of it that balancers which look at GPUs look at."""
        self.licenses = placement_class.licenses
        self.affine = bool(placement_class.keys or placement_class.affinities)
        self.wishes = bool(placement_class.affinities or placement_class.preferences)
        self.has_own_order = balancer in EXACT or self.wishes
        """Whether its class matters to the score of a node."""
        self.is_plain = balancer == "least_loaded" and not (self.wishes or self.affine)
        """Whether what a node has in use is all of its score, but for what it holds."""
        self.is_led = self.wishes or group.near is not None
        """Whether some nodes are better than their balancer says."""
        self.parts: dict[PartKey, Pool] = {}
        """As those of the group."""
        self.version = 0
        """Of the carriers that it was made with."""
        self.balancer, self.group, self.log = balancer, group, log
        self.heap: list[tuple[float, int]] = []
        self.best: dict[int, float] = {}
        """Node → the score under which it stands in ``heap``; other entries of it there are spent."""
        self.order: list[tuple[float, int]] = []
        self.at = self.cursor = 0

    @property
    def is_open(self) -> bool:
        """Whether any node may be found in it; False is certain."""
        return bool(self.heap) or self.at < len(self.order) or self.cursor < len(self.log)

    def close(self) -> None:
        """As if every node had been looked at, and none been found: those that change from now on are taken in."""
        self.heap.clear()
        self.best.clear()
        self.at, self.cursor = len(self.order), len(self.log)


class Pools:
    """All pools, with the log of nodes that changed."""

    def __init__(self, filters: tuple[str, ...] = (), known: "Known | None" = None) -> None:
        self.filters = filters
        """Of other packages, by name."""
        self.known = known
        """What is found for all pools that are made of the same nodes; None: these are the only ones."""
        self.is_untouched = True
        """No cycle has placed anything by them; looked at where they have something in common with others."""
        self.pools: dict[tuple[PlacementClass, str], Pool] = {}
        self.groups: dict[GroupKey, Group] = {}
        self.log: list[int] = []
        self.last: dict[int, int] = {}
        """Node → its newest position in the log: earlier ones are spent."""
        self._seen: dict[int, tuple[object, ...]] = {}

    def touch(self, node: int, times: int = 1) -> None:
        """The node has more room, or is otherwise better than it was. So often: pools that are far behind are made anew."""
        self.log += (node,) * times
        self.last[node] = len(self.log) - 1

    def sweep(self, nodes: "dict[int, NodeView]", closely: bool = True) -> bool:
        """Find out which nodes changed without a word; True when any changed in what decides whether it suits, which is looked
        at ``closely`` alone: otherwise only at room."""
        seen, changed = self._seen, []
        for ident, view in nodes.items():
            before = seen.get(ident)
            if not closely and before is not None and before[0] is view.used:
                continue
            now = view.signature
            if before != now:
                seen[ident] = now
                self.touch(ident)
                if before is None or before[1:] != now[1:]:
                    changed.append(ident)
        gone = [ident for ident in seen if ident not in nodes] if len(seen) > len(nodes) else []
        for ident in changed:
            self._regroup(ident, nodes[ident])
        for ident in gone:
            del seen[ident]
            for group in self.groups.values():
                group.version += 1
                group.members.discard(ident)
        if len(self.log) > 4 * len(nodes) + LOG_SPARE or len(self.pools) > POOLS_MOST:
            self._begin_anew()
        return bool(changed or gone)

    def _regroup(self, ident: int, view: "NodeView") -> None:
        for key, group in self.groups.items():
            group.version += 1
            if self._suits(view, key):
                group.members.add(ident)
            else:
                group.members.discard(ident)

    def _suits(self, view: "NodeView", key: GroupKey) -> bool:
        if unsuitable(view, key.constraints, key.tolerations, key.kind, key.gang) is not None:
            return False
        return key.asked is None or refusal(view, key.asked, self.filters) is None

    def _begin_anew(self) -> None:
        self.pools.clear()
        self.log.clear()
        self.last.clear()
        for group in self.groups.values():
            group.orders.clear()
            group.parts.clear()
            group.ranking = Ranking()

    def forget_exact(self) -> None:
        """Scores that hang on what is usual are not what they were."""
        self.pools = {at: pool for at, pool in self.pools.items() if pool.balancer not in EXACT}

    def group(self, placement_class: PlacementClass, nodes: "dict[int, NodeView]") -> Group:
        asked, gang = placement_class if self.filters else None, placement_class.nodes > 1
        key = GroupKey(placement_class.constraints, placement_class.tolerations, placement_class.kind, asked, gang)
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = self._group(key, nodes)
        return group

    def _group(self, key: GroupKey, nodes: "dict[int, NodeView]") -> Group:
        known = self.known
        members = None if known is None else known.members.get(key)
        if members is None:
            members = {ident for ident, view in nodes.items() if self._suits(view, key)}
        if known is None:
            return Group(members)
        known.members[key] = members
        return Group(set(members), known.orders.setdefault(key, {}), known.refused.setdefault(key, []))

    def pool(self, placement_class: PlacementClass, balancer: str, nodes: "dict[int, NodeView]",
             score: "Callable[[Pool, int], float]", version: int) -> Pool:  # fmt: skip
        """The pool of a class. ``score`` tells how a node stands that holds nothing of the class ahead. A class that looks at what
        else is where has it made anew with each ``version`` of that."""
        pool = self.pools.get((placement_class, balancer))
        if pool is None or (pool.affine and pool.version != version) or self._is_behind(pool):
            group = self.group(placement_class, nodes) if pool is None else pool.group
            pool = self.pools[placement_class, balancer] = Pool(placement_class, balancer, group, self.log)
            pool.version = version
            pool.cursor, pool.order = self._order(pool, score)
        return pool

    def part(self, pool: Pool, key: PartKey, group: Group, score: "Callable[[Pool, int], float]") -> Pool:
        """Of a pool, what is in a group of its nodes."""
        part = pool.parts.pop(key, None)
        if part is None or part.group is not group or self._is_behind(part):
            part = Pool(pool.placement_class, pool.balancer, group, self.log)
            part.cursor, part.order = self._order(part, score)
        pool.parts[key] = part  # the last one that was asked comes last
        if len(pool.parts) > PARTS_MOST:
            del pool.parts[next(iter(pool.parts))]
        return part

    def _is_behind(self, pool: Pool) -> bool:
        """Whether so much changed since it last looked that the order which others share as well costs less than to catch up."""
        return not pool.has_own_order and len(self.log) - pool.cursor > len(pool.group.members) // STALE + STALE

    def _order(self, pool: Pool, score: "Callable[[Pool, int], float]") -> tuple[int, list[tuple[float, int]]]:
        """Best first, ties to the node that came first; shared where the class does not matter, until much has changed."""
        group = pool.group
        known = None if pool.has_own_order else group.orders.get(pool.balancer)
        if known is None or len(self.log) - known[0] > len(group.members) // STALE + STALE:
            known = len(self.log), sorted((score(pool, node), node) for node in group.members)
            if not pool.has_own_order:
                group.orders[pool.balancer] = known
                if group.untouched is not None and not self.log and self.is_untouched:
                    group.untouched[pool.balancer] = known
        return known
