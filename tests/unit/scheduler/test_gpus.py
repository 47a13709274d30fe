"""GPUs one by one: shares never span two, types are asked for by label, and what is left stays useful."""

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.scheduler.harness import Case

from jarvis.core.gpus import devices, pick
from jarvis.core.inputs import Hello, NodeConnected
from jarvis.core.task import Constraint
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.policy.fragmentation import Fragmentation, Shape


def gpu_node(case: Case, gpus: int, kind: str = "", cpus: int = 64) -> int:
    name = f"g{len(case.cluster.nodes) + 1}"
    resources = {"cpu": cpus * 1000, "memory": 1 << 40, "gpu": gpus * 1000}
    labels = {"gpu.type": kind} if kind else {}
    hello = Hello(version=1, software="0", name=name, node=None, boot_id="b", resources=resources, labels=labels)
    case.step(NodeConnected("hello", name, hello))
    return case.cluster.node_names[name]


def ask(case: Case, gpu: int, cpu: int = 1000, **spec: object) -> int:
    case.submit_as("p", "u", 1, {"cpu": cpu, "gpu": gpu}, **spec)
    return max(case.tasks)


@given(st.lists(st.integers(0, 1000), max_size=8), st.integers(0, 4000))
def test_shares_meet_the_request_and_never_span_two(free: list[int], wanted: int) -> None:
    shares = pick(free, wanted)
    if shares is None:
        whole, rest = divmod(wanted, 1000)
        untouched = sum(amount == 1000 for amount in free)
        partly = sum(amount >= rest for amount in free) - whole
        assert untouched < whole or (rest and partly < 1)
    else:
        assert sum(amount for _, amount in shares) == wanted
        assert len({index for index, _ in shares}) == len(shares)
        assert all(amount <= free[index] for index, amount in shares)
        assert all(amount == 1000 for _, amount in shares[: wanted // 1000])


def test_devices_of_a_node() -> None:
    assert devices(2500) == [1000, 1000, 500]


def test_two_halves_that_are_free_are_no_whole() -> None:
    case = Case()
    gpu_node(case, 2)
    shared = [ask(case, 600), ask(case, 600)]
    large = ask(case, 500)
    assert all(case.state(task) == "assigned" for task in shared)
    case.expect(large, "queued")
    case.ends(shared[0])
    case.expect(large, "assigned")


def test_the_room_of_each_gpu_comes_back() -> None:
    case = Case()
    node = gpu_node(case, 2)
    tasks = [ask(case, 1000), ask(case, 300), ask(case, 700)]
    assert sorted(case.cluster.nodes[node].gpus_free) == [0, 0]
    for task in tasks:
        case.ends(task)
    assert case.cluster.nodes[node].gpus_free == (1000, 1000)


def test_one_of_several_types() -> None:
    case = Case()
    gpu_node(case, 1, "T4")
    wanted = gpu_node(case, 1, "V100M32")
    task = ask(case, 1000, constraints=(Constraint("gpu.type", "=", "V100M16|V100M32"),))
    assert case.attempt(task).node == wanted
    other = ask(case, 1000, constraints=(Constraint("gpu.type", "!=", "T4|V100M32"),))
    case.expect(other, "queued")


def test_what_is_lost_to_the_usual_tasks() -> None:
    """Of 1,500 free: a whole GPU cannot use the half, half a GPU can use all, eight cpus find none there."""
    usual = Fragmentation({Shape(1000, 1000): 2, Shape(1000, 500): 1, Shape(8000, 500): 1})
    assert usual.lost(4000, (1000, 500), "") == (2 * 500 + 0 + 1500) / 4
    assert usual.lost(8000, (1000, 500), "") == 2 * 500 / 4
    typed = Fragmentation({Shape(1000, 1000, "A|B"): 1})
    assert typed.lost(4000, (1000,), "C") == 1000
    assert typed.lost(4000, (1000,), "B") == 0


def test_only_what_is_usual_counts() -> None:
    usual = Fragmentation({Shape(1000, 1000): 96, Shape(1000, 100): 4})
    assert [shape for _, shape in usual.usual] == [Shape(1000, 1000)]


def test_a_small_share_joins_another_so_that_a_whole_one_stays() -> None:
    case = Case(Policy(gpu_balancer="gpu_fit"))
    first, second = gpu_node(case, 1), gpu_node(case, 1)
    for _ in range(10):
        case.ends(ask(case, 1000))
    case.ends(ask(case, 500))
    case.now += 2.0
    case.step()
    halves = [ask(case, 500), ask(case, 500)]
    assert case.attempt(halves[0]).node == case.attempt(halves[1]).node
    whole = ask(case, 1000)
    assert {case.attempt(whole).node, case.attempt(halves[0]).node} == {first, second}
