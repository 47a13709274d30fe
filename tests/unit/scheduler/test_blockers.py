"""Everything that ``why`` names is in the way, and nothing else is: asked of the engine, with all other obstacles taken away.

What keeps a task from a node alone is found by brute force: a cluster of that node, in which every other obstacle is removed (the
demand of the task dropped, or what is wrong with the node put right), is asked to start it. It starts exactly if the obstacle was
not named.
"""

import random
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from tests.unit.scheduler.harness import Case
from tests.unit.scheduler.test_bookings import book
from tests.unit.scheduler.test_whatif import resubmit

from jarvis.core.ids import ElementKey
from jarvis.core.quota import Quota
from jarvis.core.states import State
from jarvis.core.task import Affinity, Constraint
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.explain import why
from jarvis.scheduler.whatif import changes

OF_A_NODE = ("label", "taint", "cordon", "size", "room", "apart", "guarded", "near", "booking")
OF_ALL = ("quota", "licence")
MARKS = (
    ("label zone", "label"), ("has taint", "taint"), ("is cordoned", "cordon"), ("in all, wanted", "size"), ("free", "room"),
    ("something with the key", "apart"), ("something that is apart", "guarded"), ("nothing with the key", "near"),
)  # fmt: skip
"""By what is said → which obstacle is meant; what is none of these is a booking."""
WORDS = {"QuotaProject": "quota", "Licenses": "licence"}
KEPT = {"room": {"room", "size"}}
"""What others have is in the way on a node of its own size; where that is too small anyway, it is not named."""
EVERYTHING = frozenset(OF_A_NODE + OF_ALL)


@dataclass(frozen=True)
class Place:
    """A node with what runs there: (cpus, key, apart from) of each."""

    cpus: int
    zone: str
    tainted: bool
    cordoned: bool
    booked: bool
    runs: tuple[tuple[int, str, str], ...]


@dataclass(frozen=True)
class Situation:
    """What there is, and what the task that waits asks for."""

    places: tuple[Place, ...]
    cpus: int
    wants: frozenset[str]
    """Demands that may stand in its way: label, apart, guarded, near, licence."""
    quota: int | None
    """How many elements its project may have on nodes."""
    nodes: int = 1
    neutral: frozenset[str] = field(default=frozenset())
    """Obstacles that are taken away."""

    def stands(self, what: str) -> bool:
        return what not in self.neutral


def drawn(seed: int) -> Situation:
    chance = random.Random(seed)

    def likely(share: float) -> bool:
        return chance.random() < share

    places = []
    for _ in range(chance.randint(1, 4)):
        left = cpus = chance.randint(2, 8)
        runs = []
        while left and likely(0.6):
            cpu = chance.randint(1, left)
            left -= cpu
            runs.append((cpu, chance.choice(["", "x", "y"]), chance.choice(["", "", "mine"])))
        places.append(Place(cpus, chance.choice("ab"), likely(0.3), likely(0.2), likely(0.2), tuple(runs)))
    wants = frozenset(w for w in ("label", "apart", "guarded", "near", "licence") if likely(0.3))
    nodes = 2 if likely(0.2) else 1
    if nodes > 1:
        wants &= {"label", "licence"}
    quota = sum(len(place.runs) for place in places) + chance.randint(0, 1)
    return Situation(tuple(places), chance.randint(1, 9), wants, max(quota, 1) if likely(0.3) else None, nodes)


def built(case_of: Situation) -> tuple[Case, ElementKey]:
    """The cluster with everything in it, and the task that came last."""
    case = Case(Policy(licenses={"tool": 1}))
    for at, place in enumerate(case_of.places):
        cpus = place.cpus if case_of.stands("size") else 1000
        taints = ("special",) if place.tainted and case_of.stands("taint") else ()
        case.node(
            f"n{at}", cpus, labels={"zone": place.zone, "host": str(at), "jarvis.address": str(at)}, taints=taints
        )
        for cpu, key, apart in place.runs:
            need = cpu if case_of.stands("room") else 0
            keys = (key,) if key else ()
            near = (Affinity("apart", apart, "", 0),) if apart else ()
            here = Constraint("host", "=", str(at))
            case.submit(need, constraints=(here,), tolerations=("special",), keys=keys, affinities=near)
    _surround(case, case_of)
    return case, _last(case, case_of)


