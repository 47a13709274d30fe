"""Why something waits: every reason at once, in words that say what to do."""

from typing import Any

import pytest
from tests.unit.scheduler.harness import GIB, Case

from jarvis.core.errors import NeverFits, NoNodeHasAll, TooFewNodes
from jarvis.core.ids import ElementKey
from jarvis.core.node import NodeState
from jarvis.core.quota import Quota
from jarvis.core.retry import RetryPolicy
from jarvis.core.states import Cause, State
from jarvis.core.task import Constraint, Container, FunctionCall, TaskSpec
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.explain import never_fits, why
from jarvis.scheduler.filters import room_reason, static_reason
from jarvis.scheduler.load_balancer import SCORES, Candidate
from jarvis.scheduler.policy.backfill import Backfill
from jarvis.scheduler.task_queue import Entry, TaskQueue, class_of


def told(case: Case, task: int, index: int = -1) -> dict[str, Any]:
    answer = why(case.cluster, ElementKey(task, index), case.now)
    assert answer is not None
    return answer


def words(case: Case, task: int, index: int = -1) -> list[str]:
    return [r["reason"] for r in told(case, task, index)["reasons"]]


def test_no_node() -> None:
    case = Case()
    assert words(case, case.submit()) == ["NoNodes"]


def test_each_node_says_its_own_and_they_are_summed_up() -> None:
    case = Case()
    case.node("small", cpus=1)
    case.node("busy", cpus=4)
    case.node("labelled", cpus=8, labels={"arch": "arm"})
    case.node("tainted", cpus=8, taints=("gpu-only",))
    case.node("cordoned", cpus=8)
    case.command("node_cordon", node=case.cluster.node_names["cordoned"], reason="disk")
    case.node("draining", cpus=8)
    case.command("node_drain", node=case.cluster.node_names["draining"], reason="upgrade")
    away = case.node("away", cpus=8)
    case.cluster.nodes[away].session = None
    lost = case.node("lost", cpus=8)
    case.cluster.nodes[lost].node.state = NodeState.SUSPECT
    x86 = (Constraint("arch", "!=", "arm"),)
    for _ in range(8):
        case.submit(cpus=3, constraints=x86)
    task = case.submit(cpus=3, constraints=x86)
    case.expect(task, "queued")
    answer = told(case, task)
    rows = {row["node"]: (row["reason"], row["text"]) for row in answer["nodes"]}
    assert rows["small"] == ("NeverFits", "has 1 cpu in all, wanted 3")
    assert rows["busy"] == ("Resources", "1 cpu free, wanted 3")
    assert rows["labelled"] == ("NoMatchingLabel", "label arch is arm, wanted arch!=arm")
    assert rows["tainted"] == ("ReqNodeNotAvail", "has taint gpu-only, which is not tolerated")
    assert rows["cordoned"] == ("ReqNodeNotAvail", "is cordoned (disk)")
    assert rows["draining"] == ("ReqNodeNotAvail", "is draining (upgrade)")
    assert rows["away"] == ("ReqNodeNotAvail", "is not connected")
    assert rows["lost"] == ("ReqNodeNotAvail", "is suspect")
    assert words(case, task)[:4] == ["Resources", "ReqNodeNotAvail", "NoMatchingLabel", "NeverFits"]
    assert "busy" not in answer["summary"]
    assert (
        "; 5 of 8 nodes, for example: has taint gpu-only, which is not tolerated; 1 of 8 nodes: label arch is arm"
        in answer["summary"]
    )
    assert "1 cpu free, wanted 3" in answer["summary"]


def test_who_goes_first() -> None:
    case = Case()
    case.node(cpus=1)
    tasks = [case.submit() for _ in range(12)]
    waiting = [t for t in tasks if case.state(t) is State.QUEUED]
    assert "Priority" in words(case, waiting[-1])
    assert "Priority" not in words(case, waiting[0])


def test_what_is_held_waits_or_begins_later() -> None:
    case = Case()
    case.node()
    assert words(case, case.submit(hold=True)) == ["JobHeldUser"]
    first = case.submit(cpus=4)
    second = case.submit(after=f"afterok:{first}", begin=case.now + 60)
    answer = told(case, second)
    assert [r["reason"] for r in answer["reasons"]] == ["Dependency", "BeginTime"]
    assert f"task {first}" in answer["summary"]
    assert "60 s" in answer["summary"]
    many = [case.submit(hold=True) for _ in range(12)]
    last = case.submit(after=",".join(f"afterany:{t}" for t in many))
    assert "and 2 more" in told(case, last)["summary"]


