"""PURE: where a gang goes: all of its ranks at once, each on a node of its own, or nowhere; and when it could at the earliest."""

from collections.abc import Callable, Collection, Mapping
from heapq import nsmallest

from jarvis.core.resources import Resources
from jarvis.scheduler.policy.backfill import NEVER, Horizon


def best_nodes(nodes: Collection[int], count: int, score: Callable[[int], float]) -> tuple[int, ...] | None:
    """The ``count`` nodes with the lowest score, ascending by id, ties to the node that came first; None when there are fewer."""
    if len(nodes) < count:
        return None
    return tuple(sorted(nsmallest(count, nodes, key=lambda node: (score(node), node))))


def earliest_together(
    horizons: Mapping[int, Horizon], count: int, need: Resources, seconds: float
) -> tuple[float, tuple[int, ...]] | None:
    """The first instant from which ``count`` of the nodes have ``need`` free for ``seconds``, and those nodes; None where the known
    ends do not make room. That all of them could at some time is not enough: what is reserved takes room away again."""
    starts = {node: horizon.earliest(need, seconds) for node, horizon in horizons.items()}
    while True:
        soonest = nsmallest(count, starts.items(), key=lambda start: (start[1], start[0]))
        if len(soonest) < count or soonest[-1][1] == NEVER:
            return None
        at = soonest[-1][1]
        if all(start == at or horizons[node].fits(need, at, at + seconds) for node, start in soonest):
            return at, tuple(sorted(node for node, _ in soonest))
        starts = {
            node: start if start >= at else horizons[node].earliest(need, seconds, after=at)
            for node, start in starts.items()
        }
