"""Worlds in which licences and nodes are scarce: never more in use than there are, under every fault and every leader."""

import os

import pytest
from tests.sim.test_seeds import told

from jarvis.sim.run import Verdict, simulate
from jarvis.sim.scarcity import LICENSES

SEEDS = range(1, 401) if os.environ.get("JARVIS_SOAK") else range(1, 13)
STEPS = 4
pytestmark = pytest.mark.timeout(1200 if os.environ.get("JARVIS_SOAK") else 120)


def test_gangs_take_a_licence_once_and_no_booked_node() -> None:
    for seed in SEEDS[::2]:
        verdict = simulate(seed, STEPS, scarce=True, gangs=True)
        assert not verdict.error, told(verdict)


@pytest.mark.parametrize("servers", [0, 3])
def test_never_more_in_use_than_there_are(servers: int) -> None:
    verdicts: list[Verdict] = []
    for seed in SEEDS:
        verdicts.append(simulate(seed, STEPS, servers=servers, scarce=True))
        assert not verdicts[-1].error, told(verdicts[-1])
    most = {name: max(verdict.scarce.get(name, 0) for verdict in verdicts) for name in LICENSES}
    assert most == LICENSES, "all of them were in use at once"
    assert sum(verdict.scarce["bookings"] for verdict in verdicts) > len(verdicts)
    assert sum(verdict.scarce["kept apart"] for verdict in verdicts) > len(verdicts)
    assert sum(verdict.scarce["near"] for verdict in verdicts) > len(verdicts), "files draw attempts"
