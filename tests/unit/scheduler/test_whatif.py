"""What is said of a waiting task is so: what would let it start does, and nothing that would is left unsaid."""

import random
from dataclasses import replace

import msgspec
import pytest
from tests.unit.scheduler.harness import GIB, Case

from jarvis.core.command import Command, NewCommand
from jarvis.core.ids import ElementKey
from jarvis.core.inputs import CommandsTaken, TasksTaken
from jarvis.core.quota import Quota
from jarvis.core.resources import parse_bytes
from jarvis.core.states import State
from jarvis.core.task import Constraint, Task, TaskSpec
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.explain import why
from jarvis.scheduler.policy.backfill import Backfill
from jarvis.scheduler.policy.order import Order
from jarvis.scheduler.whatif import as_task, changes, plan_task, starts

EASY = Policy(order=Order("fifo"), backfill=Backfill("easy"))
ZONE = Constraint("zone", "=", "a")


def resubmit(case: Case, ident: int, spec: TaskSpec) -> int:
    """The same task with another request, as if it had been asked for so from the beginning."""
    old = case.cluster.tasks[ident]
    gone = Command(id=10**6, at=case.now, body=NewCommand(verb="cancel", user="u", task=ident))
    new = max(case.tasks) + 1
    task = Task(id=new, uuid="", project=old.project, user=old.user, spec=spec, submitted_at=old.submitted_at)
    case.tasks[new] = task
    case.step(CommandsTaken("again", [gone]), TasksTaken("again", [task]))
    return new


def random_case(seed: int) -> tuple[Case, list[int]]:
    """A cluster in the middle of its work, and what waits in it."""
    chance = random.Random(seed)
    backfill = chance.choice(["skip", "easy", "conservative"])
    case = Case(replace(EASY, backfill=Backfill(backfill)))
    for _ in range(chance.randint(1, 4)):
        labels = {"zone": chance.choice("ab")}
        taints = ("special",) if chance.random() < 0.3 else ()
        case.node(cpus=chance.randint(2, 8), mem=chance.randint(2, 16) * GIB, labels=labels, taints=taints)
    for _ in range(chance.randint(3, 14)):
        case.now += chance.randint(0, 20)
        case.submit_as(
            "p", chance.choice("uv"), 1,
            {"cpu": chance.randint(1, 8) * 1000, "memory": chance.randint(1, 12) * GIB},
            time_limit=float(chance.choice([20, 60, 300, 1000])),
            constraints=(ZONE,) if chance.random() < 0.3 else (),
        )  # fmt: skip
        if chance.random() < 0.3 and case.cluster.attempts:
            case.ends(chance.choice(sorted(case.cluster.attempts)))
    case.step()
    return case, [t.id for t in case.cluster.tasks.values() if t.state is State.QUEUED]


def check(seed: int) -> int:
    """Each change that is said starts the task; each amount of cpus that starts it is said. How many were."""
    case, waiting = random_case(seed)
    said = 0
    for number, ident in enumerate(waiting):
        found = changes(case.cluster, case.policy, case.cluster.tasks[ident], case.now)
        for change in found:
            again, same = random_case(seed)
            new = resubmit(again, same[number], change.spec)
            assert again.state(new) == "assigned", f"seed {seed}: task {ident}: {change.text}"
        said += len(found)
        spec = case.cluster.tasks[ident].spec
        most = [c.spec.resources["cpu"] for c in found if c.spec.resources["cpu"] != spec.resources["cpu"]]
        for cpu in range(spec.resources["cpu"] - 1000, max(most, default=0), -1000):
            again, same = random_case(seed)
            less = replace_cpu(spec, cpu)
            assert again.state(resubmit(again, same[number], less)) == "queued", (
                f"seed {seed}: {cpu} unsaid for {ident}"
            )
    return said


def replace_cpu(spec: TaskSpec, cpu: int) -> TaskSpec:
    return msgspec.structs.replace(spec, resources={**spec.resources, "cpu": cpu})


def test_on_random_clusters() -> None:
    assert sum(check(seed) for seed in range(40)) > 40


@pytest.mark.soak
def test_on_a_thousand_random_clusters() -> None:
    assert sum(check(seed) for seed in range(1000)) > 1000


