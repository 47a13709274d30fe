"""Licences: never more in use than there are, whatever happens and whoever leads; who is short of one is not passed for ever."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.scheduler.harness import Case

from jarvis.core.errors import NoLicense
from jarvis.core.task import TaskSpec
from jarvis.scheduler import whatif
from jarvis.scheduler.cluster import Cluster, NodeView
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.explain import never_fits, why
from jarvis.scheduler.licenses import listed
from jarvis.scheduler.policy.backfill import Backfill
from jarvis.scheduler.reactor import adopt, rebuild_attempts, rebuild_tasks
from jarvis.scheduler.whatif import plan_task

POLICY = Policy(licenses={"matlab": 3, "ansys": 1}, backfill=Backfill("easy"))


def on_nodes(case: Case) -> list[int]:
    return sorted(key.task for key in case.cluster.attempts)


def words(told: dict[str, Any] | None) -> list[tuple[str, str]]:
    assert told is not None
    return [(reason["reason"], reason["text"]) for reason in told["reasons"]]


def test_no_more_than_there_are_on_all_nodes_together() -> None:
    case = Case(POLICY)
    for _ in range(3):
        case.node(cpus=8)
    for _ in range(3):
        case.submit(licenses={"matlab": 2})
    assert on_nodes(case) == [1]
    case.ends(1)
    assert on_nodes(case) == [2]


def test_why_says_who_has_them_and_what_would_do() -> None:
    case = Case(POLICY)
    case.node(cpus=8)
    case.submit(licenses={"matlab": 2})
    case.submit(licenses={"matlab": 2, "ansys": 1})
    told = why(case.cluster, case.tasks[2].key_at(0), case.now, POLICY)
    assert words(told) == [("Licenses", "2 of 3 matlab are in use by task 1 (2), wanted 2")]
    assert told is not None
    assert told["changes"] == ["with 1 matlab instead of 2 it starts now on n1"]
    assert listed(case.cluster)[1] == {"license": "matlab", "total": 3, "used": 2, "free": 1, "tasks": [1]}


def test_when_it_is_expected_to_start() -> None:
    case = Case(POLICY)
    case.node(cpus=8)
    case.submit(licenses={"matlab": 2}, time_limit=60.0)
    case.submit(licenses={"matlab": 1}, time_limit=90.0)
    case.submit(licenses={"matlab": 2})
    case.submit(licenses={"ansys": 1}, time_limit=500.0, cpus=4)
    case.submit(licenses={"matlab": 1, "ansys": 1}, cpus=2)
    for task, bounds in ((3, (60.0, 60.0)), (5, (500.0, None))):
        told = why(case.cluster, case.tasks[task].key_at(0), case.now, POLICY)
        assert told is not None
        assert (told["expected"]["earliest_s"], told["expected"]["latest_s"]) == bounds
    adopt(case.cluster, Policy(licenses={"ansys": 1}))
    assert whatif.expected(case.cluster, POLICY, case.tasks[3], [], case.now) == (None, None)


def test_a_reservation_finds_its_licences() -> None:
    """Those behind may have them as long as they end before it begins."""
    case = Case(Policy(licenses={"matlab": 1}, backfill=Backfill("easy")))
    case.node(cpus=4)
    case.submit(cpus=3, time_limit=100.0)
    case.submit(cpus=4, licenses={"matlab": 1})
    case.submit(cpus=1, licenses={"matlab": 1}, time_limit=101.0)
    assert on_nodes(case) == [1]
    case.submit(cpus=1, licenses={"matlab": 1}, time_limit=90.0)
    assert on_nodes(case) == [1, 4]
    case.ends(4)
    case.now += 99
    case.ends(1)
    assert on_nodes(case) == [2]


@pytest.mark.parametrize(("name", "passes"), [("easy", False), ("skip", True)])
def test_who_is_short_keeps_them_from_those_behind(name: str, passes: bool) -> None:
    policy = Policy(licenses=POLICY.licenses, backfill=Backfill(name))
    case = Case(policy)
    case.node(cpus=8)
    case.submit(licenses={"matlab": 2})
    case.submit(licenses={"matlab": 3})
    case.submit(licenses={"matlab": 1})
    case.submit()
    assert on_nodes(case) == ([1, 3, 4] if passes else [1, 4])
    if not passes:
        said = words(why(case.cluster, case.tasks[3].key_at(0), case.now, policy))
        assert said[0] == ("Licenses", "matlab is kept for task 2, which goes first and waits for licences")
    case.ends(1)
    assert (2 in on_nodes(case)) is not passes


def test_what_can_never_be_is_refused_with_the_known_names() -> None:
    case = Case(POLICY)
    case.node()
    for asked, said in (({"mathlab": 1}, "name: ansys, matlab"), ({"ansys": 2}, "there are 1 ansys in all, wanted 2")):
        spec = _spec(asked)
        refused = never_fits(case.cluster, spec)
        assert isinstance(refused, NoLicense)
        assert said in str(refused)
        assert "ansys, matlab" in refused.hint
        assert plan_task(case.cluster, POLICY, spec, ("p", "u"), case.now)["verdict"] == "never"
    assert never_fits(case.cluster, _spec({"ansys": 1})) is None


def _spec(licenses: dict[str, int]) -> TaskSpec:
    return TaskSpec(name="t", resources={"cpu": 1000}, licenses=licenses)


def test_fewer_in_the_settings_than_in_use_ends_nothing() -> None:
    case = Case(POLICY)
    case.node()
    case.submit(licenses={"matlab": 3})
    case.submit(licenses={"matlab": 1})
    adopt(case.cluster, Policy(licenses={"ansys": 1}))
    case.step()
    assert on_nodes(case) == [1]
    assert listed(case.cluster)[1] == {"license": "matlab", "total": 0, "used": 3, "free": 0, "tasks": [1]}
    case.ends(1)
    assert on_nodes(case) == []


def taken_over(case: Case) -> None:
    """Another leader, with what the store knows."""
    before = case.cluster
    after = Cluster(before.incarnation, before.epoch + 1)
    adopt(after, case.policy)
    for view in before.nodes.values():
        after.nodes[view.node.id] = NodeView(view.node, session=view.session, heard_at=case.now)
        after.node_names[view.node.name] = view.node.id
    for element in before.elements.values():
        after.add_element(element)
    after.attempts = dict(before.attempts)
    after.named_ahead = before.named_ahead
    after.last_seq, after.next_node = before.last_seq, before.next_node
    for _ in rebuild_tasks(after, list(before.tasks.values())):
        pass
    rebuild_attempts(after)
    case.cluster = after


_asked = st.dictionaries(st.sampled_from(["matlab", "ansys"]), st.integers(1, 3), max_size=2)
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), _asked), st.tuples(st.just("array"), _asked),
        st.tuples(st.just("end"), st.integers(0, 20)), st.tuples(st.just("lead"), st.just(0)),
        st.tuples(st.just("cancel"), st.integers(0, 20)),
    ),
    max_size=25,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(_steps, st.sampled_from(["skip", "easy", "conservative", "none"]))
def test_never_more_in_use_than_there_are(steps: list[tuple[str, Any]], backfill: str) -> None:
    case = Case(Policy(licenses=POLICY.licenses, backfill=Backfill(backfill)))
    case.node(cpus=4)
    case.node(cpus=4)
    for what, detail in steps:
        live = sorted(case.cluster.attempts)
        if what == "submit":
            case.submit(licenses=detail)
        elif what == "array":
            case.submit(array="0-3", licenses=detail)
        elif what == "lead":
            taken_over(case)
            case.step()
        elif live and what == "end":
            case.ends(live[detail % len(live)])
        elif live:
            case.command("cancel", live[detail % len(live)].task)
        in_use: dict[str, int] = {}
        for key in case.cluster.attempts:
            for name, count in case.cluster.tasks[key.task].spec.licenses.items():
                in_use[name] = in_use.get(name, 0) + count
        assert all(count <= POLICY.licenses[name] for name, count in in_use.items()), in_use
