"""The earliest of many nodes is found by looking closely at few, and is that of looking at all."""

import gc
import pickle

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.scheduler.test_whatif import random_case

from jarvis.core.ids import ElementKey
from jarvis.scheduler.explain import why
from jarvis.scheduler.outlook import soonest
from jarvis.scheduler.policy.backfill import NEVER, Horizon
from jarvis.scheduler.whatif import PLANNED_MOST, TRIALS_MOST, Trials

amounts = st.integers(0, 8)
known_ends = st.lists(st.tuples(st.floats(1, 100), st.fixed_dictionaries({"cpu": amounts})), max_size=6)


@given(known_ends, amounts, st.integers(0, 30))
def test_where_nothing_is_taken_room_only_grows(ends: list[tuple[float, dict[str, int]]], free: int, need: int) -> None:
    ends.sort(key=lambda end: end[0])
    one, other = Horizon(0.0, {"cpu": free}, iter(ends)), Horizon(0.0, {"cpu": free}, iter(ends))
    copied = one.copy()
    assert one.first({"cpu": need}) == other.earliest({"cpu": need}, 10.0)
    at = copied.earliest({"cpu": need}, 10.0)
    assert at == one.first({"cpu": need})
    if at != NEVER:
        copied.take({"cpu": need}, at, NEVER)
    assert one.first({"cpu": need}) == at, "what is taken from a copy is taken from it alone"


@given(st.dictionaries(st.integers(1, 20), st.tuples(st.integers(0, 9), st.one_of(st.integers(0, 9), st.just(NEVER)))))
def test_the_soonest_is_that_of_all(nodes: dict[int, tuple[int, float]]) -> None:
    """Of each node: when it could begin, and by how much later it does."""
    does = {node: could + later for node, (could, later) in nodes.items()}
    asked: list[int] = []

    def earliest(node: int) -> float:
        asked.append(node)
        return does[node]

    found = soonest(sorted((float(could), node) for node, (could, _) in nodes.items()), earliest)
    best = min(((at, node) for node, at in does.items() if at != NEVER), default=None)
    assert found == best
    assert len(asked) == len(set(asked))
    assert best is None or all(nodes[node][0] <= best[0] for node in asked), (
        "only what could be sooner is looked at closely"
    )


def test_a_question_changes_nothing_at_all() -> None:
    for seed in range(3):
        case, waiting = random_case(seed)
        case.cluster.ledger.half_life = 100.0
        case.now += 10
        pools, case.cluster.pools = case.cluster.pools, type(case.cluster.pools)()
        before = pickle.dumps(case.cluster)
        for ident in waiting:
            assert why(case.cluster, ElementKey(ident), case.now, case.policy) is not None
        assert pickle.dumps(case.cluster) == before, f"seed {seed}"
        case.cluster.pools = pools


def test_a_question_leaves_nothing_to_the_collector_of_cycles() -> None:
    """Else each answer takes as long as it does, and now and then a while to find what those before it left."""
    case, waiting = random_case(3)
    gc.collect()
    gc.disable()
    try:
        for ident in waiting:
            assert why(case.cluster, ElementKey(ident), case.now, case.policy) is not None
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_question_tries_no_more_than_it_may() -> None:
    case, waiting = random_case(3)
    trials = Trials(case.cluster, case.policy, case.cluster.tasks[waiting[0]], case.now)
    assert trials.left <= min(TRIALS_MOST, PLANNED_MOST)
    trials.left = 1
    less = case.cluster.tasks[waiting[0]].spec
    trials(less)
    assert trials.left == 0
    assert trials(less) is None
