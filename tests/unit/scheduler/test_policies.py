"""Order, backfill and fairness, through the leader's own turns and cycles."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.scheduler.harness import Case

from jarvis.core.ids import ElementKey
from jarvis.core.resources import Resources, add, fits
from jarvis.core.task import TaskSpec
from jarvis.scheduler.cycle import Policy, plan_cycle
from jarvis.scheduler.policy.backfill import NEVER, Backfill, Horizon
from jarvis.scheduler.policy.fairness import Fairness, Holding, dominant
from jarvis.scheduler.policy.order import ORDERS, RANKS, Order, rank

K = ElementKey


def policy(order: str = "fifo", backfill: str = "easy", **rest: object) -> Policy:
    return Policy(order=Order(order), backfill=Backfill(backfill, **rest), fairness=Fairness("nobody"))  # type: ignore[arg-type]


def running(case: Case) -> set[int]:
    return {key.task for key in case.cluster.attempts}


# ---------------------------------------------------------------- order


def test_every_order_has_a_rank() -> None:
    assert set(ORDERS) == set(RANKS)


@pytest.mark.parametrize(
    ("order", "first"),
    [("fifo", 1), ("smallest_area", 2), ("shortest", 3), ("deadline", 4), ("priority", 1)],
)
def test_what_goes_first(order: str, first: int) -> None:
    specs = [
        TaskSpec(name="a", resources={"cpu": 4000}, time_limit=1000.0),
        TaskSpec(name="b", resources={"cpu": 1000}, time_limit=100.0),
        TaskSpec(name="c", resources={"cpu": 8000}, time_limit=50.0),
        TaskSpec(name="d", resources={"cpu": 4000}, time_limit=1000.0, deadline=5000.0),
    ]
    ranks = [(rank(Order(order), spec, 10.0), number) for number, spec in enumerate(specs, start=1)]
    assert min(ranks)[1] == first


@pytest.mark.parametrize("order", [name for name in ORDERS if name != "priority"])
def test_a_higher_priority_goes_before_any_size(order: str) -> None:
    large = TaskSpec(name="a", resources={"cpu": 10**6}, time_limit=1e7, priority=1)
    small = TaskSpec(name="b", resources={"cpu": 1}, time_limit=1.0, deadline=1.0)
    assert rank(Order(order), large, 2e9) < rank(Order(order), small, 1.0)


def test_priority_weighs_points_size_and_waiting() -> None:
    order = Order("priority", ageing=0.1, size=-1.0)
    large = TaskSpec(name="a", resources={"cpu": 16_000})
    small = TaskSpec(name="b", resources={"cpu": 1000})
    assert rank(order, large, 0.0) > rank(order, small, 100.0), "100 s are 10 points, the size 15"
    assert rank(order, large, 0.0) < rank(order, small, 200.0)


def test_patience_makes_up_for_any_size() -> None:
    order = Order("smallest_area", ageing=1.0, patience=100.0)
    huge = TaskSpec(name="a", resources={"cpu": 10**6}, time_limit=1e6)
    tiny = TaskSpec(name="b", resources={"cpu": 1000}, time_limit=1.0)
    assert rank(order, huge, 0.0) < rank(order, tiny, 100.0)
    assert rank(order, huge, 0.0) > rank(order, tiny, 98.0)


def test_what_names_no_limit_goes_in_order_of_submission() -> None:
    order = Order("smallest_area")
    assert rank(order, TaskSpec(name="a", resources={"cpu": 64_000}), 1.0) == rank(order, TaskSpec(name="b"), 2.0)


# ---------------------------------------------------------------- backfill


def test_strictly_in_order_nothing_passes_what_does_not_fit() -> None:
    case = Case(policy(backfill="none"))
    case.node(cpus=4)
    first, second, third = case.submit(cpus=3), case.submit(cpus=2), case.submit(cpus=1)
    assert running(case) == {first}
    case.ends(first)
    assert running(case) == {second, third}


@pytest.mark.parametrize("backfill", ["none", "easy", "conservative", "skip"])
def test_what_fits_on_no_node_holds_up_nobody(backfill: str) -> None:
    case = Case(policy(backfill=backfill))
    case.node(cpus=4)
    case.submit(cpus=8, time_limit=10.0)
    small = case.submit(cpus=1, time_limit=10.0)
    assert running(case) == {small}


def test_easy_lets_pass_what_ends_in_time() -> None:
    case = Case(policy())
    case.node(cpus=4)
    first = case.submit(cpus=3, time_limit=100.0)
    case.submit(cpus=4, time_limit=100.0)
    long, short = case.submit(cpus=1, time_limit=101.0), case.submit(cpus=1, time_limit=100.0)
    assert running(case) == {first, short}
    assert case.state(long) == "queued"
    assert list(case.cluster.reservations.values()) == [(1, 1100.0)]


def test_easy_lets_pass_what_leaves_the_reservation_its_room() -> None:
    case = Case(policy())
    case.node(cpus=4)
    first = case.submit(cpus=3, time_limit=100.0)
    case.submit(cpus=2, time_limit=100.0)
    long = case.submit(cpus=1, time_limit=10_000.0)
    assert running(case) == {first, long}
    again = Case(policy(extra=False))
    again.node(cpus=4)
    first = again.submit(cpus=3, time_limit=100.0)
    again.submit(cpus=2, time_limit=100.0)
    again.submit(cpus=1, time_limit=10_000.0)
    assert running(again) == {first}


def test_another_node_is_free_of_the_reservation() -> None:
    case = Case(policy())
    case.node(cpus=4)
    case.submit(cpus=3, time_limit=100.0)
    case.submit(cpus=4, time_limit=100.0)
    case.node(cpus=2)
    long = case.submit(cpus=1, time_limit=10_000.0)
    assert case.attempt(long).node == 2


def test_conservative_reserves_for_all_that_waits() -> None:
    case = Case(policy(backfill="conservative"))
    case.node(cpus=4)
    case.submit(cpus=4, time_limit=100.0)
    for _ in range(3):
        case.submit(cpus=3, time_limit=50.0)
    case.command("cancel", 1)
    assert not case.cluster.reservations, "nothing has room: nothing to plan"
    case.ends(1, exit_code=None)
    starts = [start for _, start in case.cluster.reservations.values()]
    assert starts == [1050.0, 1100.0]
    late = case.submit(cpus=1, time_limit=500.0)
    assert late in running(case), "three of four are spoken for at any time"


def test_what_should_have_ended_ends_soon() -> None:
    case = Case(policy())
    case.node(cpus=4)
    case.submit(cpus=3, time_limit=10.0)
    case.now += 100.0
    case.submit(cpus=4, time_limit=10.0)
    case.submit(cpus=1, time_limit=10.0)
    assert len(running(case)) == 1, "the room of what overran is kept"


def test_a_kept_reservation_stays_first() -> None:
    case = Case(policy("shortest", "none", keep=True))
    case.node(cpus=4)
    first = case.submit(cpus=4, time_limit=50.0)
    long = case.submit(cpus=4, time_limit=100.0)
    short = case.submit(cpus=4, time_limit=10.0)
    case.ends(first)
    assert running(case) == {long}
    case.ends(long)
    assert running(case) == {short}


def test_a_reservation_is_kept_through_a_cycle_without_room() -> None:
    case = Case(policy())
    case.node(cpus=4)
    case.submit(cpus=3, time_limit=100.0)
    waiting = case.submit(cpus=4, time_limit=100.0)
    case.submit(cpus=1, time_limit=20.0)
    case.wait(1)
    assert list(case.cluster.reservations) == [K(waiting)]


@pytest.mark.parametrize(("order", "chosen"), [("submission", 3), ("shortest", 4), ("smallest_area", 5)])
def test_what_starts_before_a_reservation_has_an_order_of_its_own(order: str, chosen: int) -> None:
    case = Case(replace(policy(), backfill=Backfill("easy", order=order)))
    blocker = case.node(cpus=8)
    case.command("node_cordon", node=blocker)
    case.submit(cpus=5, time_limit=100.0)
    case.submit(cpus=8, time_limit=100.0)
    case.submit(cpus=3, time_limit=90.0)
    case.submit(cpus=3, time_limit=30.0)
    case.submit(cpus=2, time_limit=40.0)
    case.command("node_uncordon", node=blocker)
    assert running(case) == {1, chosen}


def test_queues_of_a_higher_tier_go_first() -> None:
    case = Case(replace(policy(backfill="none"), queue_tiers={"urgent": 1}))
    case.submit(cpus=4)
    urgent = case.submit(cpus=4, queue="urgent")
    case.node(cpus=4)
    assert running(case) == {urgent}


amounts = st.integers(1, 6)
ends = st.lists(st.tuples(st.integers(1, 20), amounts), max_size=6)


@given(ends, st.lists(st.tuples(amounts, st.integers(1, 10)), max_size=5), amounts, st.integers(1, 10))
def test_a_horizon_finds_what_trying_every_second_finds(
    running_ends: list[tuple[int, int]], reservations: list[tuple[int, int]], want: int, seconds: int
) -> None:
    """Everything happens at whole seconds, so looking at each of them is looking at all."""
    free_now = 2
    known = [(float(at), {"cpu": amount}) for at, amount in sorted(running_ends)]
    horizon = Horizon(0.0, {"cpu": free_now}, known)
    taken: list[tuple[float, float, int]] = []

    def free_at(second: int) -> int:
        given_back = sum(need["cpu"] for at, need in known if at <= second)
        return free_now + given_back - sum(n for begin, end, n in taken if begin <= second < end)

    def tried(need: int, length: int) -> float:
        for begin in range(200):
            if all(free_at(s) >= need for s in range(begin, begin + length)):
                return float(begin)
        return NEVER

    for need, length in reservations:
        start = horizon.earliest({"cpu": need}, float(length))
        assert start == tried(need, length)
        if start != NEVER:
            horizon.take({"cpu": need}, start, start + length)
            taken.append((start, start + length, need))
    fits_now = all(free_at(s) >= want for s in range(seconds))
    assert horizon.fits({"cpu": want}, 0.0, float(seconds)) is fits_now


# ---------------------------------------------------------------- fairness


def fair(half_life: float = 0.0, **weights: float) -> Policy:
    return Policy(fairness=Fairness("owners", half_life, weights))


def held(case: Case) -> dict[str, int]:
    found: dict[str, int] = {}
    for key in case.cluster.attempts:
        project = case.cluster.tasks[key.task].project
        found[project] = found.get(project, 0) + 1
    return found


def test_the_example_of_the_paper() -> None:
    """NSDI'11, section 4.1: 9 CPUs and 18 GB; A asks (1 CPU, 4 GB), B (3 CPUs, 1 GB): three tasks for A, two for B."""
    case = Case(fair())
    case.submit_as("A", "a", 10, {"cpu": 1000, "memory": 4})
    case.submit_as("B", "b", 10, {"cpu": 3000, "memory": 1})
    case.node(cpus=9, mem=18)
    assert held(case) == {"A": 3, "B": 2}
    shares = {p: dominant(h.held, case.cluster.capacity) for p, h in case.cluster.ledger.projects.items()}
    assert shares == {"A": pytest.approx(2 / 3), "B": pytest.approx(2 / 3)}


