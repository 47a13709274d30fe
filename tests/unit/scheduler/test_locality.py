"""Where what a task needs lies already: of the nodes with room now, and nothing else than which of them."""

from dataclasses import replace
from random import Random
from typing import Any

import pytest
from pydantic import ValidationError
from tests.unit.scheduler.gang_harness import Gangs
from tests.unit.scheduler.harness import GIB, Case

from jarvis.config.policies import SchedulerSettings, policy_of
from jarvis.core.holdings import HELD_MOST, whole_name
from jarvis.core.inputs import Ended, Hello, NodeConnected, NodesSeen
from jarvis.core.states import Cause
from jarvis.core.task import Affinity, Container, Preference, TaskSpec
from jarvis.scheduler import near
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.explain import why
from jarvis.scheduler.policy.backfill import Backfill
from jarvis.scheduler.policy.locality import BALANCERS, LEAST, Holders, Locality, level
from jarvis.scheduler.whatif import plan_task

FILES = "ab" * 32
IMAGE = whole_name("alpine")
OFF = Policy(locality=Locality(0))


def holds(case: Case, node: int, **things: int) -> None:
    """A node says what it holds: ``image`` and ``files`` in bytes."""
    names = {"image": IMAGE, "files": FILES}
    said = {names.get(name, name): size for name, size in things.items()}
    case.step(NodesSeen("seen", {node: {}}, holds={node: said}))


def on(case: Case, task: int) -> int:
    return case.attempt(task).node


def three(policy: Policy | None = None, cpus: float = 4) -> Case:
    case = Case(policy)
    for _ in range(3):
        case.node(cpus=cpus)
    return case


def contained(case: Case, **more: Any) -> int:
    return case.submit(container=Container("alpine"), **more)


def with_engines(policy: Policy | None = None, nodes: int = 3) -> Case:
    case = Case(policy)
    for _ in range(nodes):
        case.node(labels={"jarvis.container": "docker"})
    return case


def test_pushed_files_draw_a_task() -> None:
    case = three()
    holds(case, 3, files=GIB)
    assert on(case, case.submit(push=(FILES,))) == 3
    assert on(case, case.submit()) == 1, "what names nothing goes where it went before"
    assert on(case, case.submit(push=("cd" * 32,))) == 2, "nobody holds that"
    assert on(case, case.submit(push=(FILES,))) == 3, "fuller, but it need not fetch anything"


def test_images_draw_a_task_under_each_of_their_names() -> None:
    case = with_engines()
    holds(case, 2, image=GIB)
    for image in ("alpine", "docker.io/library/alpine", "alpine:latest"):
        assert on(case, case.submit(container=Container(image))) == 2
    assert on(case, case.submit(container=Container("alpine:3.20"))) == 1


def test_a_holder_without_room_lets_nothing_wait() -> None:
    case = three(cpus=1)
    holds(case, 3, files=GIB)
    first, second = case.submit(push=(FILES,)), case.submit(push=(FILES,))
    assert (on(case, first), on(case, second)) == (3, 1)


def test_more_counts_by_levels_and_then_the_balancer() -> None:
    case = three()
    holds(case, 2, files=LEAST)
    holds(case, 3, files=3 * LEAST)
    assert on(case, case.submit(push=(FILES,), cpus=2)) == 3
    holds(case, 2, files=2 * LEAST)
    assert on(case, case.submit(push=(FILES,))) == 2, "a small difference leaves it to the balancer"
    assert [level(held, LEAST) for held in (LEAST - 1, LEAST, 2 * LEAST - 1, 2 * LEAST, 4 * LEAST)] == [0, 1, 1, 2, 3]


def test_image_and_files_count_together() -> None:
    case = with_engines()
    holds(case, 1, image=LEAST)
    holds(case, 2, files=LEAST)
    holds(case, 3, image=LEAST, files=LEAST)
    assert on(case, contained(case, push=(FILES,))) == 3


def test_too_little_draws_nothing() -> None:
    case = three()
    holds(case, 3, files=LEAST - 1)
    assert on(case, case.submit(push=(FILES,))) == 1


def test_what_went_draws_nothing_any_more() -> None:
    case = three()
    holds(case, 3, files=GIB)
    holds(case, 3)
    assert on(case, case.submit(push=(FILES,))) == 1
    assert not case.cluster.holders.of


