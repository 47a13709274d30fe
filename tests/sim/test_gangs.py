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


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seeds", shares(range(1001, 1001 + 800)), ids=str)
def test_long_worlds_of_gangs(seeds: range) -> None:
    _hold([simulate(seed, 20, servers=servers, gangs=True) for seed in seeds for servers in (0, 3)])
