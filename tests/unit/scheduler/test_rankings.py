"""Nodes by what they have in use: kept right as a cycle uses them, and taken up by the next one."""

from hypothesis import given
from hypothesis import strategies as st

from jarvis.scheduler.rankings import Ranking

NODES = st.integers(0, 30)
SHARES = st.sampled_from([0.0, 0.25, 0.5, 1.0])


@given(
    st.sets(NODES, min_size=1),
    st.lists(
        st.tuples(
            st.booleans(), st.lists(st.tuples(NODES, SHARES), max_size=6), st.sets(NODES, max_size=2), st.sets(NODES)
        ),
        max_size=12,
    ),
)
def test_the_first_are_those_that_sorting_would_give(
    members: set[int], cycles: list[tuple[bool, list[tuple[int, float]], set[int], set[int]]]
) -> None:
    """A cycle that comes to nothing leaves nodes as they were without a word, one that never looked makes them worse, and some
    leave; what came or became better is logged."""
    ranking, stands, log = Ranking(), dict.fromkeys(range(31), 0.0), list[int]()
    for applied, uses, toggled, worse in cycles:
        members ^= toggled
        log += [node for node in toggled if node in members or node % 2]
        stands |= {node: stands[node] + 0.25 for node in worse}
        overlay, used = dict(stands), list[int]()
        for node, share in [(-1, 0.0), *uses]:
            if node in members:
                overlay[node] = share
                used.append(node)
            ranking.catch_up(used, log, members, overlay.__getitem__)
            wanted = sorted((overlay[node], node) for node in members)[:5]
            assert list(ranking.first(5, members, overlay.__getitem__)) == [node for _, node in wanted]
        if applied:
            log += [node for node in members if overlay[node] < stands[node]]
            stands = overlay