def test_another_session_begins_with_nothing() -> None:
    """A node of the version before tells nothing, and what the one before it told is not its own."""
    case = three()
    holds(case, 3, files=GIB)
    row = case.cluster.nodes[3].node
    hello = Hello(
        version=1, software="0", name=row.name, node=3, boot_id=row.boot_id, resources=row.resources, labels={}, ordinal=9
    )  # fmt: skip
    case.step(NodeConnected("hello", "another", hello))
    assert not case.cluster.holders.of


def test_a_node_that_is_removed_is_forgotten() -> None:
    case = three()
    holds(case, 3, files=GIB)
    case.command("node_remove", node=3, admin=True, expelled=True)
    assert not case.cluster.holders.of


def test_a_node_that_takes_no_work_is_passed_over() -> None:
    case = three()
    holds(case, 3, files=GIB)
    assert on(case, case.submit(push=(FILES,))) == 3
    case.command("node_cordon", node=3, admin=True)
    assert on(case, case.submit(push=(FILES,))) == 1
    case.command("node_uncordon", node=3, admin=True)
    assert on(case, case.submit(push=(FILES,))) == 3


def test_a_wish_comes_before_it() -> None:
    case = Case()
    for zone in ("a", "b", "a"):
        case.node(labels={"zone": zone})
    holds(case, 2, files=1 << 40)
    holds(case, 3, files=GIB)
    assert on(case, case.submit(push=(FILES,), preferences=(Preference("zone", "=", "a", 1),))) == 3
    assert on(case, case.submit(push=(FILES,), preferences=(Preference("zone", "=", "b", 1),))) == 2


def test_what_must_be_apart_stays_apart() -> None:
    case = three()
    holds(case, 3, files=GIB)
    apart = (Affinity("apart", "k"),)
    places = [on(case, case.submit(push=(FILES,), affinities=apart)) for _ in range(3)]
    assert places == [3, 1, 2]


@pytest.mark.parametrize("balancer", ["spread", "round_robin", "random"])
def test_who_wants_it_otherwise_gets_it(balancer: str) -> None:
    assert balancer not in BALANCERS
    places = []
    for told in (False, True):
        case = three(Policy(balancer=balancer))
        holds(case, 3, **({"files": GIB} if told else {}))
        places.append([on(case, case.submit(push=(FILES,))) for _ in range(6)])
    assert places[0] == places[1]


@pytest.mark.parametrize("balancer", sorted(BALANCERS))
def test_every_other_balancer_is_led(balancer: str) -> None:
    case = three(Policy(balancer=balancer))
    holds(case, 2, files=GIB)
    assert [on(case, case.submit(push=(FILES,))) for _ in range(3)] == [2, 2, 2]


def test_it_may_be_off_and_differ_by_queue() -> None:
    case = three(replace(OFF, locality=Locality(0, {"near": LEAST})))
    holds(case, 3, files=GIB)
    assert on(case, case.submit(push=(FILES,))) == 1
    assert on(case, case.submit(push=(FILES,), queue="near")) == 3


def test_a_gang_takes_nodes_that_hold_more() -> None:
    case = Gangs(Policy())
    case.nodes(4, cpus=4)
    holds(case, 2, files=GIB)
    holds(case, 4, files=GIB)
    task = case.submit(nodes=2, push=(FILES,))
    attempt = case.cluster.attempts[case.tasks[task].key_at(0)]
    assert attempt.nodes == (2, 4)
    assert case.cluster.holders.spared == 2 * GIB


def test_what_was_spared_is_counted() -> None:
    case = three()
    holds(case, 3, files=GIB)
    case.submit(push=(FILES,))
    case.submit()
    assert (case.cluster.holders.placed, case.cluster.holders.spared) == (1, GIB)
    view = case.cluster.nodes[3]
    assert [placed.held for placed in view.placed.values()] == [GIB]


def test_what_follows_on_the_only_node_is_counted_each_for_itself() -> None:
    case = Case()
    case.node(cpus=8)
    holds(case, 1, files=GIB)
    pushes: list[tuple[str, ...]] = [(FILES,), (), (FILES,), ("cd" * 32,)]
    case.command("node_cordon", node=1, admin=True)
    for push in pushes:
        case.submit(push=push)
    case.submit(array="0-2", push=(FILES,))
    case.command("node_uncordon", node=1, admin=True)
    assert (case.cluster.holders.placed, case.cluster.holders.spared) == (5, 5 * GIB)