def test_an_administrators_hold_and_a_quarantine() -> None:
    case = Case()
    task = case.submit(hold=True)
    case.cluster.tasks[task].reason = "JobHeldAdmin"
    assert "administrator" in told(case, task)["summary"]
    lost = case.submit()
    for n in range(3):
        case.node(f"bad{n}", boot=f"b{n}")
        case.command("node_cordon", node=case.cluster.node_names[f"bad{n}"])
        case.ends(lost, cause=Cause.NODE_LOST, exit_code=None)
    case.expect(lost, "quarantined")
    assert words(case, lost) == ["JobHeldAdmin"]


def test_backoff_says_how_long() -> None:
    case = Case()
    case.node()
    task = case.submit(retry=RetryPolicy(max_attempts=3, base=40.0))
    case.ends(task, exit_code=1)
    case.expect(task, "backoff")
    assert words(case, task) == ["Backoff"]
    assert "attempt 1 ended exit" in told(case, task)["summary"]


def test_the_limit_of_an_array() -> None:
    case = Case()
    case.node(cpus=8)
    task = case.submit(array="0-9%2")
    assert words(case, task, 5)[0] == "JobArrayTaskLimit"
    running = told(case, task, 0)
    assert running["reasons"] == []
    assert "is on node n1" in running["summary"]


def test_what_can_start_says_so_and_what_is_gone_has_no_reason() -> None:
    case = Case(Policy(budget=0))
    task = case.submit()
    case.node(cpus=8)
    assert "next cycle" in told(case, task)["summary"]
    assert why(case.cluster, ElementKey(99), case.now) is None
    array = case.submit(array="0-9:2")
    assert why(case.cluster, ElementKey(array, 1), case.now) is None


def test_what_no_node_will_ever_have_is_refused_by_its_dimension() -> None:
    case = Case()
    spec = TaskSpec(name="t", resources={"cpu": 64_000, "memory": GIB})
    assert never_fits(case.cluster, spec) is None
    case.node("a", cpus=4)
    case.node("b", cpus=16)
    refused = never_fits(case.cluster, spec)
    assert isinstance(refused, NeverFits)
    assert refused.dimension == "cpu"
    assert "64" in str(refused)
    assert "16" in refused.hint
    assert never_fits(case.cluster, TaskSpec(name="t", resources={"cpu": 16_000})) is None
    labelled = TaskSpec(name="t", resources={"cpu": 64_000}, constraints=(Constraint("x", "exists"),))
    assert never_fits(case.cluster, labelled) is None, "a node with that label may come"


def test_a_node_that_is_too_small_is_so_whatever_else_keeps_it_away() -> None:
    case = Case()
    case.node("a", cpus=4)
    case.node("b", cpus=2, taints=("special",))
    assert isinstance(never_fits(case.cluster, TaskSpec(name="t", resources={"cpu": 8000})), NeverFits)
    assert isinstance(never_fits(case.cluster, TaskSpec(name="t", resources={"cpu": 4000}, nodes=2)), TooFewNodes)
    case.node("labelled", cpus=1, labels={"zone": "a"})
    zone = (Constraint("zone", "=", "a"),)
    assert isinstance(
        never_fits(case.cluster, TaskSpec(name="t", resources={"cpu": 8000}, constraints=zone)), NeverFits
    )
    another = TaskSpec(name="t", resources={"cpu": 4000}, constraints=zone)
    assert never_fits(case.cluster, another) is None, "another node may get the label"
    case.node("c", cpus=8, taints=("special",))
    assert never_fits(case.cluster, TaskSpec(name="t", resources={"cpu": 8000})) is None, "the taint may be taken away"


