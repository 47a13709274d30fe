"""PURE: which nodes are suspect or lost, from when they were heard of. Silent is not dead: many at once means us, not them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from jarvis.core.node import NodeState, Windows

MASS_SHARE = 0.5
MASS_LEAST = 3


class Verdict(StrEnum):
    HEARD = "heard"
    SUSPECT = "suspect"
    LOST = "lost"
    FENCED = "fenced"


@dataclass(frozen=True, slots=True)
class Heard:
    """What is known of a node: its state, and seconds since it was last heard of."""

    state: NodeState
    silent_s: float


@dataclass(slots=True)
class Judgement:
    """What follows. ``mass_loss``: so many are silent that nobody is declared lost, and a person is called."""

    verdicts: dict[int, Verdict] = field(default_factory=dict)
    mass_loss: bool = False


def judge(nodes: Mapping[int, Heard], windows: Windows) -> Judgement:
    """Compare each node's silence with the windows."""
    judgement = Judgement()
    alive = {n: h for n, h in nodes.items() if h.state is not NodeState.LOST}
    # Heartbeats come at different instants, so those that fell silent together are not all lost at the same one.
    silent = [n for n, heard in alive.items() if heard.silent_s >= windows.suspect_s]
    judgement.mass_loss = len(silent) >= MASS_LEAST and len(silent) > MASS_SHARE * len(alive)
    for node, heard in nodes.items():
        verdict = _verdict(heard, judgement.mass_loss, windows)
        if verdict is not None:
            judgement.verdicts[node] = verdict
    return judgement


def _verdict(heard: Heard, mass_loss: bool, windows: Windows) -> Verdict | None:
    if heard.state is NodeState.LOST:
        return Verdict.FENCED if heard.silent_s >= windows.superseded_s else None
    if heard.silent_s >= windows.lost_s and not mass_loss:
        return Verdict.LOST
    if heard.silent_s >= windows.suspect_s:
        return Verdict.SUSPECT if heard.state is NodeState.READY else None
    return Verdict.HEARD if heard.state is NodeState.SUSPECT else None
