"""Many at once come to the same as one after the other: rows, events, messages and room."""

import copy
import random
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from tests.unit.scheduler.harness import Case

from jarvis.core.attempt import Usage
from jarvis.core.effects import ToNode
from jarvis.core.inputs import Ended, Fact, NodeReported, Returned, Started, TasksTaken
from jarvis.core.states import Cause
from jarvis.core.task import Constraint, Dependency, Task, TaskSpec, parse_array
from jarvis.scheduler import alike, cycle
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.policy.backfill import Backfill
from jarvis.scheduler.policy.fairness import Fairness
from jarvis.scheduler.policy.order import Order
from jarvis.scheduler.turn import Turn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

POLICIES = (
    Policy(),
    Policy(fairness=Fairness("nobody"), backfill=Backfill("easy")),
    Policy(order=Order("smallest_area", exponent=0.5, ageing=0.003), backfill=Backfill("easy"), ahead_seconds=5.0),
    Policy(backfill=Backfill("easy", times="predicted"), ahead_seconds=5.0),
    Policy(order=Order("shortest"), ahead_seconds=20.0, budget=7),
    Policy(balancer="bin_pack", ahead_seconds=20.0),
)


class World:
    """What happens, by chance, to two leaders that are told the same: ``one`` decides one by one."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.policy = self.chance.choice(POLICIES)
        self.many, self.one = Case(self.policy), Case(self.policy)
        self.ident = 0

    def begin(self) -> None:
        for _ in range(self.chance.choice((1, 1, 1, 2, 3))):
            cpus, labels = self.chance.choice((2, 3, 40)), {} if self.many.cluster.nodes else {"place": "first"}
            for case in (self.many, self.one):
                case.node(cpus=cpus, labels=labels)

    def submitted(self) -> TasksTaken:
        """A few runs of alike tasks, with strangers among them; some come twice."""
        tasks: list[Task] = []
        for _ in range(self.chance.randint(1, 4)):
            shape, owner = self._shape(), self.chance.choice("uuv")
            tasks += [self._task(TaskSpec(name="t", **shape), owner) for _ in range(self.chance.randint(1, 12))]
        if self.chance.random() < 0.2:
            tasks.append(self.chance.choice(tasks))
        return TasksTaken("tasks", tasks)

    def _task(self, spec: TaskSpec, owner: str) -> Task:
        self.ident += self.chance.choice((1, 1, 1, 2))
        return Task(id=self.ident, uuid="", project="p", user=owner, spec=spec, submitted_at=self.many.now)

    def _shape(self) -> dict[str, Any]:
        shape: dict[str, Any] = {"resources": {"cpu": self.chance.choice((1000, 1000, 2000))}}
        kind = self.chance.random()
        if kind < 0.1:
            shape["array"] = parse_array(self.chance.choice(("0-5%3", "0-30", "7", "1-9:2,20-29")))
            if self.chance.random() < 0.5:  # there is one node for it
                shape["constraints"] = (Constraint("place", "=", "first"),)
        elif kind < 0.15:
            shape["hold"] = True
        elif kind < 0.2:
            shape["licenses"] = {"matlab": 1}
        elif kind < 0.25 and self.ident:
            shape["after"] = (Dependency("afterok", self.chance.randint(1, self.ident)),)
        elif kind < 0.35:
            shape["priority"], shape["deadline"] = self.chance.choice((0, 500)), self.many.now + 30
        elif kind < 0.5:
            shape["time_limit"] = self.chance.choice((5.0, 60.0))
        elif kind < 0.7:  # there is one node for it, whatever others there are
            shape["constraints"] = (Constraint("place", "=", "first"),)
        return shape

    def reported(self) -> list[NodeReported]:
        reports = []
        for ident, view in self.many.cluster.nodes.items():
            numbers = list(view.placed)[: self.chance.randint(0, 25)]
            if self.chance.random() < 0.3:
                self.chance.shuffle(numbers)
            facts: Sequence[Fact] = [self._fact(ident, number) for number in numbers]
            if numbers and self.chance.random() < 0.3:
                facts = [*facts, self._fact(ident, numbers[0])]  # said already
            reports.append(NodeReported("report", view.session or "", ident, 1, list(facts)))
        return reports

    def _fact(self, node: int, number: int) -> Fact:
        attempt = self.many.cluster.attempts[self.many.cluster.nodes[node].placed[number].key]
        kind, token = self.chance.random(), attempt.token
        if kind < 0.04:
            return Started(number=number, token=token)
        if kind < 0.06:
            return Returned(numbers=[number])
        usage = None if kind < 0.3 else Usage(self.chance.choice((0.01, 2.0)))
        ending: dict[str, Any] = {"exit_code": 3 if kind < 0.1 else 0, "cause": Cause.EXIT}
        if 0.1 < kind < 0.12:
            ending = {"cause": Cause.NODE_LOST}
        return Ended(number=number, token=token + (0.12 < kind < 0.14), usage=usage, age=0.5, result=b"r", **ending)


def told(turn: Turn, case: Case) -> list[str]:
    """All that is to come of a turn, and the room that is left; who is the same object does not count."""
    messages = [msgspec.json.encode(item.message) if isinstance(item, ToNode) else item for item in turn.effects]
    rows = {name: getattr(turn.changes, name) for name in turn.changes.__slots__}
    rows = {name: list(table.items()) if isinstance(table, dict) else table for name, table in rows.items()}
    cluster = case.cluster
    room = [
        (
            v.used, list(v.placed), [(p.key, p.ahead, p.until, p.latest) for p in v.placed.values()], list(v.expected),
            [n for n in v.backlog if n in v.placed], v.ahead, v.ends,
        )
        for v in cluster.nodes.values()
    ]  # fmt: skip
    ledger = cluster.ledger
    known = (sorted(cluster.tasks), sorted(cluster.elements), sorted(cluster.attempts), sorted(cluster.by_task.items()))
    named = {task: sorted(positions) for task, positions in cluster.named_ahead.items() if positions}
    held = [(name, h.held, h.elements, h.begun) for name, h in sorted(ledger.users.items())]
    on_nodes = sorted(cluster.on_nodes.items())
    more = (named, on_nodes, ledger.live, held, cluster.estimates, cluster.predictor.ends, sorted(cluster.foretold))
    return repr((rows, messages, room, known, more)).split(", ")


def both(world: World, *items: object) -> None:
    many = world.many.step(*copy.deepcopy(items))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alike, "_fresh", lambda *_: [])
        patch.setattr(alike, "_is_first", lambda *_: False)
        patch.setattr(alike, "_are_next", lambda *_: False)
        patch.setattr(alike, "succeed", lambda *_: 0)
        patch.setattr(cycle, "place_following", lambda *_: None)
        one = world.one.step(*copy.deepcopy(items))
    assert told(many, world.many) == told(one, world.one)


@pytest.mark.parametrize("seed", range(8))
def test_many_at_once_come_to_the_same_as_one_after_the_other(seed: int) -> None:
    world = World(seed)
    world.begin()
    for _ in range(12):
        for case in (world.many, world.one):
            case.now += 0.25
        both(world, world.submitted())
        both(world, *world.reported())
    for _ in range(20):
        both(world, *world.reported())
    assert len(world.many.cluster.tasks) < world.ident


class Counted(list[Any]):
    """How often something in it was looked at, passing over included."""

    def __init__(self, items: "Sequence[Any]") -> None:
        super().__init__(items)
        self.looks = 0

    def __getitem__(self, at: Any) -> Any:
        self.looks += len(range(*at.indices(len(self)))) if isinstance(at, slice) else 1
        return super().__getitem__(at)

    def __iter__(self) -> "Iterator[Any]":
        for at in range(len(self)):
            yield self[at]


def differing(count: int) -> list[Task]:
    """Each with a size of its own."""
    return [
        Task(id=n, uuid="", project="p", user="u", submitted_at=1.0, spec=TaskSpec(name="t", resources={"cpu": n}))
        for n in range(1, count + 1)
    ]


def test_of_many_that_differ_each_is_looked_at_a_few_times() -> None:
    """Not once for each that comes after it."""
    case, count = Case(Policy(fairness=Fairness("nobody"))), 300
    case.node(cpus=count)
    taken = Counted(differing(count))
    case.step(TasksTaken("tasks", taken))
    assert taken.looks < 10 * count
    placed = case.cluster.nodes[1].placed.items()
    tokens = {number: case.cluster.attempts[p.key].token for number, p in placed}
    told = Counted([Ended(number=n, token=token, cause=Cause.EXIT, exit_code=0) for n, token in tokens.items()])
    assert len(told) == count
    case.step(NodeReported("ends", case.cluster.nodes[1].session or "", 1, 1, told))
    assert told.looks < 10 * count
    assert not case.cluster.tasks


def test_a_long_lane_is_followed_from_where_it_is() -> None:
    """Runs of one each, as limits differ."""
    case, count = Case(Policy(fairness=Fairness("nobody"))), 600
    tasks = differing(count)
    for task in tasks:
        task.spec = TaskSpec(name="t", resources={"cpu": 1000}, time_limit=60.0 + task.id % 2)
    case.step(TasksTaken("tasks", tasks))
    (lane,) = case.cluster.queue.lanes(case.cluster.queue.classes()[0])
    entries = lane.entries = Counted(lane.entries)
    case.node(cpus=count)
    assert not case.cluster.queue.classes()
    assert entries.looks < 10 * count