def test_what_no_node_has_together_is_refused() -> None:
    case = Case()
    case.node("many-cpus", cpus=16, mem=4 * GIB)
    case.node("much-memory", cpus=4, mem=64 * GIB)
    case.node("neither", cpus=6, mem=6 * GIB)
    both = {"cpu": 8000, "memory": 8 * GIB}
    for nodes in (1, 2):
        refused = never_fits(case.cluster, TaskSpec(name="t", resources=both, nodes=nodes))
        assert isinstance(refused, NoNodeHasAll)
        assert str(refused) == (
            "resources: no node has 8 cpu and 8Gi memory together; many-cpus comes nearest: "
            "has 4Gi memory in all, wanted 8Gi"
        )
        assert "no more than many-cpus has" in refused.hint
    labelled = TaskSpec(name="t", resources=both, constraints=(Constraint("x", "exists"),))
    assert never_fits(case.cluster, labelled) is None, "a node with that label may come"
    large = case.node("large", cpus=8, mem=8 * GIB, taints=("special",))
    assert never_fits(case.cluster, TaskSpec(name="t", resources=both)) is None, "the taint may be taken away"
    assert isinstance(never_fits(case.cluster, TaskSpec(name="t", resources=both, nodes=2)), TooFewNodes)
    case.cluster.nodes[large].node.state = NodeState.LOST
    assert never_fits(case.cluster, TaskSpec(name="t", resources=both)) is None, "a lost one may come back"