def test_holders_come_to_what_was_said_last() -> None:
    random, holders = Random(1), Holders()
    last: dict[int, dict[str, int]] = {}
    for _ in range(500):
        node = random.randrange(5)
        last[node] = {name: random.choice((1, 2)) for name in "abcd" if random.random() < 0.4}
        holders.tell(node, dict(last[node]))
        found = {name: dict(holding.nodes) for name, holding in holders.of.items()}
        wanted: dict[str, dict[int, int]] = {}
        for at, said in last.items():
            for name, size in said.items():
                wanted.setdefault(name, {})[at] = size
        assert found == wanted
        assert all(holding.most >= max(holding.nodes.values()) for holding in holders.of.values())
        assert holders.bytes_on(node, "ab") == sum(last[node].get(name, 0) for name in "ab")


# ---------------------------------------------------------------- told


def test_a_step_that_ends_tells_what_stays_before_the_node_does() -> None:
    """The one after it may begin in the same turn."""
    case = three()
    holds(case, 3, other=GIB)
    case.command("node_cordon", node=1, admin=True)
    first = case.submit(cpus=4)
    assert on(case, first) == 2
    case.command("node_uncordon", node=1, admin=True)
    attempt = case.attempt(first)
    end = Ended(number=attempt.number, token=attempt.token, cause=Cause.EXIT, exit_code=0, artifacts=FILES, held=GIB)
    case._report(2, end)
    assert on(case, case.submit(push=(FILES,))) == 2
    assert case.cluster.holders.on(3) == {"other": GIB}


def test_what_ends_adds_is_bounded_too() -> None:
    holders = Holders()
    for at in range(3 * HELD_MOST):
        holders.add(1, f"{at:064x}", GIB + at)
    assert len(holders.on(1)) == HELD_MOST


def test_it_is_said_where_something_is_and_what_was_there() -> None:
    case = with_engines()
    holds(case, 2, image=GIB, files=GIB)
    holds(case, 3, image=GIB)
    spec = TaskSpec(name="t", container=Container("alpine"), push=(FILES,), resources={"cpu": 1000})
    asked = plan_task(case.cluster, case.policy, spec, ("p", "u"), case.now)
    assert asked["summary"] == f"it starts now on n2, which holds image alpine (1Gi), files {FILES[:12]} (1Gi)"
    first = contained(case, push=(FILES,), cpus=4)
    told = why(case.cluster, case.tasks[first].key_at(0), case.now, case.policy)
    assert told is not None
    assert told["summary"].endswith("on node n2, where 2Gi of what it needs were already")
    for _ in range(2):
        case.submit(cpus=4)
    waits = contained(case, push=(FILES,))
    told = why(case.cluster, case.tasks[waits].key_at(0), case.now, case.policy)
    assert told is not None
    assert told["near"] == [
        {"node": "n2", "holds": f"image alpine (1Gi), files {FILES[:12]} (1Gi)"},
        {"node": "n3", "holds": "image alpine (1Gi)"},
    ]


@pytest.mark.parametrize(
    ("said", "least"), [({}, LEAST), ("16MiB", 16 << 20), (True, LEAST), (False, 0), ("off", 0), ("on", LEAST), (0, 0)]
)
def test_it_is_set_in_bytes_or_off(said: Any, least: int) -> None:
    given = {} if said == {} else {"locality": said, "queues": {"q": {"locality": said}, "r": {}}}
    locality = policy_of(SchedulerSettings.model_validate(given)).locality
    assert locality == Locality(least, {} if said == {} else {"q": least})
    assert locality.least_of("q") == locality.least_of("r") == least


@pytest.mark.parametrize("said", ["some", "-1", -1, 1.5])
def test_what_is_no_size_is_refused(said: object) -> None:
    with pytest.raises(ValidationError, match="locality"):
        SchedulerSettings.model_validate({"locality": said})


@pytest.mark.parametrize("said", ["15MiB", 5, (16 << 20) - 1])
def test_less_than_nodes_tell_of_is_refused(said: object) -> None:
    for given in ({"locality": said}, {"queues": {"q": {"locality": said}}}):
        with pytest.raises(
            ValidationError, match=r"too little: nodes tell only of what takes 16MiB or more \(off: 0\)"
        ):
            SchedulerSettings.model_validate(given)


# ---------------------------------------------------------------- random clusters


