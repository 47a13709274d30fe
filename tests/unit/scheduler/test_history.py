"""How the reasons of what waits changed: compactly, boundedly, and without a word to the store."""

from tests.unit.scheduler.harness import Case

from jarvis.core.ids import ElementKey
from jarvis.core.quota import Quota
from jarvis.scheduler import history
from jarvis.scheduler.explain import why


def told(case: Case, task: int) -> list[tuple[float, list[str]]]:
    said = why(case.cluster, ElementKey(task), case.now)
    assert said is not None
    return [(change["since"], change["reasons"]) for change in said["history"]]


def wait(case: Case, seconds: int) -> None:
    for _ in range(seconds):
        case.wait(1)


def test_reasons_as_they_changed() -> None:
    case = Case()
    case.node(cpus=4)
    first = case.submit(cpus=4)
    late = case.submit(cpus=2)
    begin = case.now
    assert told(case, late) == []
    wait(case, 7)
    assert told(case, late) == [(begin + 5, ["Resources"])]
    case.cluster.quotas["p", ""] = Quota(project="p", resources={"cpu": 1000})
    wait(case, 3)
    case.cluster.quotas.clear()
    node = case.cluster.nodes[1].node
    node.cordoned, case.cluster.nodes_changed = True, True
    wait(case, 3)
    assert [reasons for _, reasons in told(case, late)] == [
        ["Resources"],
        ["QuotaProject", "Resources"],
        ["ReqNodeNotAvail", "Resources"],
    ]
    case.now += 100
    later = case.submit(cpus=2)
    assert told(case, later) == [(case.now, ["ReqNodeNotAvail", "Resources"])], "what held when it came, since it came"
    assert [case.cluster.history.word_of(case.tasks[task]) for task in (late, later)] == ["ReqNodeNotAvail"] * 2
    assert case.cluster.history.word_of(case.tasks[first]) == "", "nothing of its kind waits"
    node.cordoned, case.cluster.nodes_changed = False, True
    case.ends(first)
    assert told(case, late) == []


def test_only_so_much_is_remembered() -> None:
    case = Case()
    case.node(cpus=4)
    case.submit(cpus=4)
    late = case.submit(cpus=2)
    node = case.cluster.nodes[1].node
    for turn in range(3 * history.CHANGES_MOST):
        node.cordoned, case.cluster.nodes_changed = turn % 2 == 0, True
        case.wait(6)
    assert len(told(case, late)) == history.CHANGES_MOST
    assert told(case, late)[-1][0] > told(case, late)[0][0]


def test_what_waits_no_longer_is_forgotten() -> None:
    case = Case()
    case.node(cpus=4)
    first = case.submit(cpus=4)
    case.submit(cpus=2)
    wait(case, 8)
    assert len(case.cluster.history.changes) == 1
    case.ends(first)
    case.submit(cpus=4)
    wait(case, 8)
    assert len(case.cluster.history.changes) == 1
    assert next(iter(case.cluster.history.changes))[0].resources == (("cpu", 4000),)


def test_a_large_cluster_is_looked_at_bit_by_bit() -> None:
    case = Case()
    for _ in range(4):
        case.node(cpus=1)
    for _ in range(4):
        case.submit(cpus=1)
    for number in range(40):
        case.submit(cpus=1, keys=(f"k{number}",))
    before, history.NODES_MOST = history.NODES_MOST, 40
    try:
        wait(case, 5)
        seen = len(case.cluster.history.changes)
        case.wait(1)
        assert len(case.cluster.history.changes) <= seen + 10
        wait(case, 10)
        assert len(case.cluster.history.changes) == 40
    finally:
        history.NODES_MOST = before
