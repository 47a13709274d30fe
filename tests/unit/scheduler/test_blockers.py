"""Everything that ``why`` names is in the way, and nothing else is: asked of the engine, with all other obstacles taken away.

What keeps a task from a node alone is found by brute force: a cluster of that node, in which every other obstacle is removed (the
demand of the task dropped, or what is wrong with the node put right), is asked to start it. It starts exactly if the obstacle was
not named.
"""

import random
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import pytest
from tests.unit.scheduler.harness import GIB, Case
from tests.unit.scheduler.test_bookings import book
from tests.unit.scheduler.test_whatif import resubmit

from jarvis.core.gpus import Ask, Room, pick, without
from jarvis.core.ids import ElementKey
from jarvis.core.inputs import Hello, NodeConnected
from jarvis.core.quota import Quota
from jarvis.core.states import Cause, State
from jarvis.core.task import Affinity, Constraint, parse_array
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.explain import why
from jarvis.scheduler.policy.preemption import Preemption
from jarvis.scheduler.whatif import changes

OF_A_NODE = ("label", "taint", "cordon", "size", "room", "apart", "guarded", "near", "booking")
OF_ALL = ("quota", "licence", "throttle")
MARKS = (
    ("label zone", "label"), ("has taint", "taint"), ("is cordoned", "cordon"), ("in all, wanted", "size"), ("free", "room"),
    ("no GPU, wanted", "size"), ("on one", "size"),
    ("something with the key", "apart"), ("something that is apart", "guarded"), ("nothing with the key", "near"),
)  # fmt: skip
"""By what is said → which obstacle is meant; what is none of these is a booking."""
WORDS = {"QuotaProject": "quota", "QuotaUser": "quota", "Licenses": "licence", "JobArrayTaskLimit": "throttle"}
QUOTAS = ("running", "cpu")
OTHER = "other"
"""The project that borrows."""
PROTECTED_S = 61
"""Longer than what has begun is left alone."""
KEPT = {"room": {"room", "size"}}
"""What others have is in the way on a node of its own size; where that is too small anyway, it is not named."""
EVERYTHING = frozenset(OF_A_NODE + OF_ALL)
STATIC = frozenset(("label", "taint", "cordon", "size"))
"""Where one of these is in the way, nobody would be stopped for it."""


@dataclass(frozen=True)
class Place:
    """A node with what runs there: (cpus, key, apart from) of each."""

    cpus: int
    zone: str
    tainted: bool
    cordoned: bool
    booked: str
    """How it is booked: maintenance, reservation, or not at all."""
    runs: tuple[tuple[int, str, str], ...]
    gpus: tuple[int, ...] = ()
    """GiB of each of its GPUs."""
    gpu_runs: tuple[tuple[int, int], ...] = ()
    """(thousandths of a GPU, GiB on it) that others have."""
    borrowers: frozenset[int] = frozenset()
    """Which of what runs is another project's."""
    begun: bool = False
    """Whether what it is booked for has begun; else it begins in a minute."""


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
    by: str = "running"
    """What the quota counts."""
    user: str = ""
    """Whose it is; the project's, if nobody's."""
    gpu: tuple[int, int] = (0, 0)
    """What it asks of GPUs, as others have it."""
    preempts: bool = False
    """Whether it might have others stopped, who are all protected."""
    guaranteed: tuple[int, int] = (0, 0)
    """Cpus that its project is guaranteed, and that another is, which has some of what runs."""
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
        zone, tainted, cordoned = chance.choice("ab"), likely(0.3), likely(0.2)
        booked = chance.choice(["maintenance", "reservation", "", "", "", "", "", ""])
        places.append(Place(cpus, zone, tainted, cordoned, booked, tuple(runs), begun=likely(0.5)))
    wants = frozenset(w for w in ("label", "apart", "guarded", "near", "licence") if likely(0.3))
    nodes = 2 if likely(0.2) else 1
    if nodes > 1:
        wants &= {"label", "licence"}
    cpus, limited, by = chance.randint(1, 9), likely(0.3), chance.choice(QUOTAS)
    user, preempts = chance.choice(["", "u"]), likely(0.3)
    if nodes == 1 and likely(0.2):
        wants |= {"throttle"}
    gpu = (0, 0)
    if likely(0.3):
        gpu = chance.choice([(500, 0), (1000, 0), (2000, 0), (0, 4), (0, 12), (300, 8)])
        places = [_with_gpus(place, chance) for place in places]
    counted = [run for place in places for run in (*place.runs, *place.gpu_runs)]
    count = len(counted) + ("throttle" in wants) + chance.randint(0, 1)
    if by == "cpu":
        least = cpus * nodes
        used = sum(run[0] for place in places for run in place.runs) + cpus * ("throttle" in wants)
        count = max(used + chance.randint(0, 2 * least), least)
    found = Situation(
        tuple(places), cpus, wants, max(count, 1) if limited else None, nodes, by, user, gpu, preempts
    )  # fmt: skip
    return _borrowed(found, random.Random(f"{seed}/shares")) if gpu == (0, 0) else found