def test_weights_of_projects() -> None:
    case = Case(fair(A=3.0))
    case.submit_as("A", "a", 20, {"cpu": 1000})
    case.submit_as("B", "b", 20, {"cpu": 1000})
    case.node(cpus=8)
    assert held(case) == {"A": 6, "B": 2}


def test_users_share_what_their_project_gets() -> None:
    case = Case(fair())
    case.submit_as("A", "many", 20, {"cpu": 1000})
    case.submit_as("A", "few", 20, {"cpu": 1000})
    case.submit_as("B", "b", 20, {"cpu": 1000})
    case.node(cpus=8)
    users = [case.cluster.tasks[key.task].user for key in case.cluster.attempts]
    assert (users.count("many"), users.count("few"), users.count("b")) == (2, 2, 4)


@given(
    st.lists(st.tuples(st.sampled_from([0.5, 1.0, 2.0, 3.0]), st.integers(1, 3)), min_size=2, max_size=4),
    st.integers(12, 40),
)
def test_shares_are_even_by_weight_and_within_a_project_by_user(projects: list[tuple[float, int]], cpu: int) -> None:
    """All ask for more than there is: when the last one of somebody began, nobody else was below."""
    weights = {f"P{at}": weight for at, (weight, _) in enumerate(projects)}
    owners = {(f"P{at}", f"u{user}"): 0 for at, (_, users) in enumerate(projects) for user in range(users)}
    case = Case(fair(**weights))
    for project, user in owners:
        case.submit_as(project, user, cpu, {"cpu": 1000})
    case.node(cpus=cpu)
    for key in case.cluster.attempts:
        task = case.cluster.tasks[key.task]
        owners[task.project, task.user] += 1
    has = {project: sum(n for (of, _), n in owners.items() if of == project) for project in weights}
    assert sum(has.values()) == cpu
    for one, weight in weights.items():
        assert all((has[other] - 1) / theirs <= has[one] / weight + 1e-9 for other, theirs in weights.items()), has
        users = [count for (project, _), count in owners.items() if project == one]
        assert max(users) - min(users) <= 1, owners


