"""Numbers that are over, as ranges, beside a plain set of them."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from jarvis.worker.supervisor.settled import Settled

NUMBERS = st.integers(0, 60)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), NUMBERS, NUMBERS),
        st.tuples(st.just("range"), NUMBERS, NUMBERS),
        st.tuples(st.just("floor"), NUMBERS, NUMBERS),
    ),
    max_size=30,
)


@given(STEPS)
def test_it_holds_what_a_set_would(steps: list[tuple[str, int, int]]) -> None:
    settled, plain = Settled(), set[int]()
    for what, a, b in steps:
        if what == "add":
            settled.add([a, b])
            plain |= {a, b}
        elif what == "range":
            settled.add_range(a, b)
            plain |= set(range(a, b))
        else:
            settled.raise_floor(a)
            plain |= set(range(a))
        assert {n for n in range(70) if n in settled} == plain
        pairs = settled.pairs()
        assert all(start < end for start, end in pairs)
        assert all(one[1] < other[0] for one, other in itertools.pairwise(pairs))
        assert settled.ranges == len(pairs)
        assert not pairs or pairs[0][0] >= settled.floor


def test_a_million_in_order_is_one_range() -> None:
    settled = Settled()
    settled.add(range(5, 1_000_005))
    assert settled.pairs() == [[5, 1_000_005]]