def _borrowed(case_of: Situation, chance: random.Random) -> Situation:
    """In some clusters, its project is guaranteed a share, and another one has of that what it did not use."""
    if chance.random() < 0.6:
        return case_of
    places = tuple(_lent(place, chance) for place in case_of.places)
    wants = frozenset(what for what in sorted(case_of.wants) if chance.random() < 0.4)
    cpus, shares = (
        chance.randint(1, max(place.cpus for place in places)),
        (chance.randint(4, 30), chance.choice((0, 0, 2, 5))),
    )
    return replace(
        case_of, places=places, quota=None, preempts=False, guaranteed=shares, cpus=cpus, wants=wants
    )  # fmt: skip


def _lent(place: Place, chance: random.Random) -> Place:
    """Most of what runs there is the other's, and there is more of it."""
    first = next((n for n, (_, _, apart) in enumerate(place.runs) if apart), -1)
    runs = tuple(run for n, run in enumerate(place.runs) if not run[2] or n == first)  # others would not start
    left = place.cpus - sum(cpu for cpu, *_ in runs)
    if left and chance.random() < 0.7:
        runs = (*runs, (left, "", ""))
    borrowers = frozenset(n for n in range(len(runs)) if chance.random() < 0.8)
    closed = chance.random() < 0.3
    return replace(
        place, runs=runs, borrowers=borrowers, booked="", tainted=place.tainted and closed, cordoned=place.cordoned and closed
    )  # fmt: skip


def _with_gpus(place: Place, chance: random.Random) -> Place:
    sizes = tuple(chance.choice([6, 16]) for _ in range(chance.randint(0, 3)))
    room, runs = Room((1000,) * len(sizes), tuple(GIB * s for s in sizes), tuple(GIB * s for s in sizes)), []
    for _ in range(chance.randint(0, 3) if sizes else 0):
        run = chance.choice([(500, 0), (1000, 0), (0, 4), (300, 8)])
        shares = pick(room, Ask(run[0], GIB * run[1]))
        if shares is not None:
            room = without(room, shares)
            runs.append(run)
    return replace(place, gpus=sizes, gpu_runs=tuple(runs))


def built(case_of: Situation) -> tuple[Case, ElementKey]:
    """The cluster with everything in it, and the task that came last."""
    arrayed = "throttle" in case_of.wants
    protected = Preemption(by=100, protect=1e9)
    case = Case(Policy(licenses={"tool": 1 + arrayed}, preemption=protected if case_of.preempts else None))
    began = _begun_array(case, case_of) if arrayed else 0
    for at, place in enumerate(case_of.places):
        _node(case, case_of, place, at)
        here: dict[str, Any] = {"constraints": (Constraint("host", "=", str(at)),), "tolerations": ("special",)}
        for number, (cpu, key, apart) in enumerate(place.runs):
            need = {"cpu": 1000 * cpu if case_of.stands("room") else 0}
            near = (Affinity("apart", apart, "", 0),) if apart else ()
            owner = OTHER if number in place.borrowers else "p"
            case.submit_as(owner, "u", 1, need, keys=(key,) if key else (), affinities=near, **here)
        for run in place.gpu_runs:
            case.submit_as("p", "u", 1, gpu_need(run) if case_of.stands("room") else {"cpu": 0}, **here)
    _surround(case, case_of)
    if arrayed:
        case.command("release", task=began)
        return case, ElementKey(began, 1)
    return case, ElementKey(_last(case, case_of))


def gpu_need(asked: tuple[int, int]) -> dict[str, int]:
    return {name: amount for name, amount in (("gpu", asked[0]), ("gpu_memory", GIB * asked[1])) if amount}