def test_past_use_counts_and_fades() -> None:
    holding = Holding({"cpu": 100}, at=0.0)
    holding.settle(100.0, 100.0)
    holding.held = {}
    first = holding.used["cpu"]
    assert first == pytest.approx(100 * (1 - 0.5) * 100 / math.log(2))
    holding.settle(200.0, 100.0)
    assert holding.used["cpu"] == pytest.approx(first / 2)


def test_who_used_much_goes_behind_who_did_not() -> None:
    case = Case(fair(half_life=3600.0))
    case.node(cpus=2)
    case.submit_as("A", "a", 1, {"cpu": 2000})
    case.now += 3600.0
    case.submit_as("A", "a", 1, {"cpu": 2000})
    case.submit_as("B", "b", 1, {"cpu": 2000})
    case.ends(1)
    assert held(case) == {"B": 1}


demands = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=2, max_size=4)


def allocate(asks: list[tuple[int, int]], cpu: int, mem: int) -> list[int]:
    """Tasks that each of several projects gets when all ask for more than there is."""
    case = Case(fair())
    for number, (cpus, memory) in enumerate(asks):
        case.submit_as(f"P{number}", "u", 40, {"cpu": cpus, "memory": memory})
    case.node(cpus=cpu / 1000, mem=mem)
    return [held(case).get(f"P{number}", 0) for number in range(len(asks))]