@pytest.fixture(params=[0, near.FEW])
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Up to how many holders are looked at one by one; others are a part of the pool."""
    monkeypatch.setattr(near, "FEW", request.param)
    return int(request.param)


def _world(seed: int, policy: Policy, alike: bool) -> list[tuple[frozenset[int], dict[int, int]]]:
    """After each step: the tasks that have been placed so far, and where they are."""
    random, case = Random(seed), Case(policy)
    for at in range(random.randint(2, 8)):
        case.node(cpus=4 if alike else random.choice((1, 2, 4, 8)), labels={"zone": "ab"[at % 2]})
    names = [f"{at:064x}" for at in range(4)]
    states, live = list[tuple[frozenset[int], dict[int, int]]](), list[int]()
    for _ in range(60):
        case.now += 1.0
        roll = random.random()
        if roll < 0.55:
            push = tuple(random.sample(names, random.choice((0, 1, 1, 2))))
            wish = (Preference("zone", "=", "a", 10),) if random.random() < 0.2 else ()
            live.append(case.submit(cpus=1 if alike else random.choice((1, 1, 2, 4)), push=push, preferences=wish))
        elif roll < 0.8:
            node = random.randrange(1, len(case.cluster.nodes) + 1)
            held = {name: LEAST << random.randrange(4) for name in names if random.random() < 0.5}
            case.step(NodesSeen("seen", {node: {}}, holds={node: held}))
        else:
            running = [task for task in live if any(key.task == task for key in case.cluster.attempts)]
            if running:
                case.ends(running[random.randrange(len(running))])
        states.append((frozenset(a.task for a in case.cluster.attempts.values()),
                       {a.task: a.node for a in case.cluster.attempts.values()}))  # fmt: skip
    return states


@pytest.mark.parametrize("seed", range(9))
def test_on_nodes_that_are_alike_the_same_tasks_start_at_the_same_time(seed: int, few: int) -> None:
    policy = Policy(balancer=("least_loaded", "bin_pack", "best_fit")[seed % 3], ahead_seconds=0.0)
    drawn = _world(seed, policy, alike=True)
    plain = _world(seed, replace(policy, locality=Locality(0)), alike=True)
    assert [placed for placed, _ in drawn] == [placed for placed, _ in plain]
    assert drawn == _world(seed, policy, alike=True), "nothing hangs on chance"


@pytest.mark.parametrize("seed", range(5))
def test_switched_off_it_is_as_if_nobody_held_anything(seed: int, few: int) -> None:
    """And while it is on, all that must hold does (the harness looks at each step)."""
    backfill = ("skip", "easy", "none", "conservative")[seed % 4]
    policy = Policy(balancer=sorted(BALANCERS)[seed % 5], backfill=Backfill(backfill))
    _world(seed, policy, alike=False)
    plain = _world(seed, replace(policy, locality=Locality(0)), alike=False)
    assert plain == _world(seed, replace(policy, locality=Locality(1 << 60)), alike=False)


@pytest.mark.parametrize("seed", range(8))
def test_it_is_the_best_of_all_that_have_room(seed: int, few: int) -> None:
    """Most levels, then least in use, then the first: as if every node were looked at each time."""
    random, case = Random(seed), Case(Policy(balancer=("least_loaded", "bin_pack")[seed % 2], ahead_seconds=0.0))
    for _ in range(random.randint(3, 12)):
        case.node(cpus=random.choice((2, 4, 8)))
    sign = 1 if case.policy.balancer == "least_loaded" else -1
    things, live = [FILES, "cd" * 32], list[int]()
    for _ in range(120):
        roll = random.random()
        if roll < 0.2:
            node = random.randrange(1, len(case.cluster.nodes) + 1)
            case.step(NodesSeen("seen", {node: {}}, holds={node: {t: LEAST << random.randrange(3) for t in things}}))
        elif roll < 0.5 and live:
            case.ends(live.pop(random.randrange(len(live))))
        elif roll < 0.55:
            node = random.randrange(1, len(case.cluster.nodes) + 1)
            case.command(random.choice(("node_cordon", "node_uncordon")), node=node, admin=True)
        else:
            cpus, push = random.choice((1, 2)), tuple(random.sample(things, random.choice((1, 2))))
            able = [
                view for view in case.cluster.nodes.values()
                if not view.node.cordoned and view.free["cpu"] >= 1000 * cpus
            ]  # fmt: skip
            wanted = min(
                (
                    (-level(case.cluster.holders.bytes_on(view.node.id, push), LEAST),
                     sign * view.used.get("cpu", 0) / view.node.resources["cpu"], view.node.id)
                    for view in able
                ),
                default=None,
            )  # fmt: skip
            task = case.submit(cpus=cpus, push=push)
            if wanted is None:
                case.command("cancel", task)
            else:
                assert on(case, task) == wanted[2]
                live.append(task)
