"""Which GPUs a request gets, by example."""

import pytest

from jarvis.core.gpus import Share, devices, pick


@pytest.mark.parametrize(
    ("free", "wanted", "shares"),
    [
        ([1000, 1000], 0, ()),
        ([400, 1000, 1000], 2000, ((1, 1000), (2, 1000))),
        ([1000, 700, 400], 300, ((2, 300),)),
        ([1000, 1000, 500], 1500, ((0, 1000), (2, 500))),
        ([1000, 400], 1500, None),
        ([400, 400], 1000, None),
    ],
)
def test_whole_ones_are_untouched_and_a_rest_leaves_the_least(
    free: list[int], wanted: int, shares: tuple[Share, ...] | None
) -> None:
    assert pick(free, wanted) == shares


def test_the_last_gpu_of_a_node_may_be_a_part() -> None:
    assert devices(2500) == [1000, 1000, 500]
