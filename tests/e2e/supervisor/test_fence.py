"""What must not run beside itself ends when nobody extends its fence, whether or not there is an agent."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.e2e.supervisor.harness import Agent, Node, alive, wait_for

if TYPE_CHECKING:
    from pathlib import Path

TRAP = "trap 'echo soft' TERM; echo ready; while :; do sleep 0.05; done"


def boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def extend(agent: Agent, fence_s: float, at: float | None = None, grace_s: float = 0.2) -> float:
    """When the fence closes then, unless somebody extends it again."""
    at = boottime() if at is None else at
    agent.send(op="fence", at=at, fence_s=fence_s, grace_s=grace_s)
    return at + fence_s


def test_nothing_fenced_begins_before_the_leader_was_heard_of(node: Node, agent: Agent) -> None:
    node.start(agent, 1, "true", fence=True)
    refused = agent.expect("start_failed", 1)
    assert (refused["again"], refused["fenced"], refused["recorded"]) == (True, True, False)
    assert node.run(agent, 2, "true")["exit_code"] == 0, "what is not fenced begins"
    extend(agent, 60.0)
    assert node.run(agent, 1, "true")["exit_code"] == 0, "the same number may be given once more"


def test_a_fence_never_moves_back(node: Node, agent: Agent) -> None:
    closes = extend(agent, 60.0)
    extend(agent, 60.0, at=boottime() - 59.9)
    assert node.agent().welcome["fence_until"] >= closes


def test_it_ends_when_the_fence_closes(node: Node, agent: Agent) -> None:
    closes = extend(agent, 0.6)
    node.start(agent, 1, "sh", "-c", TRAP, fence=True)
    node.start(agent, 2, "sleep", "1000")
    fenced, free = (agent.expect("started", number)["pid"] for number in (1, 2))
    node.wait_output(1, "ready")
    agent.close()  # and nobody else comes
    wait_for(lambda: not alive(fenced), "it is killed")
    assert boottime() >= closes
    assert "soft" in node.output(1), "it was asked first"
    assert alive(free)
    again = node.agent()
    known = next(one for one in again.welcome["attempts"] if one["number"] == 1)
    end = known["end"] or again.expect("ended", 1)
    assert (end["cause"], end["kill_cause"]) == ("killed", "fence")


def test_an_answer_of_long_ago_extends_nothing(node: Node, agent: Agent) -> None:
    extend(agent, 5.0, at=boottime() - 10.0)
    node.start(agent, 1, "true", fence=True)
    assert agent.expect("start_failed", 1)["fenced"]
    extend(agent, 5.0, at=boottime() + 1e6)
    assert node.run(agent, 1, "true")["exit_code"] == 0
    late = node.agent()
    assert late.welcome["fence_until"] <= boottime() + 5.0, "nor does one of the future"


def test_what_waits_in_a_lane_is_given_back(node: Node, agent: Agent) -> None:
    extend(agent, 0.5)
    node.start(agent, 1, "sleep", "1000", fence=True, slot="lane")
    node.start(agent, 2, "true", fence=True, slot="lane")
    node.start(agent, 3, "true", slot="lane")
    assert agent.expect("ended", 1)["kill_cause"] == "fence"
    assert agent.expect("start_failed", 2)["fenced"]
    assert agent.expect("ended", 3)["exit_code"] == 0, "what follows it begins"


def test_an_upgrade_keeps_the_fence(node: Node, agent: Agent) -> None:
    closes = extend(agent, 1.0)
    node.start(agent, 1, "sleep", "1000", fence=True)
    agent.expect("started", 1)
    agent.send(op="upgrade")
    agent.expect("upgraded")
    assert agent.expect("ended", 1)["kill_cause"] == "fence"
    assert boottime() >= closes


def test_a_guard_ends_what_others_run(node: Node, agent: Agent, tmp_path: Path) -> None:
    extend(agent, 0.4)
    ended, over, first = tmp_path / "ended", tmp_path / "over", tmp_path / "first"
    agent.send(op="guard", number=1, argv=["sh", "-c", f"test -e {first} && touch {ended} || ! touch {first}"])
    agent.send(op="guard", number=2, argv=["touch", str(over)])
    agent.send(op="guard", number=2, argv=None)
    wait_for(ended.exists, "it is tried until it says that it was done")
    assert not over.exists(), "what is over needs no end"
    late = tmp_path / "late"
    agent.send(op="guard", number=3, argv=["touch", str(late)])
    wait_for(late.exists, "what begins behind a closed fence ends at once")