def test_why_says_what_would_start_who_is_first_and_when() -> None:
    case = Case(EASY)
    case.node("n1", cpus=4)
    case.submit(cpus=3, time_limit=100.0)
    first = case.submit(cpus=4, time_limit=50.0)
    second = case.submit(cpus=2, time_limit=50.0)
    told = why(case.cluster, ElementKey(second), case.now, case.policy)
    assert told is not None
    assert told["ahead"] == [first]
    assert told["expected"] == {"earliest_s": 100.0, "latest_s": 150.0}
    assert told["changes"] == ["1 cpu instead of 2 starts now on n1"]


@pytest.mark.parametrize("free", [8_000_450_331, 23 * GIB - 1, 1_500_000])
def test_the_memory_that_is_said_starts_when_it_is_typed(free: int) -> None:
    case = Case(EASY)
    case.node("n1", cpus=4, mem=free)
    case.node("huge", cpus=4, mem=64 * GIB, taints=("a", "b"))
    (change,) = changes(case.cluster, case.policy, waiting_for(case, 32 * GIB), case.now)
    typed = {"cpu": 1000, "memory": parse_bytes(change.text.split()[0])}
    assert starts(case.cluster, case.policy, waiting_for(case, typed["memory"]), case.now) is not None, change.text


def waiting_for(case: Case, memory: int) -> Task:
    spec = TaskSpec(name="t", resources={"cpu": 1000, "memory": memory})
    return as_task(spec, "p", "u", case.now, 999)


def test_a_constraint_a_taint_and_a_limit() -> None:
    case = Case(EASY)
    case.node("n1", cpus=4, labels={"zone": "b"})
    constrained = case.submit(cpus=1, constraints=(ZONE,))
    assert [c.text for c in changes(case.cluster, case.policy, case.tasks[constrained], case.now)] == [
        "without the constraint zone=a it starts now on n1"
    ]
    case = Case(EASY)
    case.node("n1", cpus=4, taints=("special",))
    tainted = case.submit(cpus=1)
    assert [c.text for c in changes(case.cluster, case.policy, case.tasks[tainted], case.now)] == [
        "tolerating special it starts now on n1"
    ]
    case = Case(EASY)
    case.node("n1", cpus=4)
    case.submit(cpus=3, time_limit=100.0)
    case.submit(cpus=4, time_limit=50.0)
    long = case.submit(cpus=1, time_limit=1000.0)
    told = why(case.cluster, ElementKey(long), case.now, case.policy)
    assert told is not None
    assert told["reason"] == "Priority"
    assert told["changes"] == ["with a time limit of 99 s it starts now on n1"]


def test_a_plan_says_now_wait_or_never() -> None:
    case = Case(EASY)
    case.node("n1", cpus=4)
    owner = ("p", "u")

    def asked(cpus: int, **rest: object) -> dict[str, object]:
        spec = TaskSpec(name="t", resources={"cpu": cpus * 1000}, **rest)  # type: ignore[arg-type]
        return plan_task(case.cluster, case.policy, spec, owner, case.now)

    assert (asked(4)["verdict"], asked(4)["node"]) == ("now", "n1")
    assert asked(5)["verdict"] == "never"
    case.submit(cpus=3, time_limit=100.0)
    told = asked(2)
    assert (told["verdict"], told["earliest"]) == ("wait", case.now + 100.0)
    assert told["changes"] == ["1 cpu instead of 2 starts now on n1"]
    case.cluster.quotas["p", ""] = Quota(project="p", resources={"cpu": 1000})
    assert asked(2)["verdict"] == "never"


def test_questions_change_nothing() -> None:
    case, waiting = random_case(7)
    before = (dict(case.cluster.tasks), len(case.cluster.queue), dict(case.cluster.reservations))
    for ident in waiting:
        why(case.cluster, ElementKey(ident), case.now, case.policy)
        starts(case.cluster, case.policy, as_task(TaskSpec(name="x"), "p", "u", case.now, 999), case.now)
    assert before == (dict(case.cluster.tasks), len(case.cluster.queue), dict(case.cluster.reservations))
    case.step()
