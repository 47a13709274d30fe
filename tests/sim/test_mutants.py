"""The mutation gate: each defect of the safety rules is noticed by its recorded seed, which without the defect is good."""

import random

import pytest
from tests.sim.mutants import LIMIT, MUTANTS, STEPS, Mutant, killer

from jarvis.sim.run import simulate


def name(mutant: Mutant) -> str:
    return mutant.name


def test_there_are_enough_of_them() -> None:
    assert len(MUTANTS) >= 20
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize(
    ("seed", "servers", "scarce", "gangs"), sorted({(m.seed, m.servers, m.scarce, m.gangs) for m in MUTANTS})
)
def test_without_the_defect_the_seed_is_good(seed: int, servers: int, scarce: bool, gangs: bool) -> None:
    assert not simulate(seed, STEPS, servers=servers, scarce=scarce, gangs=gangs).error


@pytest.mark.parametrize("mutant", MUTANTS, ids=name)
def test_a_defect_is_noticed(mutant: Mutant) -> None:
    assert killer(mutant, range(mutant.seed, mutant.seed + 1)) == mutant.seed


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mutant", MUTANTS, ids=name)
def test_a_defect_is_noticed_by_fresh_seeds(mutant: Mutant) -> None:
    first = random.SystemRandom().randrange(10_000, 1 << 30)
    assert killer(mutant, range(first, first + LIMIT)) is not None, f"survives {LIMIT} seeds from {first}"
