"""Replays a workload through the leader's own code: its memory, its turns, its cycle. Only clock and workers are made up.

A worker starts what it is given at once and ends it after its recorded run time, or at its limit. What is preempted stops at once,
goes on later where it was (or from its beginning, if it keeps nothing), and may take some time to get there. Every instant at which
something happens is one turn, unless each event is to have one of its own. Nothing is assigned ahead of room: these workers have
no backlog.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush

from jarvis.core.attempt import Usage
from jarvis.core.effects import Assign, Assignment, Effect, Stop, ToNode
from jarvis.core.inputs import Ended, Fact, Hello, NodeConnected, NodeReported, Started, TasksTaken
from jarvis.core.resources import Resources
from jarvis.core.states import Cause
from jarvis.core.task import ADDRESS_LABEL, Task, TaskSpec
from jarvis.scheduler.cluster import Cluster
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.policy.prediction import Prediction
from jarvis.scheduler.reactor import adopt, handle, place
from jarvis.scheduler.turn import Turn
from jarvis.sim.traces.tally import Tally
from jarvis.sim.traces.workload import Recorded

LOOK_AGAIN_S = 300.0
"""How often it is asked whom what waits may preempt when nothing else happens."""


@dataclass(slots=True)
class Ran:
    """What became of an item."""

    item: Recorded
    started: float
    ended: float
    node: int
    said: Prediction | None = None
    """What was predicted when it was submitted."""
    held: float = 0.0
    """Seconds that it was on a node, all attempts together."""
    preempted: int = 0
    killed: bool = False

    @property
    def lasts(self) -> float:
        """Seconds that it runs if nothing comes between."""
        limit = self.item.limit
        return limit if self.killed and limit is not None else self.item.run

    @property
    def wait(self) -> float:
        """What it took longer than it runs: before its start, and while it was preempted."""
        return self.ended - self.item.submitted - self.lasts


@dataclass(slots=True)
class History:
    """All that ran, in order of its start, and what never did."""

    ran: list[Ran] = field(default_factory=list)
    never: list[Recorded] = field(default_factory=list)
    turns: int = 0
    nodes: int = 0
    capacity: Resources = field(default_factory=dict)
    """Of all nodes together."""
    tally: Tally = field(default_factory=lambda: Tally({}))

    def work(self, name: str) -> float:
        """Amount of a resource that tasks held, times seconds."""
        return sum(ran.held * ran.item.whole.get(name, 0) for ran in self.ran)


@dataclass(frozen=True, slots=True)
class Workers:
    """How they take a preemption: ``restart`` seconds pass before a task goes on; ``keep``: where it was."""

    restart: float = 0.0
    keep: bool = True


CHECKPOINTING = Workers()
"""At no cost."""


@dataclass(slots=True)
class _Run:
    """What runs: where (a gang on several nodes), by which token, since when; after ``idle`` seconds it goes on with what is
    ``left`` of it."""

    ran: Ran
    at: list[tuple[int, int]]
    token: int
    since: float
    idle: float
    left: float


class Replay:
    """One replay. ``single``: a turn for each event, arrivals before ends, as published simulators have it."""

    def __init__(
        self, items: list[Recorded], nodes: list[tuple[int, Resources]], policy: Policy, single: bool = False,
        workers: Workers = CHECKPOINTING,
    ) -> None:  # fmt: skip
        self.items, self.policy, self.single = items, replace(policy, ahead_seconds=0.0), single
        self.workers = workers
        self.cluster = Cluster(1, 1)
        adopt(self.cluster, policy)
        self.history = History()
        self._by_id = dict(enumerate(items, start=1))
        self._running: list[tuple[float, int, int]] = []
        """(end, number of the item, token), as a heap."""
        self._runs: dict[int, _Run] = {}
        self._left: dict[int, tuple[Ran, float]] = {}
        """Of what was preempted: what is left to run of it."""
        self._said: dict[int, Prediction] = {}
        self._connect(nodes)

    def _connect(self, nodes: list[tuple[int, Resources]]) -> None:
        turn = Turn(self.cluster, self.items[0].submitted if self.items else 0.0, "replay")
        for count, resources in nodes:
            for _ in range(count):
                name = f"n{len(self.cluster.nodes) + 1}"
                hello = Hello(version=1, software="", name=name, node=None, boot_id="b", resources=resources,
                              labels={ADDRESS_LABEL: name})  # fmt: skip
                handle(turn, NodeConnected("replay", name, hello))
        self.cluster.look_at_nodes()
        self.history.nodes, self.history.capacity = len(self.cluster.nodes), dict(self.cluster.capacity)
        self.history.tally = self.tally = Tally(self.history.capacity, turn.now)

    def run(self) -> History:
        for now, arrived, ended in self._instants():
            turn = Turn(self.cluster, now, "replay")
            self.tally.comes_to(now)
            for number in arrived:
                self.tally.arrives(self._by_id[number].project)
            if arrived:
                tasks = [self._task(number) for number in arrived]
                self._said |= {task.id: said for task in tasks if (said := self.cluster.predict(task)) is not None}
                handle(turn, TasksTaken("replay", tasks))
            for number in ended:
                self._end(turn, number)
            while stopped := self._decide(turn):
                turn = Turn(self.cluster, now, "replay")
                for number in stopped:
                    self._preempt(turn, number)
            self.tally.note()
        left = {key.task for key in self.cluster.elements} | self.cluster.tasks.keys()
        self.history.never = [self._by_id[number] for number in sorted(left)]
        return self.history

    def _decide(self, turn: Turn) -> list[int]:
        """What is first starts; numbers of those that have to stop for what waits."""
        while place(turn, self.policy).exhausted:
            pass
        effects = turn.finish()
        self._start(effects, turn.now)
        self.history.turns += 1
        stops = {(e.node, e.message.number) for e in effects if isinstance(e, ToNode) and isinstance(e.message, Stop)}
        return [number for number, run in self._runs.items() if run.at[0] in stops] if stops else []

    def _looks_again(self, now: float) -> float:
        """When it is asked once more whom what waits may preempt, though nothing happens."""
        return now + LOOK_AGAIN_S if self.policy.preemption is not None and len(self.cluster.queue) else float("inf")

    def _instants(self) -> Iterator[tuple[float, list[int], list[int]]]:
        """What happens when, until nothing more does."""
        numbers = iter(self._by_id)
        following = next(numbers, None)
        running = self._running
        now = 0.0
        while following is not None or running:
            arrival = self._by_id[following].submitted if following is not None else float("inf")
            now = min(arrival, running[0][0] if running else float("inf"), self._looks_again(now))
            arrived: list[int] = []
            ended: list[int] = []
            while following is not None and self._by_id[following].submitted <= now:
                arrived.append(following)
                following = next(numbers, None)
                if self.single:
                    break
            while running and running[0][0] <= now and not (self.single and (arrived or ended)):
                _, number, token = heappop(running)
                if number in self._runs and self._runs[number].token == token:  # else it was preempted
                    ended.append(number)
            yield now, arrived, ended

    def _task(self, number: int) -> Task:
        item = self._by_id[number]
        spec = TaskSpec(name=item.name, command=("true",), resources=item.resources, time_limit=item.limit,
                        queue=item.queue, priority=item.priority, nodes=item.nodes)  # fmt: skip
        return Task(
            id=number, uuid="", project=item.project, user=item.user, spec=spec, submitted_at=item.submitted
        )  # fmt: skip

    def _start(self, effects: list[Effect], now: float) -> None:
        for effect in effects:
            if isinstance(effect, ToNode) and isinstance(effect.message, Assign):
                for assignment in effect.message.assignments:
                    self._begin(assignment, effect.node, now)
                if self.policy.preemption is not None:  # which asks how long they have run
                    begun: list[Fact] = [Started(number=a.number, token=a.token) for a in effect.message.assignments]
                    self._report(Turn(self.cluster, now, "replay"), effect.node, begun)

    def _begin(self, assignment: Assignment, node: int, now: float) -> None:
        number, at = assignment.task, (node, assignment.number)
        if number in self._runs:  # another rank of a gang
            self._runs[number].at.append(at)
            return
        known = self._left.pop(number, None)
        if known is None:
            item = self._by_id[number]
            killed = item.limit is not None and item.run > item.limit
            ran = Ran(item, now, now, node, self._said.pop(number, None), killed=killed)
            self.history.ran.append(ran)
            known, idle = (ran, ran.lasts), 0.0
        else:
            idle = self.workers.restart
        run = self._runs[number] = _Run(known[0], [at], assignment.token, now, idle, known[1])
        run.ran.ended = now + run.idle + run.left
        self.tally.begins(run.ran.item.project, run.ran.item.whole)
        heappush(self._running, (run.ran.ended, number, run.token))

    def _end(self, turn: Turn, number: int) -> None:
        run = self._runs.pop(number)
        ran = run.ran
        ran.held += turn.now - run.since
        self.tally.ends(ran.item.project, ran.item.whole)
        for node, at in run.at:
            fact = Ended(
                number=at, token=run.token, cause=Cause.TIMEOUT if ran.killed else Cause.EXIT,
                exit_code=None if ran.killed else 0, usage=Usage(wall_s=ran.item.run),
            )  # fmt: skip
            self._report(turn, node, [fact])

    def _preempt(self, turn: Turn, number: int) -> None:
        run = self._runs.pop(number)
        since = turn.now - run.since
        run.ran.held, run.ran.preempted = run.ran.held + since, run.ran.preempted + 1
        self.tally.stops(run.ran.item.project, run.ran.item.whole)
        done = max(since - run.idle, 0.0)
        self._left[number] = run.ran, (run.left - done if self.workers.keep else run.ran.lasts)
        for node, at in run.at:
            self._report(turn, node, [Ended(number=at, token=run.token, cause=Cause.PREEMPTED)])

    def _report(self, turn: Turn, node: int, facts: list[Fact]) -> None:
        view = self.cluster.nodes[node]
        handle(turn, NodeReported("replay", view.session or "", node, 1, facts))
