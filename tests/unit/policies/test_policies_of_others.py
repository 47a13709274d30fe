"""Policies of other packages: found, refused, used, checked, and missed politely where they are not."""

import itertools
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.scheduler.harness import Case
from tests.unit.scheduler.test_affinity import nodes_of
from tests.unit.scheduler.test_licenses import words

from jarvis import policies
from jarvis.config.policies import SchedulerSettings, policy_of
from jarvis.core.ids import ElementKey
from jarvis.policies import FilterPolicy, OrderPolicy, ScorePolicy, UnknownPolicy, checked, need, plug
from jarvis.policies.contract import problems, problems_of
from jarvis.scheduler.explain import why
from jarvis.scheduler.load_balancer import EXACT, IMPROVES, SCORES
from jarvis.scheduler.policy.order import RANKS
from jarvis.scheduler.policy.plugged import FILTERS

EXAMPLE = Path(__file__).parents[3] / "examples" / "policies"
METADATA = "Metadata-Version: 2.1\nName: jarvis-example-policies\nVersion: 1.0\n"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The example as if it were installed, with two entry points that are no good; nothing of it stays."""
    info = tmp_path / "jarvis_example_policies-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA)
    (info / "entry_points.txt").write_text(
        "[jarvis.policies]\nwidest-first = jarvis_example_policies:WIDEST_FIRST\n"
        "newest-node = jarvis_example_policies:NEWEST_NODE\nown-queue = jarvis_example_policies:OWN_QUEUE\n"
        "gone = no_such_module:X\nno-policy = os:sep\nby-hash = by_hash:POLICY\n"
    )
    (tmp_path / "by_hash.py").write_text(
        "from jarvis.policies import OrderPolicy\nPOLICY = OrderPolicy(lambda order, spec, at, s: hash(spec.name) % 1000)\n"
    )
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{EXAMPLE}")
    yield tmp_path
    for name in ("widest-first", "newest-node", "own-queue"):
        for names in (RANKS, SCORES, FILTERS):
            names.pop(name, None)
        EXACT.discard(name)
        IMPROVES.discard(name)
    policies._plugged.clear()


def test_an_order_a_score_and_a_filter_decide(installed: Path) -> None:
    given = {"order": "widest-first", "balancer": "newest-node", "filters": ["own-queue"], "backfill": "skip"}
    policy = policy_of(SchedulerSettings.model_validate(given))
    assert [(p.kind, p.name, p.package, p.version) for p in policy.plugged] == [
        ("filter", "own-queue", "jarvis-example-policies", "1.0"),
        ("order", "widest-first", "jarvis-example-policies", "1.0"),
        ("score", "newest-node", "jarvis-example-policies", "1.0"),
    ]
    case = Case(policy)
    for cpus, labels in ((2, {}), (4, {}), (8, {"queue": "urgent"})):
        case.node(cpus=cpus, labels=labels)
    case.submit(cpus=4)
    assert nodes_of(case) == {"n2": [1]}, "the newest that may have it"
    case.submit(cpus=1)
    case.submit(cpus=4)
    case.submit(cpus=3)
    assert nodes_of(case) == {"n1": [2], "n2": [1]}
    told = why(case.cluster, ElementKey(3), case.now, policy)
    assert ("PolicyFilter", "1 of 3 nodes: own-queue: takes the queue urgent alone, not default") in words(told)
    case.ends(1)
    assert nodes_of(case) == {"n1": [2], "n2": [3]}, "the widest first"
    case.submit(cpus=4, queue="urgent")
    assert nodes_of(case)["n3"] == [5]
    case.command("node_label", node=3, queue=None)
    assert nodes_of(case)["n3"] == [4, 5]


def test_unknown_names_are_refused_with_those_there_are(installed: Path) -> None:
    for given, place, said in (
        ({"order": "tallest"}, "order", "there is no order tallest; there are fifo"),
        ({"balancer": "tallest"}, "balancer", "gpu_fit, newest-node"),
        ({"filters": ["tallest"]}, "filters", "there are own-queue"),
        ({"order": "own-queue"}, "order", "own-queue is a policy of the kind filter, not order"),
        ({"queues": {"q": {"balancer": "gone"}}}, "queues", "gone of jarvis-example-policies cannot be loaded"),
        ({"filters": ["no-policy"]}, "filters", "is a str, none of OrderPolicy"),
    ):
        with pytest.raises(ValueError, match=said) as refused:
            SchedulerSettings.model_validate(given)
        assert place in str(refused.value)
    with pytest.raises(ValueError, match="by-hash, widest-first"):
        checked("order", "nothing")


def test_what_decided_must_be_here_in_the_same_version(installed: Path) -> None:
    plugged = plug("order", "widest-first")
    need([plugged])
    with pytest.raises(UnknownPolicy, match=r"jarvis-example-policies 2.0; here is jarvis-example-policies 1.0"):
        need([plugged._replace(version="2.0")])
    with pytest.raises(UnknownPolicy, match="is not usable here: there is no filter gone-since"):
        need([plugged._replace(kind="filter", name="gone-since")])


def test_nothing_is_found_in_the_example_and_in_our_own(installed: Path) -> None:
    for name in ("widest-first", "newest-node", "own-queue"):
        assert problems_of(name, 40) == []
    for rank in RANKS.values():
        assert problems(OrderPolicy(rank), 100) == []
    for name, score in SCORES.items():
        assert name == "fgd" or problems(ScorePolicy(score), 100) == []


def test_the_contract_finds_what_is_wrong(installed: Path) -> None:
    counter = itertools.count()

    def spoils(node, asked):  # type: ignore[no-untyped-def]
        node.labels["seen"] = "yes"
        return ""

    def reads(order, spec, at, seconds):  # type: ignore[no-untyped-def]
        return float(len(Path("/proc/self/stat").read_text()) > 0)

    for policy, said in (
        (OrderPolicy(lambda *_: float("nan")), "not a finite number"),
        (OrderPolicy(lambda *_: time.time()), "to the same arguments"),
        (OrderPolicy(lambda *_: random.random()), "to the same arguments"),
        (OrderPolicy(lambda *_: next(counter)), "to the same arguments"),
        (OrderPolicy(lambda order, spec, at, seconds: 1 / spec.resources["cpu"]), "it raises division by zero"),
        (OrderPolicy(reads), "reaches outside of its arguments: open"),
        (ScorePolicy(lambda candidate: "best"), "not a finite number"),  # type: ignore[arg-type,return-value]
        (FilterPolicy(lambda node, asked: None), "not a text"),  # type: ignore[arg-type,return-value]
        (FilterPolicy(spoils), "it changes its arguments"),
    ):
        found = problems(policy, 100)
        assert any(said in problem for problem in found), (said, found)
    assert any("another process" in problem for problem in problems_of("by-hash", 40))
    with pytest.raises(UnknownPolicy, match="there are by-hash, gone"):
        problems_of("nothing")
