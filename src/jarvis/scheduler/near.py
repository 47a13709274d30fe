"""PURE: of the nodes that a task may start on now, one that holds what it needs.

What may start, and when, is as it would be without this: a node that was found is left for another only where that one has room
now that is nobody else's, meets the user's wishes as well and holds more. The nodes that hold a thing which many do are a group of
their own, with pools as any other, so that a choice costs what changed and not how many hold it.
"""

from collections.abc import Callable, Iterator, Sequence
from heapq import nsmallest
from typing import TYPE_CHECKING

from jarvis.core.holdings import needs, shown
from jarvis.core.resources import format_amount
from jarvis.core.task import Task, TaskSpec
from jarvis.scheduler.policy.locality import BALANCERS, Holders, Locality, level, worth
from jarvis.scheduler.pools import Group, PartKey, Pool, Search

if TYPE_CHECKING:
    from jarvis.scheduler.choice import Choice

PARTS_MOST = 64
"""Parts of a group that are kept: of those that it was asked for last."""
FEW = 8
"""Nodes that are looked at one by one."""
TOLD_MOST = 3


def said(holders: Holders, spec: TaskSpec, node: int) -> str:
    """What a node holds of what a task needs; empty when that is nothing."""
    held = holders.on(node)
    return ", ".join(f"{shown(n)} ({format_amount('memory', held[n])})" for n in needs(spec) if n in held)


def most_near(holders: Holders, spec: TaskSpec) -> list[int]:
    """The nodes that hold some of what a task needs, those first that hold the most."""
    names = needs(spec)
    nodes = {node for name in names if name in holders.of for node in holders.of[name].nodes}
    return nsmallest(TOLD_MOST, nodes, key=lambda node: (-holders.bytes_on(node, names), node))


class Near:
    """Looks at what nodes hold, for one cycle. It does not know the choice that knows it, as pools do not."""

    __slots__ = ("_holders", "_locality", "any_holds")

    def __init__(self, holders: Holders, locality: Locality) -> None:
        self._holders, self._locality = holders, locality
        self.any_holds = bool(holders.of)

    def _counts(self, pool: Pool, task: Task) -> tuple[list[str], int]:
        """What it needs and some node holds, and from how many bytes on that counts."""
        spec, known = task.spec, self._holders.of
        if not (spec.push or spec.container):
            return [], 0
        least = self._locality.least_of(spec.queue) if pool.balancer in BALANCERS else 0
        return ([name for name in needs(spec) if name in known] if least else []), least

    def held(self, pool: Pool, task: Task, nodes: Sequence[int]) -> int:
        """Bytes of what it needs on nodes, where they count."""
        names, least = self._counts(pool, task)
        every = [self._holders.bytes_on(node, names) for node in nodes] if names else ()
        return sum(held for held in every if held >= least)

    def score_of(self, choice: "Choice", pool: Pool, task: Task) -> Callable[[int], float]:
        """How nodes stand for a rank of a gang."""
        holders = self._holders
        names, least = self._counts(pool, task) if self.any_holds else ([], 0)
        if not names:
            return lambda node: choice.score(pool, node, task.id)
        return lambda node: choice.score(pool, node, task.id) - worth(holders.bytes_on(node, names), least)

    def better(
        self, choice: "Choice", pool: Pool, task: Task, found: tuple[int, bool], search: Search
    ) -> tuple[int, bool]:
        """The node that was found, or one that is better for what it holds."""
        names, least = self._counts(pool, task)
        if not names:
            return found
        holders = self._holders

        def standing(node: int, *, ahead: bool = False) -> tuple[int, int, float, int]:
            wished = choice.around.wished(choice.nodes[node], pool.placement_class) if pool.wishes else 0
            held = 0 if ahead else level(holders.bytes_on(node, names), least)
            return -wished, -held, choice.score(pool, node, task.id), node

        most = level(sum(holders.of[name].most for name in names), least)
        if not found[1] and level(holders.bytes_on(found[0], names), least) == most:
            return found
        best = standing(found[0], ahead=found[1])
        names.sort(key=lambda name: (len(self._holders.of[name].nodes), name))
        for at in range(len(names)):
            for node in self._best_of(choice, pool, task, (tuple(names[at:]), least), search):
                best = min(best, standing(node))
        return found if best[3] == found[0] else (best[3], False)

    def _best_of(self, choice: "Choice", pool: Pool, task: Task, wanted: PartKey, search: Search) -> Iterator[int]:
        """Of the nodes that hold the first thing, which the fewest do, those that have room now, or the best of them."""
        (first, *_), _ = wanted
        nodes = self._holders.of[first].nodes
        if len(nodes) <= FEW:
            able = (node for node in nodes if choice.takes(pool, task, (node,), search.until, search.latest))
            yield from able
        else:
            part = choice.pools.part(pool, wanted, self._group(pool.group, wanted), choice.score)
            best = choice.best(part, search._replace(aside=[]))
            choice.too_long = False  # one was found already
            if best is not None and not best[1]:
                yield best[0]

    def _group(self, group: Group, wanted: PartKey) -> Group:
        """Of a group, the nodes that hold the first thing, and what they hold of all."""
        holders, (names, least) = self._holders, wanted
        versions = (group.version, *(holders.of[name].version for name in names))
        known = group.parts.pop(wanted, None)
        if known is not None and known[0] == versions:
            group.parts[wanted] = known  # the last one that was asked comes last
            return known[1]
        if len(group.parts) >= PARTS_MOST:
            del group.parts[next(iter(group.parts))]
        held = {node: holders.bytes_on(node, names) for node in holders.of[names[0]].nodes if node in group.members}
        part = Group({node for node, size in held.items() if size >= least})
        part.near = {node: worth(held[node], least) for node in part.members}
        group.parts[wanted] = versions, part
        return part
