"""Who goes first, as ``why`` tells it, is who starts first when there is room: on random queues, asked of the engine."""

import random

from tests.unit.scheduler.harness import Case

from jarvis.core.states import State
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.line import before
from jarvis.scheduler.policy.backfill import Backfill
from jarvis.scheduler.policy.fairness import Fairness
from jarvis.scheduler.policy.order import Order


def drawn(seed: int) -> Case:
    """A full cluster, in which owners have more or less, and a queue of several tiers."""
    chance = random.Random(seed)
    fairness = Fairness(chance.choice(("owners", "owners", "nobody")), chance.choice((0.0, 100.0)), {"A": 2.0})
    backfill = Backfill(chance.choice(("skip", "easy")))
    order = Order(chance.choice(("fifo", "priority")))
    case = Case(Policy(order=order, fairness=fairness, backfill=backfill, queue_tiers={"urgent": 1}, ahead_seconds=0.0))
    case.checked = False
    case.node(cpus=chance.randint(1, 8))
    for _ in range(chance.randint(10, 40)):
        case.now += chance.choice((0.0, 1.0, 50.0))
        case.submit_as(
            chance.choice("ABC"), chance.choice("ab"), 1, {"cpu": 1000}, priority=chance.choice((0, 0, 5)),
            queue=chance.choice(("default", "default", "default", "urgent")), time_limit=chance.choice((10.0, 100.0)),
        )  # fmt: skip
    return case


def check(seed: int) -> int:
    """How many began where there was room for some."""
    case, room = drawn(seed), random.Random(f"{seed}/room").randint(1, 12)
    waiting = [task for task in case.cluster.tasks.values() if task.state is State.QUEUED]
    first = {
        task.id: [other.id for other in before(case.cluster, case.policy, task, case.now, 1000)] for task in waiting
    }
    case.node(cpus=room)
    begun = {task.id for task in waiting if case.state(task.id) is State.ASSIGNED}
    assert begun == {task for task, ahead in first.items() if len(ahead) < room}, f"seed {seed}: {first}"
    return len(begun)


def test_who_goes_first_starts_first() -> None:
    assert sum(check(seed) for seed in range(150)) > 500
