"""PURE: which of the nodes that can take a task is the best: a score, lower is better, and an order without chance."""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

from jarvis.core.resources import Resources

Balancer = Literal["least_loaded", "bin_pack", "spread", "round_robin", "random"]
BALANCERS: tuple[str, ...] = get_args(Balancer)


class Candidate(NamedTuple):
    """What a score may look at: a node that passed the filters, as it stands at this point of the cycle."""

    node: int
    capacity: Resources
    used: Resources
    ahead: int
    """Assignments of this class beyond the node's room."""
    same_task: int
    """Elements of the same task placed there in this cycle."""
    turn: int
    """Placements so far, for round robin and the seeded random."""
    seed: int


def _share(candidate: Candidate) -> float:
    """Dominant share in use, 0 to 1, and above by what is ahead."""
    shares = [candidate.used.get(name, 0) / total for name, total in candidate.capacity.items() if total]
    return max(shares, default=0.0) + candidate.ahead


def _mix(value: int) -> int:
    """A fixed scramble of 64 bits (the finaliser of SplitMix64, Steele et al., OOPSLA 2014)."""
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return value ^ (value >> 31)


def _least_loaded(candidate: Candidate) -> float:
    return _share(candidate)


def _bin_pack(candidate: Candidate) -> float:
    return -_share(candidate) if not candidate.ahead else float(candidate.ahead)


def _spread(candidate: Candidate) -> float:
    return candidate.same_task * 1000.0 + _share(candidate)


def _round_robin(candidate: Candidate) -> float:
    return float(candidate.turn)


def _random(candidate: Candidate) -> float:
    return float(_mix(candidate.seed * 1_000_003 + candidate.turn * 8191 + candidate.node))


SCORES: dict[str, Callable[[Candidate], float]] = {
    "least_loaded": _least_loaded,
    "bin_pack": _bin_pack,
    "spread": _spread,
    "round_robin": _round_robin,
    "random": _random,
}
"""By name; ``turn`` is the node's own count of placements for round robin."""

OF_USE = frozenset({"least_loaded", "bin_pack"})
"""The dominant share in use and nothing else, for a node with no work ahead: the fuller the worse, or the better."""
IMPROVES = frozenset({"bin_pack"})
"""Where a node gets better by being used, so that each use has to be made known."""
EXACT: frozenset[str] = frozenset()
"""Where nothing but the very best will do, whatever the search costs."""
