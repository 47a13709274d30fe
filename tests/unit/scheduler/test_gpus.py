"""GPUs one by one: shares never span two, types are asked for by label, and what is left stays useful."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.scheduler.harness import Case

from jarvis.core.gpus import WHOLE, Ask, Room, Share, could_hold, devices, pick, room_of, with_back, without
from jarvis.core.ids import ElementKey
from jarvis.core.inputs import Hello, NodeConnected
from jarvis.core.states import State
from jarvis.core.task import ArraySpec, Constraint, TaskSpec
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.explain import never_fits, why
from jarvis.scheduler.policy.fragmentation import Fragmentation, Shape

GIB = 1 << 30


def gpu_node(case: Case, gpus: int, kind: str = "", cpus: int = 64) -> int:
    name = f"g{len(case.cluster.nodes) + 1}"
    resources = {"cpu": cpus * 1000, "memory": 1 << 40, "gpu": gpus * 1000}
    labels = {"gpu.type": kind} if kind else {}
    hello = Hello(version=1, software="0", name=name, node=None, boot_id="b", resources=resources, labels=labels)
    case.step(NodeConnected("hello", name, hello))
    return case.cluster.node_names[name]


def memory_node(case: Case, *sizes: int) -> int:
    """A node with GPUs of so many GiB."""
    name = f"m{len(case.cluster.nodes) + 1}"
    resources = {"cpu": 64_000, "memory": 1 << 40, "gpu": 1000 * len(sizes), "gpu_memory": GIB * sum(sizes)}
    of_each = tuple(GIB * size for size in sizes)
    hello = Hello(
        version=1, software="0", name=name, node=None, boot_id="b", resources=resources, labels={}, gpu_memory=of_each
    )
    case.step(NodeConnected("hello", name, hello))
    return case.cluster.node_names[name]


def ask_memory(case: Case, gib: int, gpu: int = 0, **spec: object) -> int:
    need = {"cpu": 1000, "gpu_memory": GIB * gib} | ({"gpu": gpu} if gpu else {})
    case.submit_as("p", "u", 1, need, **spec)
    return max(case.tasks)


def ask(case: Case, gpu: int, cpu: int = 1000, **spec: object) -> int:
    case.submit_as("p", "u", 1, {"cpu": cpu, "gpu": gpu}, **spec)
    return max(case.tasks)


@given(st.lists(st.integers(0, 1000), max_size=8), st.integers(0, 4000))
def test_shares_meet_the_request_and_never_span_two(free: list[int], wanted: int) -> None:
    shares = pick(Room(tuple(free), (0,) * len(free), (0,) * len(free)), Ask(wanted, 0)) if wanted else ()
    if shares is None:
        whole, rest = divmod(wanted, 1000)
        untouched = sum(amount == 1000 for amount in free)
        partly = sum(amount >= rest for amount in free) - whole
        assert untouched < whole or (rest and partly < 1)
    else:
        assert sum(share.part for share in shares) == wanted
        assert len({share.gpu for share in shares}) == len(shares)
        assert all(share.part <= free[share.gpu] for share in shares)
        assert all(share.part == 1000 for share in shares[: wanted // 1000])


SIZES = st.lists(st.integers(0, 24), min_size=1, max_size=4)
ASKS = st.builds(
    Ask, st.sampled_from([0, 1, 250, 333, 500, 999, 1000, 1500, 2000]), st.sampled_from([0, 1, 3, 8, 20])
).filter(any)


@given(SIZES, st.lists(st.one_of(ASKS, st.integers(0, 30)), max_size=40))
def test_no_gpu_is_ever_given_twice_by_fraction_or_by_memory(sizes: list[int], steps: list[Ask | int]) -> None:
    """Asks come and go in any order; what each was given is counted apart from the code that gives it."""
    room = whole = room_of({"gpu": 1000 * len(sizes)}, sizes)
    given_to: list[tuple[Share, ...]] = []
    for step in steps:
        if isinstance(step, int):
            if given_to:
                room = with_back(room, given_to.pop(step % len(given_to)))
            continue
        shares = pick(room, step)
        if shares is None:
            continue
        assert sum(share.part for share in shares) == step.part
        assert all(share.memory >= step.memory for share in shares)
        room = without(room, shares)
        given_to.append(shares)
        for at, size in enumerate(sizes):
            mine = [share for shares in given_to for share in shares if share.gpu == at]
            assert sum(share.part for share in mine) <= WHOLE
            assert sum(share.memory for share in mine) <= size
            if any(share.part == WHOLE for share in mine):
                assert len(mine) == 1, "a whole GPU is nobody else's"
    for shares in given_to:
        room = with_back(room, shares)
    assert room == whole


def test_memory_is_asked_of_one_gpu() -> None:
    room = room_of({"gpu": 3000}, [8, 24, 16])
    assert pick(room, Ask(0, 10)) == (Share(2, 0, 10),), "where it leaves the least over"
    assert pick(room, Ask(0, 25)) is None, "48 in all are not 25 on one"
    assert pick(room, Ask(1000, 0)) == (Share(0, 1000, 8),), "the smallest stays with who needs no more"
    assert pick(room, Ask(2000, 10)) == (Share(2, 1000, 16), Share(1, 1000, 24))
    assert pick(room, Ask(2500, 10)) is None, "no third one has 10"
    assert pick(room, Ask(1500, 10)) == (Share(2, 1000, 16), Share(1, 500, 10))
    assert pick(room, Ask(500, 0)) == (Share(0, 500, 4),), "a fraction takes as much of the memory"


def test_what_is_known_of_the_sizes() -> None:
    assert room_of({"gpu": 2500, "gpu_memory": 50}) == Room((1000, 1000, 500), (20, 20, 10), (20, 20, 20))
    assert room_of({"gpu": 2000}, [8]).sizes == (8, 8)
    assert room_of({"gpu": 2000}, [8, 4, 2]).sizes == (8, 4)
    assert room_of({"gpu": 3000}, [8, 4]).sizes == (8, 4, 0)
    assert room_of({"cpu": 1, "gpu_memory": 5}).sizes == ()
    assert room_of({"gpu": 2000}).useful == (1000, 1000)
    assert without(room_of({"gpu": 2000}, [8, 0]), [Share(0, 0, 6), Share(1, 400), Share(7, 1)]).useful == (250, 600)


def test_shares_of_an_agent_that_knew_nothing_of_memory() -> None:
    """It kept (index, part): what they have of the memory is counted all the same."""
    shares = msgspec.msgpack.decode(msgspec.msgpack.encode([[0, 500], [1, 1000]]), type=tuple[Share, ...])
    assert without(room_of({"gpu": 2000}, [8, 8]), shares) == Room((500, 0), (4, 0), (8, 8))


def test_a_node_is_large_enough_gpu_by_gpu() -> None:
    assert could_hold({"gpu": 4000}, [6], {"gpu_memory": 6})
    assert not could_hold({"gpu": 4000}, [6], {"gpu_memory": 8})
    assert could_hold({}, (), {"gpu": 4000}), "what is no matter of memory is compared elsewhere"


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
    assert case.cluster.nodes[node].gpus.parts == (0, 0)
    for task in tasks:
        case.ends(task)
    assert case.cluster.nodes[node].gpus.parts == (1000, 1000)


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
    equal = Fragmentation({Shape(1000, 1000): 94, Shape(1000, 100): 3, Shape(2000, 100): 3})
    assert [shape for _, shape in equal.usual] == [Shape(1000, 1000), Shape(2000, 100)]


def test_gpus_for_which_there_is_no_cpu_are_hungry() -> None:
    usual = Fragmentation({Shape(8000, 1000): 1, Shape(12_000, 1000): 1, Shape(50_000, 0): 1})
    assert usual.hungry(20_000, (1000, 1000)) == 0, "ten cpus come with a GPU; who asks for none says nothing of that"
    assert usual.hungry(15_000, (500, 1000, 500)) == 500
    assert Fragmentation({}).hungry(0, (1000,)) == 0


def test_who_asks_for_little_cpu_goes_where_gpus_have_little() -> None:
    """Both nodes can take one more of the usual; what is asked here feeds the GPUs of one, and starves those of the other."""
    case = Case(Policy(gpu_balancer="gpu_fit"))
    rich, poor = gpu_node(case, 2, cpus=40), gpu_node(case, 4, cpus=36)
    for _ in range(10):
        case.ends(ask(case, 1000, cpu=10_000))
    case.now += 2.0
    case.step()
    assert case.attempt(ask(case, 1000, cpu=6000)).node == poor
    assert case.attempt(ask(case, 1000, cpu=13_000)).node == rich


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


def test_several_share_a_gpu_as_long_as_their_memory_fits() -> None:
    case = Case()
    node = memory_node(case, 24, 8)
    small = [ask_memory(case, 8), ask_memory(case, 8), ask_memory(case, 10)]
    assert [case.state(task) for task in small] == ["assigned"] * 3
    assert case.cluster.nodes[node].gpus.memory == (6 * GIB, 0)
    late = ask_memory(case, 7)
    case.expect(late, "queued")
    said = why(case.cluster, ElementKey(late), case.now)
    assert said is not None and said["reason"] == "Resources"
    assert said["nodes"][0]["text"] == "GPU 0 has 6Gi of 24Gi free, GPU 1 has 0 of 8Gi free, wanted 7Gi on one"
    whole = ask(case, 1000)
    case.expect(whole, "queued")
    case.ends(small[0])
    case.expect(late, "assigned")
    case.ends(small[1])
    case.expect(whole, "queued")
    case.ends(small[2])
    case.expect(whole, "assigned")
    for task in (late, whole):
        case.ends(task)
    assert case.cluster.nodes[node].gpus.memory == (24 * GIB, 8 * GIB)


def test_why_of_a_fraction_tells_each_gpu() -> None:
    case = Case()
    gpu_node(case, 2)
    ask(case, 600), ask(case, 700)
    late = ask(case, 500)
    said = why(case.cluster, ElementKey(late), case.now)
    assert said is not None
    assert said["nodes"][0]["text"] == "GPU 0 has 0.4 free, GPU 1 has 0.3 free, wanted 0.5 of one"


def test_more_than_any_gpu_has_is_refused() -> None:
    case = Case()
    memory_node(case, 16, 16)
    said = why(case.cluster, ElementKey(ask_memory(case, 20)), case.now)
    assert said is not None and said["reason"] == "NeverFits"
    assert said["nodes"][0]["text"] == "GPU 0 has 16Gi, GPU 1 has 16Gi, wanted 20Gi on one"
    both = never_fits(case.cluster, TaskSpec(name="t", resources={"gpu_memory": 20 * GIB}))
    assert "gpu_memory" in str(both) and "16Gi" in str(both)


def test_a_whole_gpu_of_at_least_so_much() -> None:
    case = Case()
    memory_node(case, 8, 40)
    large, small = ask_memory(case, 20, gpu=1000), ask(case, 1000)
    assert case.attempt(large).node == case.attempt(small).node
    view = case.cluster.nodes[case.attempt(large).node]
    assert view.gpus.parts == (0, 0) and view.gpus.memory == (0, 0)


def test_an_array_shares_and_its_rest_follows() -> None:
    case = Case()
    node = memory_node(case, 24)
    case.submit_as("p", "u", 1, {"cpu": 100, "gpu_memory": 8 * GIB}, array=ArraySpec(((0, 4, 1),)))
    array = max(case.tasks)
    states = [case.cluster.state_at(case.tasks[array], position) for position in range(5)]
    assert states.count(State.ASSIGNED) == 3 and states.count(State.QUEUED) == 2
    assert case.cluster.nodes[node].gpus.memory == (0,)


def test_less_memory_would_do() -> None:
    case = Case()
    memory_node(case, 24)
    ask_memory(case, 20)
    late = ask_memory(case, 8)
    said = why(case.cluster, ElementKey(late), case.now, Policy())
    assert said is not None
    assert said["changes"] == ["4Gi gpu_memory instead of 8Gi starts now on m1"]