@given(demands, st.integers(20, 40), st.integers(20, 40))
def test_drf_s_properties_up_to_one_task(asks: list[tuple[int, int]], cpu: int, mem: int) -> None:
    """Tasks cannot be divided, so each holds but for the one task that did not fit any more (NSDI'11, section 5)."""
    got = allocate(asks, cpu, mem)
    shares = [max(n * c / cpu, n * m / mem) for n, (c, m) in zip(got, asks, strict=True)]
    steps = [max(c / cpu, m / mem) for c, m in asks]
    used: Resources = {}
    for n, (c, m) in zip(got, asks, strict=True):
        used = add(used, {"cpu": n * c, "memory": n * m})
    for i, (c, m) in enumerate(asks):
        need = {"cpu": c, "memory": m}
        free = {"cpu": cpu - used["cpu"], "memory": mem - used["memory"]}
        assert not fits(need, free), "Pareto efficient: nobody could have one more"
        assert shares[i] + steps[i] >= 1 / len(asks) - max(steps) - 1e-9, "sharing incentive"
        for j, n in enumerate(got):
            theirs = min((n * asks[j][0]) // c, (n * asks[j][1]) // m)
            assert theirs <= got[i] + math.ceil((max(steps) + steps[i]) / steps[i]), "free of envy"


@given(demands, st.integers(20, 40), st.integers(1, 3))
def test_asking_for_more_than_needed_gets_no_more_work_done(
    asks: list[tuple[int, int]], size: int, factor: int
) -> None:
    honest = allocate(asks, size, size)[0]
    c, m = asks[0]
    lying = allocate([(c * factor, m), *asks[1:]], size, size)[0]
    assert lying <= honest + 1, "but for the task that filled a hole"


def test_a_plan_changes_nothing() -> None:
    case = Case(policy())
    case.node(cpus=4)
    case.submit(cpus=3, time_limit=100.0)
    case.submit(cpus=4, time_limit=100.0)
    case.submit(cpus=1, time_limit=100.0)
    before = [plan_cycle(case.cluster, case.policy, case.now) for _ in range(2)]
    assert before[0] == before[1]
    case.step()
    assert plan_cycle(case.cluster, case.policy, case.now).decisions == []
