"""PURE: filters of other packages, and which policies of others are in use. ``jarvis.policies`` finds and installs them."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from jarvis.core.resources import Resources
from jarvis.scheduler.filters import Reason
from jarvis.scheduler.task_queue import PlacementClass

if TYPE_CHECKING:
    from jarvis.scheduler.cluster import NodeView

WORD = "PolicyFilter"


class Plugged(NamedTuple):
    """A policy of another package. ``kind``: order, score or filter."""

    kind: str
    name: str
    package: str
    version: str


class NodeFacts(NamedTuple):
    """What a filter may look at of a node: what changes it makes the node be looked at again."""

    name: str
    resources: Resources
    labels: Mapping[str, str]
    taints: tuple[str, ...]


FILTERS: dict[str, Callable[[NodeFacts, PlacementClass], str]] = {}
"""By name: why a node may not have tasks of a class, "" where it may."""


def refusal(view: "NodeView", placement_class: PlacementClass, names: tuple[str, ...]) -> Reason | None:
    """What the first of the named filters that refuses says."""
    node = view.node
    for name in names:
        text = FILTERS[name](NodeFacts(node.name, node.resources, node.labels, node.taints), placement_class)
        if text:
            return Reason(WORD, f"{name}: {text}")
    return None
