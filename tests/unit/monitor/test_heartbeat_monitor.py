"""Silent is not dead: who is suspected, who is lost, and when the judge doubts itself."""

import pytest

from jarvis.core.node import NodeState, Windows
from jarvis.monitor.heartbeat_monitor import Heard, Verdict, judge

W = Windows()


def test_the_node_ends_it_before_the_leader_supersedes_it_however_their_clocks_go() -> None:
    assert (W.fence_s, W.grace_s, W.superseded_s) == (75.0, 5.0, 100.0)
    assert (W.fence_s + W.grace_s) * 1.25 <= W.superseded_s


@pytest.mark.parametrize(("state", "silent", "verdict"), [
    (NodeState.READY, W.suspect_s - 0.1, None), (NodeState.READY, W.suspect_s, Verdict.SUSPECT),
    (NodeState.SUSPECT, W.suspect_s, None), (NodeState.SUSPECT, 0.0, Verdict.HEARD),
    (NodeState.READY, W.lost_s, Verdict.LOST), (NodeState.SUSPECT, W.lost_s, Verdict.LOST),
    (NodeState.LOST, W.lost_s, None), (NodeState.LOST, W.superseded_s, Verdict.FENCED), (NodeState.READY, 0.0, None),
])  # fmt: skip
def test_one_node(state: NodeState, silent: float, verdict: Verdict | None) -> None:
    judgement = judge({1: Heard(state, silent)}, W)
    assert judgement.verdicts == ({} if verdict is None else {1: verdict})
    assert not judgement.mass_loss


@pytest.mark.parametrize(
    ("silent", "alive", "mass"), [(2, 0, False), (3, 0, True), (3, 3, False), (4, 3, True), (30, 31, False)]
)
def test_many_silent_at_once_mean_us(silent: int, alive: int, mass: bool) -> None:
    nodes = {i: Heard(NodeState.READY, W.lost_s if i < silent else 0.0) for i in range(silent + alive)}
    judgement = judge(nodes, W)
    assert judgement.mass_loss is mass
    wanted = Verdict.SUSPECT if mass else Verdict.LOST
    assert judgement.verdicts == dict.fromkeys(range(silent), wanted)


def test_nodes_that_are_lost_already_do_not_count() -> None:
    nodes = {i: Heard(NodeState.LOST, W.lost_s) for i in range(10)} | {10: Heard(NodeState.READY, W.lost_s)}
    assert judge(nodes, W).verdicts == {10: Verdict.LOST}


def test_those_that_fell_silent_together_are_not_heard_of_at_the_same_instant() -> None:
    """Heartbeats of five nodes come spread over two seconds; three are cut off at once, and the first is lost before the others."""
    nodes = {1: Heard(NodeState.SUSPECT, W.lost_s), 2: Heard(NodeState.SUSPECT, W.lost_s - 0.9)}
    nodes |= {
        3: Heard(NodeState.SUSPECT, W.lost_s - 1.8),
        4: Heard(NodeState.READY, 0.3),
        5: Heard(NodeState.READY, 1.1),
    }
    judgement = judge(nodes, W)
    assert judgement.mass_loss
    assert judgement.verdicts == {}
