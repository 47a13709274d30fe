"""The computed side of ``make quality ARGS=q6``, on workflows that can be worked out by hand."""

import pytest
from benchmarks.workflows import BOUND_S, PROCESSORS, Instance, document, makespan

CHAIN = Instance("chain", (3.0, 2.0, 1.0), ((), (0,), (1,)))
LONG_LAST = Instance("long last", (*[1.0] * PROCESSORS, 9.0), tuple(() for _ in range(PROCESSORS + 1)))
"""More tasks than processors, the longest one listed last."""


def listed(instance: Instance) -> list[float]:
    return [-float(task) for task in range(len(instance.seconds))]


def test_levels_and_bounds() -> None:
    assert CHAIN.levels == [6.0, 3.0, 1.0] and CHAIN.bound == 6.0
    wide = Instance("wide", (1.0,) * 3 * PROCESSORS, ((),) * 3 * PROCESSORS)
    assert wide.bound == 3.0 and makespan(wide, wide.levels) == 3.0
    assert CHAIN.scaled().bound == pytest.approx(BOUND_S)
    assert makespan(CHAIN.scaled(), listed(CHAIN)) == pytest.approx(BOUND_S)


def test_the_longest_path_first_is_better_than_as_listed() -> None:
    assert makespan(LONG_LAST, LONG_LAST.levels) == 9.0
    assert makespan(LONG_LAST, listed(LONG_LAST)) == 10.0


def test_the_document_says_the_same() -> None:
    first, second, _ = document(CHAIN)["steps"]
    assert first["command"] == ["sleep", "3.0000"] and first["depends_on"] == []
    assert second["depends_on"] == ["t0"] and second["time_limit"] == 2000.0
