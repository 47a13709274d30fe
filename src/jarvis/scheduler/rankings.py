"""PURE: the nodes of a group by what they have in use, least first, for all classes for which nothing else counts: kept right as
they are used, so that most choices look at the first node alone.

It is kept from cycle to cycle. What became better stands in the log of the pools; what became worse, because another cycle used it,
is found out when it comes first. What a cycle places changes it at once, although the plan may yet come to nothing: so the next one
looks at those nodes again.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator

REBUILD = 8
"""It is made anew when more than this part of its nodes changed."""


class Ranking:
    """(score, node) in order. ``cursor``: how far the log of the pools is taken in."""

    __slots__ = ("_at", "_scores", "_used", "cursor", "entries")

    def __init__(self) -> None:
        self.entries: list[tuple[float, int]] = []
        self._scores: dict[int, float] = {}
        self._used: list[int] = []
        """Nodes that the cycle which looked last uses, in order; ``_at``: how many of them are taken in."""
        self._at = 0
        self.cursor = -1

    def catch_up(self, used: list[int], log: list[int], members: set[int], score: Callable[[int], float]) -> None:
        """Take in what changed: ``used`` is the list of the nodes that this cycle used so far, which is that of no other cycle;
        ``score`` tells how a node stands."""
        if self._used is not used:
            changed = {*self._used, *log[self.cursor :]} if self.cursor >= 0 else members
            self._used, self._at, self.cursor = used, 0, len(log)
            few = len(changed) * REBUILD <= len(members)
            if few:
                self._move(changed, members, score)
            if not few or len(self._scores) != len(members):  # some are gone without a word
                self._make(members, score)
        if self._at < len(used):
            self._move(used[self._at :], members, score)
            self._at = len(used)

    def first(self, count: int, members: set[int], score: Callable[[int], float]) -> Iterator[int]:
        """So many nodes with the least in use, in order."""
        entries, at = self.entries, 0
        while at < min(count, len(entries)):
            value, node = entries[at]
            if score(node) == value:
                yield node
                at += 1
            else:
                self._move((node,), members, score)

    def _make(self, members: Iterable[int], score: Callable[[int], float]) -> None:
        self._scores = {node: score(node) for node in members}
        self.entries = sorted((value, node) for node, value in self._scores.items())

    def _move(self, changed: Iterable[int], members: set[int], score: Callable[[int], float]) -> None:
        entries, scores = self.entries, self._scores
        for node in changed:
            before, now = scores.get(node), score(node) if node in members else None
            if before == now:
                continue
            if before is not None:
                del entries[bisect_left(entries, (before, node))]
            if now is None:
                del scores[node]
            else:
                scores[node] = now
                insort(entries, (now, node))
