"""PURE: the leader's memory of queue and nodes, a cache that the store can rebuild at any moment.

Changed only by the reactor within a turn. Its index structures are re-derived and compared by ``core/invariants`` and
``scheduler/checks`` in tests.
"""

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import dataclass, field
from heapq import heappop, heappush, merge
from itertools import islice
from operator import itemgetter

import msgspec

from jarvis.core import resources as vector
from jarvis.core.attempt import Attempt, Usage
from jarvis.core.booking import Booking
from jarvis.core.gpus import Room, Share, ask_of, pick, room_of, without
from jarvis.core.ids import ElementKey
from jarvis.core.node import DEFAULT_WINDOWS, Node, NodeState, Windows
from jarvis.core.parked import parked
from jarvis.core.quota import Quota
from jarvis.core.resources import Resources
from jarvis.core.states import Cause, State
from jarvis.core.task import Element, Task
from jarvis.scheduler.history import History
from jarvis.scheduler.outlook import SOON, Outlook
from jarvis.scheduler.policy.affinity import Carriers
from jarvis.scheduler.policy.attained import behind
from jarvis.scheduler.policy.fairness import Ledger
from jarvis.scheduler.policy.fragmentation import Fragmentation, Shape, shape_of
from jarvis.scheduler.policy.licenses import Pool as LicensePool
from jarvis.scheduler.policy.locality import Holders
from jarvis.scheduler.policy.order import Order, rank, weight_of
from jarvis.scheduler.policy.plugged import Plugged
from jarvis.scheduler.policy.prediction import FORETELL_RATE, Prediction, Predictor, Rate
from jarvis.scheduler.policy.preemption import Claim
from jarvis.scheduler.pools import Pools
from jarvis.scheduler.task_queue import Entry, PlacementClass, TaskQueue, class_of
from jarvis.scheduler.timer import Timer

ESTIMATE_WEIGHT = 0.2
"""Of the newest run time in a class's moving average."""
FORETOLD_MOST = 10_000
"""Tasks of which it is remembered what was predicted for them."""
NEVER = float("inf")
PARKED_FROM = 20_000
"""Tasks in memory from which on those that only wait are kept small."""
RELEARN = 0.1
"""Of all GPU requests known: when as many are new, what is usual is learned again."""


class Placed(msgspec.Struct, gc=False):
    """An assignment on a node. ``ahead``: beyond what the node has room for now, first in its backlog starts next.
    ``begun``: the node said that it started it."""

    key: ElementKey
    placement_class: PlacementClass
    need: Resources
    ahead: bool
    begun: bool = False
    until: float = NEVER
    """When it is expected to end."""
    latest: float = 0.0
    """When its limit ends it, if ``until`` is only predicted."""
    shares: tuple[Share, ...] = ()
    """Of which GPUs it is thought to have which part."""
    rank: int = 0
    saved_at: float | None = None
    """When it was last sent a signal on which programs write a checkpoint."""
    held: int = 0
    """Bytes of what it needs that were there when it was placed."""


