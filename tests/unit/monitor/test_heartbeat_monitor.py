"""Silent is not dead: who is suspected, who is lost, and when the judge doubts itself."""

import pytest

from jarvis.core.node import NodeState
from jarvis.monitor.heartbeat_monitor import FENCED_S, LOST_S, SUSPECT_S, Heard, Verdict, judge


@pytest.mark.parametrize(("state", "silent", "verdict"), [
    (NodeState.READY, SUSPECT_S - 0.1, None), (NodeState.READY, SUSPECT_S, Verdict.SUSPECT),
    (NodeState.SUSPECT, SUSPECT_S, None), (NodeState.SUSPECT, 0.0, Verdict.HEARD),
    (NodeState.READY, LOST_S, Verdict.LOST), (NodeState.SUSPECT, LOST_S, Verdict.LOST),
    (NodeState.LOST, LOST_S, None), (NodeState.LOST, FENCED_S, Verdict.FENCED), (NodeState.READY, 0.0, None),
])  # fmt: skip
def test_one_node(state: NodeState, silent: float, verdict: Verdict | None) -> None:
    judgement = judge({1: Heard(state, silent)})
    assert judgement.verdicts == ({} if verdict is None else {1: verdict})
    assert not judgement.mass_loss


@pytest.mark.parametrize(
    ("silent", "alive", "mass"), [(2, 0, False), (3, 0, True), (3, 3, False), (4, 3, True), (30, 31, False)]
)
def test_many_silent_at_once_mean_us(silent: int, alive: int, mass: bool) -> None:
    nodes = {i: Heard(NodeState.READY, LOST_S if i < silent else 0.0) for i in range(silent + alive)}
    judgement = judge(nodes)
    assert judgement.mass_loss is mass
    wanted = Verdict.SUSPECT if mass else Verdict.LOST
    assert judgement.verdicts == dict.fromkeys(range(silent), wanted)


def test_nodes_that_are_lost_already_do_not_count() -> None:
    nodes = {i: Heard(NodeState.LOST, LOST_S) for i in range(10)} | {10: Heard(NodeState.READY, LOST_S)}
    assert judge(nodes).verdicts == {10: Verdict.LOST}


def test_those_that_fell_silent_together_are_not_heard_of_at_the_same_instant() -> None:
    """Heartbeats of five nodes come spread over two seconds; three are cut off at once, and the first is lost before the others."""
    nodes = {1: Heard(NodeState.SUSPECT, LOST_S), 2: Heard(NodeState.SUSPECT, LOST_S - 0.9)}
    nodes |= {3: Heard(NodeState.SUSPECT, LOST_S - 1.8), 4: Heard(NodeState.READY, 0.3), 5: Heard(NodeState.READY, 1.1)}
    judgement = judge(nodes)
    assert judgement.mass_loss
    assert judgement.verdicts == {}