def _node(case: Case, case_of: Situation, place: Place, at: int) -> None:
    cpus, sizes = place.cpus, place.gpus
    if not case_of.stands("size"):
        cpus, sizes = 1000, place.gpus + (100,) * 8 if case_of.gpu != (0, 0) else place.gpus
    resources = {"cpu": cpus * 1000, "memory": 8 * GIB}
    if sizes:
        resources |= {"gpu": 1000 * len(sizes), "gpu_memory": GIB * sum(sizes)}
    hello = Hello(
        version=1, software="0", name=f"n{at}", node=None, boot_id="b", resources=resources,
        labels={"zone": place.zone, "host": str(at), "jarvis.address": str(at)},
        taints=("special",) if place.tainted and case_of.stands("taint") else (),
        gpu_memory=tuple(GIB * size for size in sizes),
    )  # fmt: skip
    case.step(NodeConnected("hello", f"session-n{at}", hello))


def _begun_array(case: Case, case_of: Situation) -> int:
    """Its first element runs on a node that is full of it and closed, the second is held until everything else is there."""
    sizes = (100,) * 8
    resources = {"cpu": case_of.cpus * 1000, "memory": GIB, "gpu": 8000, "gpu_memory": GIB * sum(sizes)}
    hello = Hello(
        version=1, software="0", name="begun", node=None, boot_id="b", resources=resources, labels={"zone": "a"},
        gpu_memory=tuple(GIB * size for size in sizes),
    )  # fmt: skip
    case.step(NodeConnected("hello", "session-begun", hello))
    case.submit(0, keys=("y",))
    ident = _last(case, case_of)
    case.command("hold", task=ident)
    case.command("node_cordon", node=case.cluster.node_names["begun"])
    return ident


def _surround(case: Case, case_of: Situation) -> None:
    """What is in the way and was not when the others started."""
    if case_of.stands("quota") and case_of.quota is not None:
        limit = {"running": case_of.quota} if case_of.by == "running" else {"resources": {"cpu": 1000 * case_of.quota}}
        quota = Quota(project="p", user=case_of.user, **limit)
        case.cluster.quotas = {("p", case_of.user): quota}
    if "licence" in case_of.wants and case_of.stands("licence"):
        spare = case.node("licences", 1, labels={"host": "licences"})
        here = Constraint("host", "=", "licences")
        case.submit_as("q", "u", 1, {"cpu": 1000}, licenses={"tool": 1}, constraints=(here,))
        case.command("node_cordon", node=spare)
    for project, share in zip(("p", OTHER), case_of.guaranteed, strict=True):
        if share:
            case.cluster.quotas[project, ""] = Quota(project=project, guaranteed={"cpu": 1000 * share})
    for at, place in enumerate(case_of.places):
        if place.cordoned and case_of.stands("cordon"):
            case.command("node_cordon", node=case.cluster.node_names[f"n{at}"])
        if place.booked and case_of.stands("booking"):
            whose = {"project": "other"} if place.booked == "reservation" else {}
            book(case, f"n{at}", 0 if place.begun else 60, 600, ident=900 + at, **whose)


def _last(case: Case, case_of: Situation) -> int:
    def wants(what: str) -> bool:
        return what in case_of.wants and case_of.stands(what)

    affinities = [Affinity("apart", "x", "", 0)] if wants("apart") else []
    affinities += [Affinity("near", "y", "", 0)] if wants("near") else []
    spec: dict[str, Any] = {
        "constraints": (Constraint("zone", "=", "a"),) if wants("label") else (),
        "affinities": tuple(affinities), "keys": ("mine",) if wants("guarded") else (),
        "licenses": {"tool": 1} if wants("licence") else {}, "nodes": case_of.nodes,
        "priority": 1000 if case_of.preempts else 0,
    }  # fmt: skip
    if "throttle" in case_of.wants:
        spec["array"] = parse_array("0-1%1" if wants("throttle") else "0-1")
    case.submit_as("p", "u", 1, {"cpu": 1000 * case_of.cpus} | gpu_need(case_of.gpu), **spec)
    return max(case.tasks)


def starts(case_of: Situation) -> bool:
    case, key = built(case_of)
    return case.state(key) is State.ASSIGNED