@dataclass(slots=True)
class NodeView:
    """A node as the scheduler sees it: ``used`` are the resources of what is not ahead."""

    node: Node
    session: str | None = None
    over: str | None = None
    """The session that was told to end, until a Hello begins another: telling it may get lost."""
    used: Resources = field(default_factory=dict)
    placed: dict[int, Placed] = field(default_factory=dict)
    expected: dict[int, Placed] = field(default_factory=dict)
    """Those of ``placed`` that have room and of which the node has not said that they began, in order."""
    backlog: deque[int] = field(default_factory=deque)
    ahead: dict[PlacementClass, int] = field(default_factory=dict)
    stuck: bool = False
    """What was ahead waited too long: no more of it until something that had room there is over."""
    connected_at: float = 0.0
    """When its session began."""
    heard_at: float = 0.0
    told: int = 0
    """Messages said to it in its session."""
    told_mark: int = 0
    told_mark_at: float = 0.0
    """As many must have arrived, and since when."""
    ends: list[tuple[float, int]] = field(default_factory=list)
    """(expected end, number) of what has one, ascending."""
    shares: list[Share] = field(default_factory=list)
    """What is thought to be taken of its GPUs."""
    _gpus: tuple[Resources, Room] | None = None
    """What is free on each while ``shares`` are taken of these resources; None: not known."""
    closed: str = ""
    """Why it takes no work for a time: it is under maintenance."""

    @property
    def signature(self) -> tuple[object, ...]:
        """Room first, then all that decides whether it suits: two that are equal need no second look."""
        node = self.node
        return (
            self.used, node.state, node.cordoned, node.draining, node.unfit, self.closed, self.session is not None, node.resources,
            node.taints, tuple(node.labels.items()),
        )  # fmt: skip

    @property
    def gpus(self) -> Room:
        """What is free on each GPU."""
        if self._gpus is None or self._gpus[0] is not self.node.resources:
            whole = room_of(self.node.resources, self.node.gpu_memory)
            self._gpus = self.node.resources, without(whole, self.shares)
        return self._gpus[1]

    @property
    def free(self) -> Resources:
        return vector.subtract(self.node.resources, self.used)

    def ends_from(self, now: float) -> Iterator[tuple[float, Resources]]:
        """What gives its room back when."""
        late = bisect_right(self.ends, now, key=itemgetter(0))
        overdue = [(self.end_of(number, now), number) for _, number in self.ends[:late]]
        for at, number in merge(sorted(overdue), islice(self.ends, late, None)):
            placed = self.placed[number]
            if not placed.ahead:
                yield at, placed.need

    def end_of(self, number: int, now: float) -> float:
        """What outlived its prediction is expected to need all that its limit allows, and what outlived that to end soon. Nothing
        else is: what is as short as that could pass for ever what waits for the rest."""
        placed = self.placed[number]
        return placed.until if placed.until > now else placed.latest if placed.latest > now else now + SOON

    def place(self, number: int, placed: Placed) -> None:
        self.placed[number] = placed
        if placed.until != NEVER:
            insort(self.ends, (placed.until, number))
        if placed.ahead:
            self.backlog.append(number)
            self.ahead[placed.placement_class] = self.ahead.get(placed.placement_class, 0) + 1
        else:
            self._take_room(number, placed)

    def place_alike(self, placed: dict[int, Placed], placement_class: PlacementClass) -> None:
        """As :meth:`place` for each, of a class that asks for no GPUs; all of them ahead, or none."""
        self.placed |= placed
        for number, one in placed.items():
            if one.until != NEVER:
                insort(self.ends, (one.until, number))
        if next(iter(placed.values())).ahead:
            self.backlog.extend(placed)
            self.ahead[placement_class] = self.ahead.get(placement_class, 0) + len(placed)
        else:
            self.used = vector.add(self.used, vector.times(placement_class.need, len(placed)))
            self.expected |= placed

    def leave_alike(self, left: dict[int, Placed], placement_class: PlacementClass) -> None:
        """As :meth:`remove` for each, of a class that asks for no GPUs, when they are out of ``placed``. That those behind them
        move up once, not with each, makes no difference: those that would move up and leave are among the ones that leave."""
        had_room = 0
        for number, one in left.items():
            if one.until != NEVER:
                del self.ends[bisect_left(self.ends, (one.until, number))]
            had_room += not one.ahead
        self.stuck = self.stuck and not had_room
        self.used = vector.subtract(self.used, vector.times(placement_class.need, had_room))
        self._leave_backlog(placement_class, len(left) - had_room)
        for number in left:
            self.expected.pop(number, None)
        self._move_up()

    def _take_room(self, number: int, placed: Placed) -> None:
        self.used = vector.add(self.used, placed.need)
        if "gpu" in placed.need or "gpu_memory" in placed.need:
            ask = ask_of(placed.need)
            placed.shares = (ask and pick(self.gpus, ask)) or ()
            self.shares += placed.shares
            self._gpus = None
        if not placed.begun:
            self.expected[number] = placed

    def _give_room(self, placed: Placed) -> None:
        self.used = vector.subtract(self.used, placed.need)
        if placed.shares:
            for share in placed.shares:
                self.shares.remove(share)
            placed.shares, self._gpus = (), None

    def begin(self, number: int) -> None:
        """The node started it: it comes before whatever was thought to start and has not. While there is still no room, it
        has that of something whose end is on its way, and counts when that end is here."""
        placed = self.placed[number]
        placed.begun = True
        self.expected.pop(number, None)
        if not placed.ahead:
            return
        while self.expected and not vector.fits(placed.need, self.free):
            self._back_to_backlog(*self.expected.popitem())
        self.backlog.remove(number)
        self.backlog.appendleft(number)
        self._move_up()

    def _back_to_backlog(self, number: int, placed: Placed) -> None:
        placed.ahead = True
        self._give_room(placed)
        self.ahead[placed.placement_class] = self.ahead.get(placed.placement_class, 0) + 1
        self.backlog.appendleft(number)

    def remove(self, number: int) -> Placed | None:
        """Its resources are free again; what waits in the backlog moves up as far as it fits."""
        placed = self.placed.pop(number, None)
        if placed is None:
            return None
        if placed.until != NEVER:
            del self.ends[bisect_left(self.ends, (placed.until, number))]
        self.expected.pop(number, None)
        if placed.ahead:
            placed.ahead = False
            self._leave_backlog(placed.placement_class)
        else:
            self.stuck = False
            self._give_room(placed)
        self._move_up()
        return placed

    def _leave_backlog(self, placement_class: PlacementClass, count: int = 1) -> None:
        left = self.ahead.get(placement_class, 0) - count
        if left:
            self.ahead[placement_class] = left
        else:
            self.ahead.pop(placement_class, None)

    def _move_up(self) -> None:
        while self.backlog:
            placed = self.placed.get(self.backlog[0])
            if placed is not None and placed.ahead:
                if not vector.fits(placed.need, self.free):
                    return
                placed.ahead = False
                self._leave_backlog(placed.placement_class)
                self._take_room(self.backlog[0], placed)
            self.backlog.popleft()


