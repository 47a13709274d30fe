"""Worlds in which much runs on several nodes at once: no gang is ever partial, whichever nodes, messages and leaders are lost."""

import pytest
from tests.sim.test_seeds import STEPS, shares, told

from jarvis.sim.run import Verdict, simulate


def _hold(verdicts: list[Verdict]) -> None:
    for verdict in verdicts:
        assert not verdict.error, told(verdict)
    assert sum(verdict.faults for verdict in verdicts) > len(verdicts), "faults act"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seeds", [range(1, 13), range(13, 25)], ids=str)
def test_gangs_are_never_partial(seeds: range) -> None:
    _hold([simulate(seed, STEPS, gangs=True) for seed in seeds])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seeds", [range(1, 6), range(6, 11)], ids=str)
def test_nor_with_several_servers(seeds: range) -> None:
    _hold([simulate(seed, STEPS, servers=3, gangs=True) for seed in seeds])


@pytest.mark.timeout(300)
def test_nor_where_licences_and_nodes_are_scarce() -> None:
    """With reservations over several nodes, too: these worlds have every backfill in turn."""
    _hold([simulate(seed, STEPS, scarce=True, gangs=True) for seed in range(1, 9)])


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seeds", shares(range(1001, 1001 + 800)), ids=str)
def test_long_worlds_of_gangs(seeds: range) -> None:
    kinds = [(0, False), (3, False), (0, True)]
    _hold([simulate(seed, 20, servers=n, scarce=scarce, gangs=True) for seed in seeds for n, scarce in kinds])
