"""PURE: affinity: near and apart from what carries a key, by node or by what a label of nodes says, as a must or as a wish.

A task carries its ``keys`` and those from which its kind is to be apart. A must of one side binds both: what carries a key does not
come to where something wants to be apart from it. What wants to be near a key that it carries itself may be the first to come.
Nothing here costs anything while no task names a key; a class that does has its candidates made anew in each cycle after one with
such a key came or went.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from jarvis.core.task import Affinity, Preference
from jarvis.scheduler.filters import Reason, holds

if TYPE_CHECKING:
    from jarvis.scheduler.cluster import NodeView

STEP, STEP_OF_RANDOM = 1e7, 1e20
"""What a weight of 1 counts in a score: wishes decide first, and the balancer where they are equal."""
Place = int | str
"""A node by its id, or the nodes of which a label has one value."""


class Asking(Protocol):
    """A spec or a placement class."""

    @property
    def keys(self) -> tuple[str, ...]: ...
    @property
    def affinities(self) -> tuple[Affinity, ...]: ...


class Wishing(Asking, Protocol):
    @property
    def preferences(self) -> tuple[Preference, ...]: ...


def carried(asking: Asking) -> set[str]:
    """The keys by which others find it."""
    return {*asking.keys, *(a.key for a in asking.affinities if a.kind == "apart")}


@dataclass(slots=True)
class Carriers:
    """Who is where: by key, node → attempts there that carry it; ``guards`` are those that must be apart, by key and label."""

    of: dict[str, dict[int, int]] = field(default_factory=dict)
    guards: dict[str, dict[str, dict[int, int]]] = field(default_factory=dict)
    version: int = 0
    """Rises with all that may let a node be chosen that could not be before."""

    def add(self, asking: Asking, node: int, count: int = 1) -> None:
        """An attempt came to a node, or with a count of -1 left it."""
        self.version += 1
        for key in carried(asking):
            _count(self.of.setdefault(key, {}), node, count)
        for a in asking.affinities:
            if a.kind == "apart" and not a.weight:
                _count(self.guards.setdefault(a.key, {}).setdefault(a.label, {}), node, count)
        if count < 0:
            self._forget(asking)

    def _forget(self, asking: Asking) -> None:
        """What nobody carries any more."""
        for key in carried(asking):
            if not self.of[key]:
                del self.of[key]
                self.guards.pop(key, None)


def _count(counts: dict[int, int], node: int, count: int) -> None:
    left = counts.get(node, 0) + count
    if left:
        counts[node] = left
    else:
        del counts[node]


class Around:
    """What carries which key around each node, in the course of a cycle that adds to it."""

    def __init__(self, carriers: Carriers, nodes: "Mapping[int, NodeView]") -> None:
        self._carriers, self._nodes = carriers, nodes
        self._counts: dict[tuple[str, str, bool], dict[Place, int]] = {}
        self._new: list[tuple[Asking, int]] = []
        self._guarding: dict[str, set[str]] = {}
        """Key → labels by which something that came in this cycle is apart from it."""

    def refusal(self, view: "NodeView", asking: Asking) -> Reason | None:
        """Why it must not go there."""
        return next(self.refusals(view, asking), None)

    def refusals(self, view: "NodeView", asking: Asking) -> Iterator[Reason]:
        """Every reason why not; that two keep apart from each other is told once."""
        own = carried(asking)
        told = set()
        for a in asking.affinities:
            found = None if a.weight else self._against(view, a, own)
            if found is not None:
                told.add(a.key)
                yield found
        for key in sorted(own - told):
            yield from self._guarded(view, key)

    def _against(self, view: "NodeView", a: Affinity, own: set[str]) -> Reason | None:
        place = _place(view, a.label)
        if place is None:
            return Reason("NoMatchingLabel", f"has no label {a.label}, by which tasks are to be {a.kind}")
        counts = self._of(a.key, a.label)
        there = counts.get(place, 0)
        where = f"with {a.label}={place}" if a.label else "here"
        if a.kind == "apart":
            return Reason("AntiAffinity", f"something with the key {a.key} is {where}") if there else None
        if there or (a.key in own and not self._of(a.key, "")):
            return None
        return Reason("Affinity", f"nothing with the key {a.key} is {where}")

    def _guarded(self, view: "NodeView", key: str) -> Iterator[Reason]:
        """What is there already and must be apart from this key."""
        labels = {*self._carriers.guards.get(key, ()), *self._guarding.get(key, ())}
        for label in sorted(labels):
            place = _place(view, label)
            if place is not None and self._of(key, label, guards=True).get(place, 0):
                where = f"with {label}={place}" if label else "here"
                yield Reason("AntiAffinity", f"something that is apart from the key {key} is {where}")

    def wished(self, view: "NodeView", wishing: Wishing) -> int:
        """The sum of the weights that a node meets; each of those that it should be apart from takes away as much."""
        total = sum(p.weight for p in wishing.preferences if holds(p, view.node.labels))
        for a in wishing.affinities:
            place = _place(view, a.label) if a.weight else None
            if place is not None:
                there = self._of(a.key, a.label).get(place, 0)
                total += a.weight * (min(there, 1) if a.kind == "near" else -there)
        return total

    def add(self, asking: Asking, node: int) -> list[int]:
        """One more; gives the nodes that may be better for it: those around the first of its kind there."""
        better: list[int] = []
        own = carried(asking)
        for (key, label, guards), counts in self._counts.items():
            if key in own and (not guards or _must_be_apart(asking, key, label)):
                place = _place(self._nodes[node], label)
                if place is not None:
                    counts[place] = counts.get(place, 0) + 1
                    if counts[place] == 1 and not guards:
                        better += [n for n, view in self._nodes.items() if _place(view, label) == place]
        self._new.append((asking, node))
        for a in asking.affinities:
            if a.kind == "apart" and not a.weight:
                self._guarding.setdefault(a.key, set()).add(a.label)
        return better

    def _of(self, key: str, label: str, guards: bool = False) -> dict[Place, int]:
        """Place → how many carry the key there; looked up once a cycle."""
        known = self._counts.get((key, label, guards))
        if known is None:
            known = self._counts[key, label, guards] = {}
            by_node = self._carriers.guards.get(key, {}).get(label, {}) if guards else self._carriers.of.get(key, {})
            new = [
                (node, 1) for asking, node in self._new
                if key in carried(asking) and (not guards or _must_be_apart(asking, key, label))
            ]  # fmt: skip
            for node, count in [*by_node.items(), *new]:
                place = _place(self._nodes[node], label) if node in self._nodes else None
                if place is not None:
                    known[place] = known.get(place, 0) + count
        return known


def _must_be_apart(asking: Asking, key: str, label: str) -> bool:
    return any(a.kind == "apart" and not a.weight and (a.key, a.label) == (key, label) for a in asking.affinities)


def _place(view: "NodeView", label: str) -> Place | None:
    return view.node.labels.get(label) if label else view.node.id
