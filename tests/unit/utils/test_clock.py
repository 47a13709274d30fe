"""Time as the control plane tells it."""

import pytest

from jarvis.utils.clock import SLOWEST, Clock


class Machine:
    """Its monotonic clock, and the database's."""

    def __init__(self) -> None:
        self.monotonic, self.database = 100.0, 5_000.0
        self.clock = Clock(lambda: self.monotonic, lambda: self.database)

    def pass_seconds(self, seconds: float) -> float:
        self.monotonic += seconds
        self.database += seconds
        self.clock.sync(self.database)
        return self.clock.now()


def test_it_is_the_databases_clock() -> None:
    machine = Machine()
    assert machine.clock.now() == machine.database
    machine.database += 300
    assert machine.pass_seconds(2) == machine.database


def test_a_database_that_was_set_back_is_waited_for_and_time_goes_on() -> None:
    machine = Machine()
    before = machine.clock.now()
    machine.database -= 60
    assert machine.pass_seconds(10) == pytest.approx(before + 10 * SLOWEST)
    assert machine.pass_seconds(100) == pytest.approx(before + 110 * SLOWEST)
    assert machine.pass_seconds(20) == machine.database


def test_it_never_goes_back() -> None:
    machine = Machine()
    before = machine.clock.now()
    machine.clock.sync(0.0)
    assert machine.clock.now() == before


def test_who_waits_for_an_instant_while_time_is_slow_gets_there() -> None:
    machine = Machine()
    machine.monotonic, machine.database = 100.0, 1_795_000_000.0
    machine.clock.sync(machine.database)
    due = machine.clock.now() + 10
    machine.clock.sync(machine.database - 60)
    for _ in range(100):  # each wait ends half-way: the digits of an instant must not be lost on the last ones
        if (left := due - machine.clock.now()) <= 0:
            return
        machine.monotonic += 0.8 * left  # by a timer that is fast
    pytest.fail("it never comes")