def named_of(case: Case, key: ElementKey) -> tuple[dict[str, set[str]], set[str], set[str]]:
    """What is named of each node and of the whole cluster, as obstacles; and all words."""
    told = why(case.cluster, key, case.now, case.policy)
    assert told is not None
    of_nodes: dict[str, set[str]] = {view.node.name: set() for view in case.cluster.nodes.values()}
    for row in told["nodes"]:
        assert row["text"], row
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
    free = EVERYTHING - set(OF_ALL) - {"room"}  # what others have counts for a quota
    as_one = replace(case_of, nodes=1, cpus=case_of.cpus * case_of.nodes)
    real = {what for what in OF_ALL if not starts(replace(as_one, neutral=free | set(OF_ALL) - {what}))}
    assert of_all == real, f"seed {seed}: {case_of}"
    able = sum(starts(replace(case_of, places=(p,), nodes=1, neutral=frozenset(OF_ALL))) for p in case_of.places)
    assert ("GangIncomplete" in words) is (case_of.nodes > 1 and able < case_of.nodes), f"seed {seed}: {case_of}"
    if case_of.guaranteed[0]:
        reclaims(case_of, case, key, words, seed)
        return count + len(real)
    lower = [place for place in case_of.places if any(cpu for cpu, *_ in place.runs) or place.gpu_runs]
    lower = [place for place in lower if not (place.booked == "maintenance" and place.begun)]
    may = any(starts(replace(case_of, places=(p,), nodes=1, neutral=EVERYTHING - STATIC)) for p in lower)
    assert ("PreemptsNobody" in words) is (case_of.preempts and may), f"seed {seed}: {case_of}"
    if "throttle" in case_of.wants:
        return count + len(real)  # what another request of the array would have begun with is another question
    for change in changes(case.cluster, case.policy, case.cluster.tasks[key.task], case.now):
        again, same = built(case_of)
        assert again.state(resubmit(again, same.task, change.spec)) is State.ASSIGNED, f"seed {seed}: {change.text}"
    return count + len(real)


def reclaims(case_of: Situation, case: Case, key: ElementKey, words: set[str], seed: int) -> None:
    """Whom it has stopped is one of all sets that might be, if there is one; and while they are protected, that is said."""
    task = case.cluster.tasks[key.task]
    has = dict.fromkeys(("p", OTHER), 0)
    for running in case.cluster.attempts:
        of = case.tasks[running.task]
        has[of.project] = has.get(of.project, 0) + of.spec.whole["cpu"]
    covered = has["p"] + task.spec.whole["cpu"] <= 1000 * case_of.guaranteed[0]
    spare = max(has[OTHER] - 1000 * case_of.guaranteed[1], 0)
    static = replace(case_of, nodes=1, neutral=EVERYTHING - STATIC)
    able = [place for place in case_of.places if starts(replace(static, places=(place,)))]
    borrowed = [cpu for p in able for at, (cpu, *_) in enumerate(p.runs) if at in p.borrowers and 1000 * cpu <= spare]
    assert ("PreemptsNobody" in words) is (covered and bool(borrowed)), f"seed {seed}: {case_of}"
    case.wait(PROTECTED_S)
    _, of_all, words = named_of(case, key)
    claim = case.cluster.claims.get(key)
    assert ("WaitingForPreempted" in words) is (claim is not None), f"seed {seed}: {case_of}"
    assert ("PreemptsNobody" in words) is (covered and any(cpu * 1000 > spare for cpu in borrowed)), f"seed {seed}"
    if task.spec.nodes == 1:
        might = covered and not of_all and any(_makes_room(case_of, place, spare) for place in case_of.places)
        assert (claim is not None) is might, f"seed {seed}: {case_of}"
    victims = {victim for victim, _ in claim.victims} if claim is not None else set()
    assert sum(case.tasks[v.task].spec.whole["cpu"] for v in victims) <= spare, f"seed {seed}: {case_of}"
    assert all(case.tasks[v.task].project == OTHER for v in victims), f"seed {seed}: {case_of}"
    for victim in victims:
        case.ends(victim, cause=Cause.PREEMPTED)
    assert claim is None or case.state(key) is State.ASSIGNED, f"seed {seed}: {case_of}"


def _makes_room(case_of: Situation, place: Place, spare: int) -> bool:
    """Whether any set of what is borrowed there would be enough, and may be taken back."""
    others = replace(case_of, places=(place,), neutral=frozenset(OF_ALL) | {"room"})
    if not starts(others):
        return False
    free = place.cpus - sum(cpu for cpu, *_ in place.runs)
    near = "near" in case_of.wants
    may = [cpu for at, (cpu, key, _) in enumerate(place.runs) if at in place.borrowers and not (near and key == "y")]
    sets = (s for n in range(1, len(may) + 1) for s in combinations(may, n))
    return any(free + sum(s) >= case_of.cpus and 1000 * sum(s) <= spare for s in sets)


def test_what_is_named_is_in_the_way_and_nothing_else_is() -> None:
    assert sum(check(seed) for seed in range(25)) > 50


@pytest.mark.soak
def test_on_a_thousand_random_clusters() -> None:
    assert sum(check(seed) for seed in range(1000)) > 2000
