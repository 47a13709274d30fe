"""PURE: how much of a node's free GPUs the usual tasks could not use (FGD; Weng et al., USENIX ATC'23).

The usual tasks are the most frequent shapes that make up 95 % of what is submitted, of equally frequent ones the larger. For each
of them, what it could not use of a node's free GPUs is lost: all of it if it does not fit there or asks for none, else the GPUs
with less free than it asks of each. Only which of the usual tasks still have enough cpu matters of a node's free cpu, so states
are few and are remembered.

That looks one task ahead. Where many are to follow, GPUs are lost as well if the free cpu is not enough for all of them at
what a GPU usually comes with: those are hungry.
"""

from bisect import bisect_right
from collections.abc import Hashable, Mapping
from typing import NamedTuple

from jarvis.core.gpus import WHOLE
from jarvis.core.resources import Resources
from jarvis.core.task import Constraint

COVER = 0.95
STATES_MOST = 500_000
STANDINGS_MOST = 20_000


class Shape(NamedTuple):
    """What a task asks, as far as fragmentation goes. ``types``: of GPU that will do, joined by ``|``; "" for any."""

    cpu: int
    gpu: int
    types: str = ""


GPU_TYPE = "gpu.type"
"""Label of a node: what kind of GPU it has."""


def shape_of(resources: Resources, constraints: tuple[Constraint, ...]) -> Shape:
    types = next((c.value for c in constraints if c.label == GPU_TYPE and c.op == "="), "")
    return Shape(resources.get("cpu", 0), resources.get("gpu", 0), types)


class Standing:
    """How a node stands as far as this goes, with the scores that it was given by what asks."""

    __slots__ = ("scores",)

    def __init__(self) -> None:
        self.scores: dict[Hashable, float] = {}


class Fragmentation:
    """``counts``: how often each shape is submitted."""

    def __init__(self, counts: Mapping[Shape, int]) -> None:
        total = sum(counts.values()) or 1
        self.usual: list[tuple[float, Shape]] = []
        covered = 0
        for count, shape in sorted(((count, shape) for shape, count in counts.items()), reverse=True):
            if covered >= COVER * total:
                break
            covered += count
            self.usual.append((float(count), shape))
        weight = sum(count for count, _ in self.usual) or 1.0
        self.usual = [(count / weight, shape) for count, shape in self.usual]
        self._cpus = sorted({shape.cpu for _, shape in self.usual})
        asked = sum(p * shape.gpu for p, shape in self.usual)
        self._cpu_each = sum(p * shape.cpu for p, shape in self.usual if shape.gpu) / asked if asked else 0.0
        """Thousandths of cpu that come with a thousandth of GPU."""
        self._known: dict[tuple[int, tuple[int, ...], str], float] = {}
        self._standings: dict[Hashable, Standing] = {}

    def lost(self, cpu: int, gpus: tuple[int, ...], kind: str) -> float:
        """Thousandths of GPU that a usual task could not use of these free ones, on average."""
        state = (bisect_right(self._cpus, cpu), tuple(sorted(gpus)), kind)
        value = self._known.get(state)
        if value is None:
            if len(self._known) > STATES_MOST:
                self._known.clear()
            value = self._known[state] = sum(p * _unusable(shape, cpu, gpus, kind) for p, shape in self.usual)
        return value

    def standing(self, state: Hashable) -> Standing:
        """One for all nodes in the same state, as long as the same is usual."""
        found = self._standings.get(state)
        if found is None:
            if len(self._standings) > STANDINGS_MOST:
                self._standings.clear()
            found = self._standings[state] = Standing()
        return found

    def hungry(self, cpu: int, gpus: tuple[int, ...]) -> float:
        """Thousandths of these free GPUs for which there is no cpu, if each takes what it usually comes with."""
        return max(sum(gpus) - cpu / self._cpu_each, 0.0) if self._cpu_each else 0.0


def _unusable(shape: Shape, cpu: int, gpus: tuple[int, ...], kind: str) -> int:
    free = sum(gpus)
    if not shape.gpu or shape.cpu > cpu or (shape.types and kind not in shape.types.split("|")):
        return free
    each = min(WHOLE, shape.gpu)
    enough = [amount for amount in gpus if amount >= each]
    if len(enough) * each < shape.gpu:
        return free
    return free - sum(enough)