@dataclass(slots=True)
class Cluster:
    """Everything the leader knows that is not at its end."""

    incarnation: int
    epoch: int
    windows: Windows = DEFAULT_WINDOWS
    tasks: MutableMapping[int, Task] = field(default_factory=dict)
    elements: dict[ElementKey, Element] = field(default_factory=dict)
    attempts: dict[ElementKey, Attempt] = field(default_factory=dict)
    parked_from: int = field(default_factory=lambda: PARKED_FROM)
    by_task: dict[int, set[int]] = field(default_factory=dict)
    """Task → indices of its elements in ``elements``; arrays only have more than the solo one."""
    named_ahead: dict[int, set[int]] = field(default_factory=dict)
    """Array → positions at or after ``next_position`` that a command gave a row of their own."""
    nodes: dict[int, NodeView] = field(default_factory=dict)
    node_names: dict[str, int] = field(default_factory=dict)
    queue: TaskQueue = field(default_factory=TaskQueue)
    dependents: dict[int, set[int]] = field(default_factory=dict)
    waits_for: dict[int, set[int]] = field(default_factory=dict)
    """Waiting task → the tasks whose end it waits for."""
    timers: list[Timer] = field(default_factory=list)
    estimates: dict[PlacementClass, float] = field(default_factory=dict)
    """Moving average of run time by class, seconds."""
    ahead_seconds: float = 0.0
    """As the policy says, for what follows."""
    shorter: set[PlacementClass] = field(default_factory=set)
    """Classes that may be assigned ahead of room on nodes where they might not, since the nodes were looked at."""
    predictor: Predictor = field(default_factory=Predictor)
    foretold: dict[int, Prediction] = field(default_factory=dict)
    """Task → what was predicted when it was queued, to see how good that was: of some tasks, the last ones."""
    foretell_rate: Rate = field(default_factory=lambda: Rate(FORETELL_RATE))
    on_nodes: dict[int, int] = field(default_factory=dict)
    """Task → number of its elements on nodes, for array throttles."""
    last_seq: int = 0
    next_node: int = 1
    started_ahead: set[ElementKey] = field(default_factory=set)
    """Elements whose ``running`` waits for a commit that has another reason."""
    round_robin: int = 0
    order: Order = field(default_factory=Order)
    """Of the policy, as ranks are made when a task is queued; ``queue_orders`` where a queue has its own."""
    queue_orders: dict[str, Order] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    """Project → its weight among projects."""
    quotas: dict[tuple[str, str], Quota] = field(default_factory=dict)
    """By (project, user); a whole project's under (project, "")."""
    ledger: Ledger = field(default_factory=Ledger)
    bookings: dict[int, Booking] = field(default_factory=dict)
    """Maintenance and reservations that have not ended, by id."""
    carriers: Carriers = field(default_factory=Carriers)
    licenses: LicensePool = field(default_factory=LicensePool)
    holders: Holders = field(default_factory=Holders)
    """Who holds what of what tasks need."""
    capacity: Resources = field(default_factory=dict)
    """Of all nodes that are not lost."""
    largest: Resources = field(default_factory=dict)
    """The most that a node has of each."""
    shapes: dict[Shape, int] = field(default_factory=dict)
    """How often each shape was queued, for what is usual."""
    shapes_new: float = 0
    """As many since it was last learned what is usual."""
    fragmentation: Fragmentation = field(default_factory=lambda: Fragmentation({}))
    pools: Pools = field(default_factory=Pools)
    plugged: tuple[Plugged, ...] = ()
    """Policies of other packages that it is led by."""
    nodes_changed: bool = True
    looked_at: float = 0.0
    reservations: dict[ElementKey, tuple[int, float]] = field(default_factory=dict)
    """What waits for a start that is kept free for it: its node and that instant, as of the last cycle."""
    reserved_others: dict[ElementKey, tuple[int, ...]] = field(default_factory=dict)
    """Of those that are gangs: the nodes of their ranks from 1 on."""
    attained: dict[ElementKey, float] = field(default_factory=dict)
    """Element → cpu-seconds that its attempts before had, where the order counts them; what a leader before knew is forgotten."""
    ranks_change: bool = False
    """Whether what is queued again may have another rank than before."""
    stands: dict[ElementKey, float] = field(default_factory=dict)
    """Of elements that were queued again while ranks change: the one that counts."""
    claims: dict[ElementKey, Claim] = field(default_factory=dict)
    """What waits for the end of attempts that were stopped for it."""
    history: History = field(default_factory=History)
    """How reasons for waiting changed."""
    outlook: Outlook | None = None
    """Of a cluster to ask: when its nodes have room, kept from question to question."""
    victims_looked_at: float = 0.0
    """When it was last asked whom what waits could preempt."""

    def add_timer(self, timer: Timer) -> None:
        heappush(self.timers, timer)

    def due_timers(self, now: float) -> list[Timer]:
        due = []
        while self.timers and self.timers[0].at <= now:
            due.append(heappop(self.timers))
        return due

    def order_of(self, queue: str) -> Order:
        return self.queue_orders.get(queue, self.order)

    def weight_of(self, project: str) -> float:
        quota = self.quotas.get((project, ""))
        if quota is not None and quota.weight is not None:
            return quota.weight
        return self.weights.get(project, 1.0)

    def predict(self, task: Task) -> Prediction | None:
        return self.predictor.predict(task)

    def foretell(self, tasks: Iterable[Task], now: float) -> None:
        """Note what is predicted for tasks, for the day they end; of some, if many come."""
        for task in tasks:
            if not self.foretell_rate.take(now):
                return
            said = self.predict(task)
            if said is not None:
                self.foretold[task.id] = said
                if len(self.foretold) > FORETOLD_MOST:
                    del self.foretold[next(iter(self.foretold))]

    def entry_of(self, task: Task, position: int, is_range: bool = False) -> Entry:
        """Where a task stands. The steps of a workflow stand together: as what names no time limit and was submitted when the
        workflow was, so that what is best for the whole decides among them."""
        spec = task.spec
        origin, order = spec.origin, self.order_of(spec.queue)
        late = behind(order, self.attained.get(task.key_at(position), 0.0)) if self.attained else 0.0
        if origin is None:
            said = self.predict(task) if order.times == "predicted" else None
            value = rank(order, spec, task.submitted_at, None if said is None else said.seconds)
            return Entry(value + late, task.id, 0.0, task.id, position, is_range)
        value = rank(order, msgspec.structs.replace(spec, time_limit=None), origin.submitted_at or task.submitted_at)
        return Entry(value + late, origin.workflow, -origin.rank, task.id, position, is_range)

    def had(self, task: Task, attempt: Attempt, now: float) -> float:
        """Cpu-seconds that an element has had, its current attempt included."""
        order = self.order_of(task.spec.queue)
        seconds = 0.0 if attempt.started_at is None else max(now - attempt.started_at, 0.0)
        before = self.attained.get(ElementKey(attempt.task, attempt.index), 0.0)
        return before + weight_of(order, task.spec) * seconds

    def enqueue(self, task: Task, position: int = 0, is_range: bool = False) -> None:
        spec = task.spec
        entry = self.entry_of(task, position, is_range)
        self.queue.push(class_of(spec), entry, task.project, task.user)
        if self.ranks_change and not is_range and task.key_at(position) in self.elements:
            self.stands[task.key_at(position)] = entry.rank
        if "gpu" in spec.resources:
            shape = shape_of(spec.resources, spec.constraints)
            self.shapes[shape] = self.shapes.get(shape, 0) + 1
            self.shapes_new += 1

    def look_at_nodes(self, closely: bool = True) -> None:
        """Learn what changed of the nodes since the last look; ``closely``: not only of their room."""
        if self.shorter:
            self._look_behind_backlogs()
        if self.pools.sweep(self.nodes, closely):
            self.carriers.version += 1
            capacity, largest = Resources(), Resources()
            for view in self.nodes.values():
                if view.node.state is not NodeState.LOST:
                    capacity = vector.add(capacity, view.node.resources)
                for name, amount in view.node.resources.items():
                    largest[name] = max(largest.get(name, 0), amount)
            self.capacity, self.largest = capacity, largest
        if self.shapes_new > RELEARN * sum(self.shapes.values()):
            self.shapes_new, self.fragmentation = 0, Fragmentation(self.shapes)
            self.pools.forget_exact()

    def _look_behind_backlogs(self) -> None:
        """Where there is room that a backlog was in front of, what turned out to be short may go behind that. On a full node it
        could not begin before something ends there, and then the node is looked at in any case."""
        waiting = [c.need for c in self.shorter if self.queue.has(c)]
        self.shorter.clear()
        if not waiting:
            return
        least = {name: min(need.get(name, 0) for need in waiting) for name in waiting[0]}
        for ident, view in self.nodes.items():
            if view.ahead and vector.fits(least, view.free):
                self.pools.touch(ident)

    def park(self, task: Task) -> Task:
        """Keep it small if it is one of very many that only wait. What is in memory is the answer."""
        if len(self.tasks) < self.parked_from or task.state is not State.QUEUED or task.spec.array is not None:
            return task
        if task.id in self.by_task:
            return task
        small = self.tasks[task.id] = parked(task)
        return small

    def add_element(self, element: Element) -> None:
        self.elements[element.key] = element
        self.by_task.setdefault(element.task, set()).add(element.index)

    def drop_element(self, key: ElementKey) -> None:
        self.elements.pop(key, None)
        if self.attained or self.stands:
            self.attained.pop(key, None)
            self.stands.pop(key, None)
        indices = self.by_task.get(key.task)
        if indices is not None:
            indices.discard(key.index)
            if not indices:
                del self.by_task[key.task]

    def forget_solo(self, key: ElementKey) -> None:
        """A task without an array has ended."""
        task = key.task
        del self.tasks[task]
        del self.elements[key]
        del self.by_task[task]
        if self.attained or self.stands:
            self.attained.pop(key, None)
            self.stands.pop(key, None)
        self.started_ahead.discard(key)
        self.waits_for.pop(task, None)
        self.foretold.pop(task, None)

    def has_row(self, task: Task, position: int) -> bool:
        """Whether the array's element at a position has a row of its own; one that is not in memory has ended."""
        return position < task.next_position or position in self.named_ahead.get(task.id, ())

    def state_at(self, task: Task, position: int) -> State | None:
        """State of the element at a position: its own if it has one, else the array's rule; None when it has ended."""
        if task.spec.array is None:
            return task.state
        element = self.elements.get(task.key_at(position))
        if element is not None:
            return element.state
        return None if self.has_row(task, position) else task.base

    def learn(self, placement_class: PlacementClass, task: Task, usage: Usage, cause: Cause, now: float) -> None:
        """An attempt ended: what its class takes on the average, and what tasks like it take and use."""
        seconds = usage.wall_s
        known, step = self.estimates.get(placement_class), self.ahead_seconds
        before = seconds if known is None else known
        self.estimates[placement_class] = after = before + ESTIMATE_WEIGHT * (seconds - before)
        # From so many at a time on a class may go ahead of room: where fewer can run, too, when it takes less.
        if step and (known is None or -after // step > -before // step):
            self.shorter.add(placement_class)
        self.predictor.learn(task, usage, cause, now, self.foretold.get(task.id))
