"""Near and apart, by node and by label, as a must and as a wish; compared with what looking at everything says."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.scheduler.harness import Case
from tests.unit.scheduler.test_licenses import taken_over, words

from jarvis.core.ids import ElementKey
from jarvis.core.states import State
from jarvis.core.task import Affinity, Preference, TaskSpec
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.explain import why
from jarvis.scheduler.load_balancer import BALANCERS
from jarvis.scheduler.policy.affinity import carried
from jarvis.scheduler.policy.backfill import Backfill


def nodes_of(case: Case) -> dict[str, list[int]]:
    """Node → tasks there, of nodes that have any."""
    found: dict[str, list[int]] = {}
    for key, attempt in sorted(case.cluster.attempts.items()):
        found.setdefault(case.cluster.nodes[attempt.node].node.name, []).append(key.task)
    return found


def racks(*racks: str, cpus: float = 4) -> Case:
    case = Case()
    for rack in racks:
        case.node(cpus=cpus, labels={"rack": rack} if rack else {})
    return case


def test_apart_is_at_most_one_a_node() -> None:
    case = racks("a", "a", "b")
    case.submit(array="0-4", affinities=(Affinity("apart", "db"),))
    assert nodes_of(case) == {"n1": [1], "n2": [1], "n3": [1]}
    case.ends(next(k for k, a in case.cluster.attempts.items() if a.node == 2))
    assert len(case.cluster.attempts) == 3
    told = why(case.cluster, ElementKey(1, 4), case.now, case.policy)
    assert words(told)[0] == ("AntiAffinity", "3 of 3 nodes: something with the key db is here")
    assert told is not None
    assert told["changes"] == ["without being apart db it starts now on n1"]


def test_apart_by_a_label_is_at_most_one_a_rack() -> None:
    case = racks("a", "a", "b", "")
    case.submit(array="0-4", affinities=(Affinity("apart", "db", "rack"),))
    assert nodes_of(case) == {"n1": [1], "n3": [1]}
    told = why(case.cluster, ElementKey(1, 4), case.now)
    assert told is not None
    assert {row["node"]: row["text"] for row in told["nodes"]} == {
        "n1": "something with the key db is with rack=a", "n2": "something with the key db is with rack=a",
        "n3": "something with the key db is with rack=b", "n4": "has no label rack, by which tasks are to be apart",
    }  # fmt: skip
    case.ends(ElementKey(1, 0))
    assert len(case.cluster.attempts) == 2


def test_apart_binds_both_sides() -> None:
    case = racks("a")
    case.submit(affinities=(Affinity("apart", "db"),))
    case.submit(keys=("db",))
    assert nodes_of(case) == {"n1": [1]}
    told = words(why(case.cluster, ElementKey(2), case.now))
    assert told == [("AntiAffinity", "1 of 1 nodes: something that is apart from the key db is here")]
    case.ends(1)
    assert nodes_of(case) == {"n1": [2]}


def test_near_waits_for_the_key_and_follows_it() -> None:
    case = racks("a", "b", "b")
    case.submit(affinities=(Affinity("near", "db", "rack"),))
    told = words(why(case.cluster, ElementKey(1), case.now))
    assert told[0] == ("Affinity", "3 of 3 nodes, for example: nothing with the key db is with rack=a")
    case.submit(cpus=3, keys=("db",))
    case.submit(keys=("other",))
    case.step()
    where = {a.node for a in case.cluster.attempts.values()}
    assert case.state(1) is State.ASSIGNED
    assert case.cluster.attempts[ElementKey(1)].node in where
    rack = {case.cluster.nodes[case.cluster.attempts[ElementKey(t)].node].node.labels["rack"] for t in (1, 2)}
    assert len(rack) == 1


def test_the_first_of_those_that_keep_together_goes_anywhere() -> None:
    case = racks("a", "b", cpus=3)
    case.submit(array="0-5", keys=("x",), affinities=(Affinity("near", "x"),))
    (only,) = nodes_of(case).values()
    assert len(only) == 3
    for key in sorted(case.cluster.attempts):
        case.ends(key)
    case.step()
    assert len(nodes_of(case)) == 1


@pytest.mark.parametrize("balancer", sorted(BALANCERS))
def test_wishes_choose_among_nodes_with_room(balancer: str) -> None:
    case = Case(Policy(balancer=balancer))
    for zone in "abc":
        case.node(cpus=2, labels={"zone": zone})
    wishes = (Preference("zone", "=", "c", 60), Preference("zone", "=", "b", 30))
    for _ in range(7):
        case.submit(preferences=wishes)
    assert nodes_of(case) == {"n3": [1, 2], "n2": [3, 4], "n1": [5, 6]}


@pytest.mark.parametrize("balancer", sorted(BALANCERS))
def test_a_wish_to_be_apart_spreads_and_one_to_be_near_gathers(balancer: str) -> None:
    case = Case(Policy(balancer=balancer))
    for rack in ("a", "a", "b"):
        case.node(cpus=8, labels={"rack": rack})
    case.submit(array="0-5", affinities=(Affinity("apart", "web", "", 10),))
    assert {name: len(tasks) for name, tasks in nodes_of(case).items()} == {"n1": 2, "n2": 2, "n3": 2}
    case.submit(array="0-4", keys=("cache",), affinities=(Affinity("near", "cache", "", 10),))
    assert sorted(tasks.count(2) for tasks in nodes_of(case).values()) == [0, 0, 5]


# ---------------------------------------------------------------- beside looking at everything

_label = st.sampled_from(["", "rack"])
_affinity = st.builds(
    Affinity, st.sampled_from(["near", "apart"]), st.sampled_from("xy"), _label, st.sampled_from([0, 0, 5])
)
_spec = st.tuples(st.lists(st.sampled_from("xy"), max_size=1), st.lists(_affinity, max_size=2))
_step = st.one_of(
    st.tuples(st.just("submit"), _spec), st.tuples(st.just("array"), _spec), st.tuples(st.just("end"), st.integers(0, 20)),
    st.tuples(st.just("lead"), st.just(0)), st.tuples(st.just("label"), st.tuples(st.integers(1, 4), st.sampled_from("ab"))),
)  # fmt: skip


class Looking:
    """What may be where, by a look at all that is anywhere."""

    def __init__(self) -> None:
        self.there: dict[ElementKey, tuple[TaskSpec, int]] = {}

    def may(self, case: Case, spec: TaskSpec, node: int) -> bool:
        others = list(self.there.values())

        def place(at: int, label: str) -> object:
            return case.cluster.nodes[at].node.labels.get(label) if label else at

        def found(key: str, label: str) -> bool:
            return any(key in carried(o) and place(at, label) == place(node, label) for o, at in others)

        for a in (a for a in spec.affinities if not a.weight):
            first = a.key in carried(spec) and not any(a.key in carried(o) for o, _ in others)
            if place(node, a.label) is None or (
                found(a.key, a.label) if a.kind == "apart" else not found(a.key, a.label) and not first
            ):
                return False
        return not any(
            a.kind == "apart" and not a.weight and a.key in carried(spec) and place(node, a.label) is not None
            and place(at, a.label) == place(node, a.label)
            for o, at in others for a in o.affinities
        )  # fmt: skip

    def follow(self, case: Case) -> None:
        """Everything that is new may be where it is; what is gone is gone."""
        self.there = {key: what for key, what in self.there.items() if key in case.cluster.attempts}
        for key, attempt in case.cluster.attempts.items():
            if key not in self.there:
                spec = case.cluster.tasks[key.task].spec
                assert self.may(case, spec, attempt.node), (key, spec, attempt.node, self.there)
                self.there[key] = spec, attempt.node


@settings(max_examples=120, deadline=None)
@given(st.lists(_step, max_size=14), st.sampled_from(sorted(BALANCERS)), st.sampled_from(["skip", "easy"]))
def test_random_clusters(steps: list[tuple[str, Any]], balancer: str, backfill: str) -> None:
    case = Case(Policy(balancer=balancer, backfill=Backfill(backfill)))
    for labels in ({"rack": "a"}, {"rack": "a"}, {"rack": "b"}, {}):
        case.node(cpus=64, labels=labels)
    looking = Looking()
    for what, detail in steps:
        live = sorted(case.cluster.attempts)
        if what in ("submit", "array"):
            keys, affinities = detail
            array = "0-2" if what == "array" else None
            case.submit(array=array, keys=tuple(keys), affinities=tuple(affinities))
        elif what == "lead":
            taken_over(case)
            case.step()
        elif what == "label":
            case.command("node_label", node=detail[0], rack=detail[1])
        elif live:
            case.ends(live[detail % len(live)])
        looking.follow(case)
        case.step()
        looking.follow(case)
        case.step()
        looking.follow(case)
        for task in case.cluster.tasks.values():
            waits = State.QUEUED in (task.state, task.base) and task.next_position < task.size
            for node in case.cluster.nodes if waits else ():
                assert not looking.may(case, task.spec, node), (task.id, node, looking.there)