def test_static_reasons_of_containers_and_labels() -> None:
    case = Case()
    view = case.cluster.nodes[case.node(labels={"zone": "a"})]
    container = class_of(TaskSpec(name="c", container=Container(image="x")))
    reason = static_reason(view, container)
    assert reason is not None
    assert "container engine" in reason.text
    view.node.labels["jarvis.container"] = "docker"
    assert static_reason(view, container) is None
    exists = class_of(TaskSpec(name="c", constraints=(Constraint("zone", "exists"), Constraint("zone", "=", "a"))))
    assert static_reason(view, exists) is None
    assert room_reason({"cpu": 1}, {"cpu": 1}) is None
    short = room_reason({"cpu": 2000, "memory": GIB}, {"memory": GIB // 2})
    assert short is not None and short.text == "0 cpu and 512Mi memory free, wanted 2 and 1Gi"
    assert class_of(TaskSpec(name="f", function=FunctionCall(code="c", python="3.12"))).kind == "function"


def test_every_balancer_scores() -> None:
    idle = Candidate(1, {"cpu": 4000}, {}, 0, 0, 3, 7)
    busy = Candidate(2, {"cpu": 4000}, {"cpu": 3000}, 0, 2, 1, 7)
    full = Candidate(3, {"cpu": 4000}, {"cpu": 4000}, 2, 0, 2, 7)
    best = {name: min((idle, busy, full), key=score).node for name, score in SCORES.items() if name != "random"}
    assert best == {
        "least_loaded": 1, "bin_pack": 2, "spread": 1, "round_robin": 2, "best_fit": 2, "fgd": 1, "gpu_fit": 2,
    }  # fmt: skip
    random = SCORES["random"]
    assert len({random(c) for c in (idle, busy, full)}) == 3
    assert random(idle) == random(Candidate(1, {}, {}, 9, 9, 3, 7)), "chance depends on seed, turn and node alone"


def test_a_queue_in_order() -> None:
    queue, small = TaskQueue(), class_of(TaskSpec(name="t"))
    assert list(queue.entries(small)) == []
    for number in (3, 1, 2):
        queue.push(small, Entry(0, number, 0, number, 0))
    assert [entry.task for entry in queue.entries(small)] == [1, 2, 3]
    for number in range(4, 3000):
        queue.push(small, Entry(0, number, 0, number, 0))
    (lane,) = queue.lanes(small)
    queue.drop_head(lane, 2000)
    assert len(queue) == 999
    assert next(iter(queue.entries(small))).task == 2001
    queue.drop_head(lane, 999)
    assert queue.classes() == []


def test_a_queue_merges_the_lanes_of_its_owners() -> None:
    queue, small = TaskQueue(), class_of(TaskSpec(name="t"))
    for number in range(1, 7):
        queue.push(small, Entry(0, number, 0, number, 0), f"p{number % 2}", f"u{number % 3}")
    assert [entry.task for entry in queue.entries(small)] == [1, 2, 3, 4, 5, 6]
    assert len(list(queue.lanes(small))) == 6


@pytest.mark.parametrize("verb", ["cordon", "drain"])
def test_a_node_that_takes_no_work_takes_it_again(verb: str) -> None:
    case = Case()
    node = case.node()
    case.command(f"node_{verb}", node=node, reason="x")
    task = case.submit()
    case.expect(task, "queued")
    assert not case.cluster.nodes[node].node.schedulable
    case.command("node_resume", node=node)
    case.expect(task, "assigned")
    assert case.cluster.nodes[node].node.schedulable


def test_labels_taints_and_the_end_of_a_node() -> None:
    case = Case()
    node = case.node()
    task = case.submit(constraints=(Constraint("zone", "=", "a"),))
    case.expect(task, "queued")
    case.command("node_label", node=node, zone="a")
    case.expect(task, "assigned")
    case.command("node_label", node=node, zone=None)
    assert "zone" not in case.cluster.nodes[node].node.labels
    case.command("node_taint", node=node, add="x")
    assert case.cluster.nodes[node].node.taints == ("x",)
    case.command("node_taint", node=node, remove="x")
    assert case.cluster.nodes[node].node.taints == ()
    assert "drain it first" in case.command("node_remove", node=node)
    case.ends(task)
    assert "is connected" in case.command("node_remove", node=node)
    case.cluster.nodes[node].session = None
    assert case.command("node_remove", node=node) == ""
    assert case.cluster.nodes == {}


def first_of(case: Case, task: int) -> tuple[list[int], list[str]]:
    answer = why(case.cluster, ElementKey(task), case.now, case.policy)
    assert answer is not None
    return answer["ahead"], [r["text"] for r in answer["reasons"] if r["reason"] == "Priority"]


def test_who_goes_first_is_told_by_tiers() -> None:
    case = Case(Policy(queue_tiers={"urgent": 1}))
    case.node(cpus=1)
    case.submit()
    late, soon = case.submit(), case.submit(queue="urgent")
    assert first_of(case, soon) == ([], [])
    assert first_of(case, late) == ([soon], [])


def test_who_goes_first_is_told_by_shares() -> None:
    case = Case()
    case.node(cpus=2)
    for owner, count in (("heavy", 4), ("light", 1)):
        case.submit_as(owner, "u", count, {"cpu": 1000})
    *_, third, fourth, light = case.tasks
    assert first_of(case, light) == ([], [])
    assert first_of(case, third) == ([light], ["1 task of its shape goes first"])
    assert first_of(case, fourth) == ([light, third], ["2 tasks of its shape go first"])
    case.ends(1)
    assert case.state(light) is State.ASSIGNED, "as was said"


def test_what_its_own_limits_keep_back_does_not_go_first() -> None:
    case = Case()
    case.node(cpus=2)
    array = case.submit(array="0-3%1")
    case.submit()
    case.submit_as("limited", "u", 1, {"cpu": 1000})
    case.cluster.quotas["limited", ""] = Quota(project="limited", resources={"cpu": 500})
    last = case.submit(priority=-1)
    assert case.state(ElementKey(array, 1)) is State.QUEUED
    assert first_of(case, last) == ([], [])


def test_many_that_go_first_are_counted() -> None:
    case = Case()
    case.node(cpus=1)
    case.submit_as("heavy", "u", 200, {"cpu": 1000})
    assert first_of(case, 200)[1] == ["198 tasks of its shape go first"]
    case.submit_as("other", "u", 1, {"cpu": 1000})
    assert first_of(case, 200)[1] == ["at least 198 tasks of its shape go first"]


def test_an_element_that_its_array_keeps_back_is_promised_nothing() -> None:
    case = Case(Policy(backfill=Backfill("easy")))
    case.node("n1", cpus=1)
    case.node("n2", cpus=4, labels={"zone": "a"})
    case.submit(time_limit=100.0)
    kept_for = case.submit(cpus=4, constraints=(Constraint("zone", "!=", "a"),), time_limit=10.0)
    task = case.submit(array="0-9%2", constraints=(Constraint("zone", "=", "a"),))
    case.expect(kept_for, "queued")
    answer = why(case.cluster, ElementKey(task, 7), case.now, case.policy)
    assert answer is not None
    assert [r["reason"] for r in answer["reasons"]] == ["JobArrayTaskLimit"]
    assert (answer["changes"], answer["predicted"]) == ([], None)
    assert answer["expected"] == {"earliest_s": None, "latest_s": None}
