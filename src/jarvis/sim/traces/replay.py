"""Replays a workload through the leader's own code: its memory, its turns, its cycle. Only clock and workers are made up.

A worker starts what it is given at once and ends it after its recorded run time, or at its limit. Every instant at which
something happens is one turn, unless each event is to have one of its own. Nothing is assigned ahead of room: these workers have
no backlog.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush

from jarvis.core.attempt import Usage
from jarvis.core.effects import Assign, Assignment, Effect, ToNode
from jarvis.core.inputs import Ended, Hello, NodeConnected, NodeReported, TasksTaken
from jarvis.core.resources import Resources
from jarvis.core.states import Cause
from jarvis.core.task import Task, TaskSpec
from jarvis.scheduler.cluster import Cluster
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.policy.prediction import Prediction
from jarvis.scheduler.reactor import adopt, handle, place
from jarvis.scheduler.turn import Turn
from jarvis.sim.traces.workload import Recorded


@dataclass(slots=True)
class Ran:
    """What became of a item."""

    item: Recorded
    started: float
    ended: float
    node: int
    said: Prediction | None = None
    """What was predicted when it was submitted."""

    @property
    def wait(self) -> float:
        return self.started - self.item.submitted


@dataclass(slots=True)
class History:
    """All that ran, in order of its start, and what never did."""

    ran: list[Ran] = field(default_factory=list)
    never: list[Recorded] = field(default_factory=list)
    turns: int = 0
    capacity: Resources = field(default_factory=dict)


class Replay:
    """One replay. ``single``: a turn for each event, arrivals before ends, as published simulators have it."""

    def __init__(
        self, items: list[Recorded], nodes: list[tuple[int, Resources]], policy: Policy, single: bool = False
    ) -> None:
        self.items, self.policy, self.single = items, replace(policy, ahead_seconds=0.0), single
        self.cluster = Cluster(1, 1)
        adopt(self.cluster, policy)
        self.history = History()
        self._by_id = dict(enumerate(items, start=1))
        self._running: list[tuple[float, int, int, int]] = []
        """(end, number of the item, node, number on the node), as a heap."""
        self._tokens: dict[int, tuple[int, bool]] = {}
        self._said: dict[int, Prediction] = {}
        self._connect(nodes)

    def _connect(self, nodes: list[tuple[int, Resources]]) -> None:
        turn = Turn(self.cluster, self.items[0].submitted if self.items else 0.0, "replay")
        for count, resources in nodes:
            for _ in range(count):
                name = f"n{len(self.cluster.nodes) + 1}"
                hello = Hello(version=1, software="", name=name, node=None, boot_id="b", resources=resources, labels={})
                handle(turn, NodeConnected("replay", name, hello))
        self.cluster.look_at_nodes()
        self.history.capacity = dict(self.cluster.capacity)

    def run(self) -> History:
        for now, arrived, ended in self._instants():
            turn = Turn(self.cluster, now, "replay")
            if arrived:
                tasks = [self._task(number) for number in arrived]
                self._said |= {task.id: said for task in tasks if (said := self.cluster.predict(task)) is not None}
                handle(turn, TasksTaken("replay", tasks))
            for number, node, at in ended:
                self._end(turn, number, node, at)
            while place(turn, self.policy).exhausted:
                pass
            self._start(turn.finish(), now)
            self.history.turns += 1
        left = {key.task for key in self.cluster.elements} | self.cluster.tasks.keys()
        self.history.never = [self._by_id[number] for number in sorted(left)]
        return self.history

    def _instants(self) -> Iterator[tuple[float, list[int], list[tuple[int, int, int]]]]:
        """What happens when, until nothing more does."""
        numbers = iter(self._by_id)
        following = next(numbers, None)
        running = self._running
        while following is not None or running:
            arrival = self._by_id[following].submitted if following is not None else float("inf")
            now = min(arrival, running[0][0] if running else float("inf"))
            arrived: list[int] = []
            ended: list[tuple[int, int, int]] = []
            while following is not None and self._by_id[following].submitted <= now:
                arrived.append(following)
                following = next(numbers, None)
                if self.single:
                    break
            while running and running[0][0] <= now and not (self.single and (arrived or ended)):
                _, number, node, at = heappop(running)
                ended.append((number, node, at))
            yield now, arrived, ended

    def _task(self, number: int) -> Task:
        item = self._by_id[number]
        spec = TaskSpec(name=item.name, command=("true",), resources=item.resources, time_limit=item.limit)
        return Task(
            id=number, uuid="", project=item.project, user=item.user, spec=spec, submitted_at=item.submitted
        )  # fmt: skip

    def _start(self, effects: list[Effect], now: float) -> None:
        for effect in effects:
            if isinstance(effect, ToNode) and isinstance(effect.message, Assign):
                for assignment in effect.message.assignments:
                    self._begin(assignment, effect.node, now)

    def _begin(self, assignment: Assignment, node: int, now: float) -> None:
        item = self._by_id[assignment.task]
        killed = item.limit is not None and item.run > item.limit
        end = now + (item.limit if killed and item.limit is not None else item.run)
        heappush(self._running, (end, assignment.task, node, assignment.number))
        self._tokens[assignment.task] = assignment.token, killed
        self.history.ran.append(Ran(item, now, end, node, self._said.pop(assignment.task, None)))

    def _end(self, turn: Turn, number: int, node: int, at: int) -> None:
        token, killed = self._tokens.pop(number)
        fact = Ended(
            number=at, token=token, cause=Cause.TIMEOUT if killed else Cause.EXIT, exit_code=None if killed else 0,
            usage=Usage(wall_s=self._by_id[number].run),
        )  # fmt: skip
        view = self.cluster.nodes[node]
        handle(turn, NodeReported("replay", view.session or "", node, 1, [fact]))
