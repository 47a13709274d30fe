"""A recorded workload: what was submitted when and how long it ran, whole or in sequences."""

import hashlib
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from jarvis.core.errors import InvalidValue
from jarvis.core.resources import Resources, times


@dataclass(slots=True)
class Recorded:
    """A recorded submission. Instants and durations in seconds; ``limit`` is what its user asked for, if anything."""

    ident: int
    submitted: float
    run: float
    limit: float | None
    resources: Resources
    user: str = "u"
    project: str = "default"
    name: str = "t"
    queue: str = "default"
    priority: int = 0
    nodes: int = 1
    """On how many it runs at once, ``resources`` on each."""

    @property
    def whole(self) -> Resources:
        return self.resources if self.nodes == 1 else times(self.resources, self.nodes)


@dataclass(slots=True)
class Workload:
    """Submissions in order of submission, and the machine that the trace says it ran on: (count, resources) of equal nodes."""

    items: list[Recorded]
    nodes: list[tuple[int, Resources]] = field(default_factory=list)
    dropped: int = 0
    """Rows without a run time or a size."""


def gathered(rows: Iterable[Recorded | None]) -> tuple[list[Recorded], int]:
    """Those that ran, in order of submission, and how many rows tell of none (None)."""
    every = list(rows)
    items = sorted(filter(None, every), key=lambda item: item.submitted)
    return items, len(every) - len(items)


def cut(items: list[Recorded], start: int, count: int) -> list[Recorded]:
    """A sequence of consecutive items."""
    if start < 0 or start + count > len(items):
        raise InvalidValue("from", start, f"within the {len(items)} items of the trace, with {count} behind it")
    return items[start : start + count]


def drawn_starts(seed: int, draws: int, count: int, total: int) -> Iterator[int]:
    """Starts of sequences as RLScheduler (Zhang et al., SC'20) draws them: numpy's old generator, seeded as gym did."""
    words = hashlib.sha512(str(seed).encode()).digest()[:8]
    chance = random.Random(int.from_bytes(words, "little"))  # noqa: S311 - has to be this one
    span = total - 2 * count - 2
    mask = (1 << span.bit_length()) - 1
    while draws:
        value = chance.getrandbits(32) & mask
        if value <= span:
            draws -= 1
            yield count + value
