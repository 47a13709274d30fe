"""PURE: which of the nodes that can take a task is the best: a score, lower is better, and an order without chance."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

from jarvis.core.resources import Resources

Balancer = Literal["least_loaded", "bin_pack", "spread", "round_robin", "random", "best_fit", "fgd", "gpu_fit"]
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
    need: Resources = {}
    """What is to be placed."""
    gpus: tuple[int, ...] = ()
    """Thousandths free of each GPU together with as much of its memory, where the balancer looks at them (``EXACT``)."""
    gpu_type: str = ""
    lost: Callable[[int, tuple[int, ...], str], float] = lambda cpu, gpus, kind: 0.0
    """Thousandths of free GPUs that a usual task could not use (``policy.fragmentation``)."""
    hungry: Callable[[int, tuple[int, ...]], float] = lambda cpu, gpus: 0.0
    """Thousandths of free GPUs for which there is no cpu (``policy.fragmentation``)."""
    gpus_after: tuple[int, ...] = ()
    """As ``gpus``, if it were placed there."""


def _share(candidate: Candidate) -> float:
    """Dominant share in use, 0 to 1, and above by what is ahead."""
    return share_of(candidate.used, candidate.capacity) + candidate.ahead


def share_of(used: Resources, capacity: Resources) -> float:
    """The largest part in use of anything that there is."""
    best = 0.0
    for name, amount in used.items():
        total = capacity.get(name)
        if total and amount > best * total:
            best = amount / total
    return best


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


_LARGE_CPU, _LARGE_GPU = 128_000, 8000


def _best_fit(candidate: Candidate) -> float:
    """As little left over as possible of cpu and GPU alike, each measured by what a large node has."""
    return float(int(100 * _left_over(candidate))) + candidate.ahead


def _left_over(candidate: Candidate) -> float:
    """From 0 to 1."""
    left = [
        (candidate.capacity.get(name, 0) - candidate.used.get(name, 0) - candidate.need.get(name, 0)) / large
        for name, large in (("cpu", _LARGE_CPU), ("gpu", _LARGE_GPU))
    ]
    return sum(left) / 2


def _cpu_before_after(candidate: Candidate) -> tuple[int, int]:
    """What is free of it without and with what is to be placed."""
    cpu = candidate.capacity.get("cpu", 0) - candidate.used.get("cpu", 0)
    return cpu, cpu - candidate.need.get("cpu", 0)


def _growth(candidate: Candidate) -> float:
    """How many GPUs of the node's free ones a usual task can no longer use (Weng et al., ATC'23); below 0 where more is used up
    than is lost."""
    before, after = _cpu_before_after(candidate)
    lost = candidate.lost(before, candidate.gpus, candidate.gpu_type)
    return (candidate.lost(after, candidate.gpus_after, candidate.gpu_type) - lost) / 1000


def _hunger(candidate: Candidate) -> float:
    """How many more of its free GPUs have no cpu."""
    before, after = _cpu_before_after(candidate)
    return (candidate.hungry(after, candidate.gpus_after) - candidate.hungry(before, candidate.gpus)) / 1000


def _fgd(candidate: Candidate) -> float:
    """As published: on a scale of a hundred levels, and what is equal goes to the node that came first."""
    return -float(int(100 / (1 + math.exp(_growth(candidate))))) + candidate.ahead


LEFT_OVER = 0.06
"""GPUs that may be lost to leave a whole large node less over."""
HUNGRY = 0.25
"""GPUs lost that one without cpu is as bad as: what follows may ask for less than is usual."""
AHEAD = 1000.0
"""More than any node can be better by."""


def _gpu_fit(candidate: Candidate) -> float:
    """As little lost as possible, by the next task and by many, and a little of that for leaving the least over, which keeps work
    together."""
    return (
        _growth(candidate) + HUNGRY * _hunger(candidate) + LEFT_OVER * _left_over(candidate) + AHEAD * candidate.ahead
    )


SCORES: dict[str, Callable[[Candidate], float]] = {
    "least_loaded": _least_loaded,
    "bin_pack": _bin_pack,
    "spread": _spread,
    "round_robin": _round_robin,
    "random": _random,
    "best_fit": _best_fit,
    "fgd": _fgd,
    "gpu_fit": _gpu_fit,
}
"""By name; ``turn`` is the node's own count of placements for round robin."""

OF_USE = frozenset({"least_loaded", "bin_pack"})
"""The dominant share in use and nothing else, for a node with no work ahead: the fuller the worse, or the better."""
IMPROVES = {"bin_pack", "best_fit", "fgd", "gpu_fit"}
"""Where a node gets better by being used, so that each use has to be made known; so do all of other packages."""
OF_STATE = frozenset({"fgd", "gpu_fit"})
"""What a node has, what of that is in use and what is free on each GPU, and nothing else."""
EXACT = {"best_fit", "fgd", "gpu_fit"}
"""Where the score depends on what is placed, and nothing but the very best will do, whatever the search costs; so it is thought of
all of other packages."""