def _surround(case: Case, case_of: Situation) -> None:
    """What is in the way and was not when the others started."""
    if case_of.stands("quota") and case_of.quota is not None:
        case.cluster.quotas = {("p", ""): Quota(project="p", running=case_of.quota)}
    if "licence" in case_of.wants and case_of.stands("licence"):
        spare = case.node("licences", 1, labels={"host": "licences"})
        here = Constraint("host", "=", "licences")
        case.submit_as("q", "u", 1, {"cpu": 1000}, licenses={"tool": 1}, constraints=(here,))
        case.command("node_cordon", node=spare)
    for at, place in enumerate(case_of.places):
        if place.cordoned and case_of.stands("cordon"):
            case.command("node_cordon", node=case.cluster.node_names[f"n{at}"])
        if place.booked and case_of.stands("booking"):
            book(case, f"n{at}", 60, 600, ident=900 + at, project="other")


def _last(case: Case, case_of: Situation) -> ElementKey:
    def wants(what: str) -> bool:
        return what in case_of.wants and case_of.stands(what)

    affinities = [Affinity("apart", "x", "", 0)] if wants("apart") else []
    affinities += [Affinity("near", "y", "", 0)] if wants("near") else []
    spec: dict[str, Any] = {
        "constraints": (Constraint("zone", "=", "a"),) if wants("label") else (),
        "affinities": tuple(affinities), "keys": ("mine",) if wants("guarded") else (),
        "licenses": {"tool": 1} if wants("licence") else {},
    }  # fmt: skip
    return ElementKey(case.submit(case_of.cpus, nodes=case_of.nodes, **spec))


def starts(case_of: Situation) -> bool:
    case, key = built(case_of)
    return case.state(key) is State.ASSIGNED


def named_of(case: Case, key: ElementKey) -> tuple[dict[str, set[str]], set[str], set[str]]:
    """What is named of each node and of the whole cluster, as obstacles; and all words."""
    told = why(case.cluster, key, case.now, case.policy)
    assert told is not None
    of_nodes: dict[str, set[str]] = {view.node.name: set() for view in case.cluster.nodes.values()}
    for row in told["nodes"]:
        of_nodes[row["node"]].add(next((what for mark, what in MARKS if mark in row["text"]), "booking"))
    words = {reason["reason"] for reason in told["reasons"]}
    return of_nodes, {WORDS[word] for word in words if word in WORDS}, words


def check(seed: int) -> int:
    """How many obstacles were named, rightly."""
    case_of = drawn(seed)
    case, key = built(case_of)
    if case.state(key) is not State.QUEUED:
        return 0
    of_nodes, of_all, words = named_of(case, key)
    count = 0
    for at, place in enumerate(case_of.places):
        alone = replace(case_of, places=(place,), nodes=1)
        real = {what for what in OF_A_NODE if not starts(replace(alone, neutral=EVERYTHING - KEPT.get(what, {what})))}
        if "size" in real:
            real.discard("room")
        assert of_nodes[f"n{at}"] == real, f"seed {seed}, node n{at}: {case_of}"
        count += len(real)
    free = EVERYTHING - {"licence", "quota"}
    real = {what for what in OF_ALL if not starts(replace(case_of, nodes=1, neutral=free | set(OF_ALL) - {what}))}
    assert of_all == real, f"seed {seed}: {case_of}"
    able = sum(starts(replace(case_of, places=(p,), nodes=1, neutral=frozenset(OF_ALL))) for p in case_of.places)
    assert ("GangIncomplete" in words) is (case_of.nodes > 1 and able < case_of.nodes), f"seed {seed}: {case_of}"
    for change in changes(case.cluster, case.policy, case.cluster.tasks[key.task], case.now):
        again, same = built(case_of)
        assert again.state(resubmit(again, same.task, change.spec)) is State.ASSIGNED, f"seed {seed}: {change.text}"
    return count + len(real)


def test_what_is_named_is_in_the_way_and_nothing_else_is() -> None:
    assert sum(check(seed) for seed in range(25)) > 50


@pytest.mark.soak
def test_on_a_thousand_random_clusters() -> None:
    assert sum(check(seed) for seed in range(1000)) > 2000
