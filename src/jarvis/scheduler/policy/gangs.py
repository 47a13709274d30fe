"""PURE: where a gang goes: all of its ranks at once, each on a node of its own, or nowhere; and when it could at the earliest."""

from collections.abc import Callable, Collection
from heapq import nsmallest

from jarvis.scheduler.policy.backfill import NEVER


def best_nodes(nodes: Collection[int], count: int, score: Callable[[int], float]) -> tuple[int, ...] | None:
    """The ``count`` nodes with the lowest score, ascending by id, ties to the node that came first; None when there are fewer."""
    if len(nodes) < count:
        return None
    return tuple(sorted(nsmallest(count, nodes, key=lambda node: (score(node), node))))


def earliest_together(
    nodes: Collection[int], count: int, earliest: Callable[[int, float], float]
) -> tuple[float, tuple[int, ...]] | None:
    """The first instant at which ``count`` of the nodes can begin, and those nodes; None where the known ends do not make room.

    ``earliest``: when a node could, not before an instant. That all of them could at some time is not enough: what is reserved
    takes room away again, so each is asked anew about the instant at which the last of them could.
    """
    at, starts = 0.0, {node: earliest(node, 0.0) for node in nodes}
    while len(starts) >= count:
        last = nsmallest(count, starts.values())[-1]
        if last == at:
            return at, tuple(sorted(node for node, start in starts.items() if start == at)[:count])
        if last == NEVER:
            return None
        at = last
        starts = {node: start if start >= at else earliest(node, at) for node, start in starts.items()}
    return None
