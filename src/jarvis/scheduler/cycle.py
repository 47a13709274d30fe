"""PURE: plan_cycle: snapshot in, plan out; nothing is changed until the reactor applies the plan.

The same function places in production, in simulation and in what-if. Its phases: 1 which classes may find room; 2 who is next
(fairness between owners, then rank); 3 place what is first; 4 what is first and does not fit: stop, pass it over, or reserve
its start and fill the time until then; 5 what the queue can forget. Before them goes what others were stopped for, and after them
what still waits may preempt.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from jarvis.core.ids import ElementKey
from jarvis.core.states import State
from jarvis.core.task import Task
from jarvis.scheduler.choice import Choice
from jarvis.scheduler.claimed import place_claimed, place_covered
from jarvis.scheduler.cluster import Cluster
from jarvis.scheduler.following import place_following
from jarvis.scheduler.heads import Head, Line, RankLine, by_tier, fair_line
from jarvis.scheduler.load_balancer import SCORES
from jarvis.scheduler.policy.backfill import NEVER, Backfill
from jarvis.scheduler.policy.fairness import Fairness
from jarvis.scheduler.policy.guarantees import Guarantees
from jarvis.scheduler.policy.licenses import Spare
from jarvis.scheduler.policy.locality import Locality
from jarvis.scheduler.policy.order import Order, seconds_of, weight_of
from jarvis.scheduler.policy.plugged import Plugged
from jarvis.scheduler.policy.preemption import RECLAIMING, Claim, Preemption
from jarvis.scheduler.policy.quotas import Headroom
from jarvis.scheduler.pools import Limits, Pool
from jarvis.scheduler.preemption import is_due, look_for_victims
from jarvis.scheduler.task_queue import Lane, PlacementClass, class_of

AHEAD_SECONDS = 0.1
"""Estimated work assigned ahead of free room, per node and class."""
AHEAD_MOST = 2048
"""Assignments ahead, per node and class, however short they are."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Settings of a cycle."""

    balancer: str = "least_loaded"
    gpu_balancer: str = "gpu_fit"
    """Where any node has GPUs, for what asks for none as well: it, too, can take away what GPUs need to be of use."""
    queue_balancers: dict[str, str] = field(default_factory=dict)
    budget: int = 4096
    """Placements a cycle, so that renewal and acknowledgements are never kept waiting (about 10 ms)."""
    ahead_seconds: float = AHEAD_SECONDS
    ahead_most: int = AHEAD_MOST
    order: Order = field(default_factory=Order)
    queue_orders: dict[str, Order] = field(default_factory=dict)
    queue_tiers: dict[str, int] = field(default_factory=dict)
    """Queues with a higher figure go first, whatever the order within them."""
    fairness: Fairness = field(default_factory=Fairness)
    backfill: Backfill = field(default_factory=Backfill)
    preemption: Preemption | None = None
    """None: nothing is preempted, unless a project is guaranteed what others have borrowed."""
    filters: tuple[str, ...] = ()
    """Of other packages, which are asked which nodes a class may have."""
    plugged: tuple[Plugged, ...] = ()
    """All policies of other packages that are named here."""
    licenses: dict[str, int] = field(default_factory=dict)
    """Licences and other counters of the whole cluster: how many there are of each."""
    locality: Locality = field(default_factory=Locality)
    """From how many bytes on it counts that a node holds what a task needs."""


class Decision(NamedTuple):
    """One element goes to one node."""

    key: ElementKey
    position: int
    node: int
    ahead: bool
    placement_class: PlacementClass
    until: float = NEVER
    """When it is expected to end."""
    latest: float = NEVER
    others: tuple[int, ...] = ()
    """Of a gang: the nodes of its ranks from 1 on; all of them are decided together."""
    held: int = 0
    """Bytes of what it needs that are there already, where they count."""


class Reservation(NamedTuple):
    """What does not fit yet, and where and when it is to start."""

    key: ElementKey
    node: int
    start: float
    others: tuple[int, ...] = ()
    """Of a gang, as in a decision."""


@dataclass(slots=True)
class Plan:
    """What a cycle decided. ``consumed`` entries at the head of each lane are placed or no longer count."""

    decisions: list[Decision] = field(default_factory=list)
    consumed: list[tuple[Lane, int]] = field(default_factory=list)
    reservations: list[Reservation] = field(default_factory=list)
    claims: dict[ElementKey, Claim] = field(default_factory=dict)
    """What waits for the end of attempts that are stopped for it, those of before included."""
    looked_for_victims: bool = False
    exhausted: bool = False
    """The budget ended it: there may be more to place at once."""


def plan_cycle(cluster: Cluster, policy: Policy, now: float, seed: int = 0) -> Plan:
    """Place what is queued, in order, as far as room and budget go."""
    waits = cluster.queue.classes() or cluster.claims or cluster.reservations or cluster.quotas
    if not waits and policy.preemption is None:
        return Plan()
    return Cycle(cluster, policy, now, seed).run()


class Cycle:
    """One run."""

    def __init__(self, cluster: Cluster, policy: Policy, now: float, seed: int) -> None:
        self.cluster, self.policy, self.now = cluster, policy, now
        self.plan = Plan()
        self.plans_all = policy.backfill.name == "conservative"
        extra = policy.backfill.extra or self.plans_all
        limits = Limits(policy.ahead_seconds, policy.ahead_most, extra, policy.locality)
        self.choice = Choice(cluster, now, seed, limits)
        self.running: dict[int, int] = {}
        self.heads: list[Head] = []
        self.taken: set[ElementKey] = set()
        self.looked = 0
        self.by_prediction = policy.backfill.times == "predicted"
        self.headroom = Headroom(cluster.quotas, cluster.ledger) if cluster.quotas else None
        self.guarantees = Guarantees(cluster.quotas, cluster.ledger) if cluster.quotas else None
        self.licenses = Spare(cluster.licenses)
        rules = policy.preemption or (RECLAIMING if self.guarantees else None)
        self.preempts = rules if rules is not None and is_due(self) else None
        """The rules of preemption, if victims are to be looked for."""

    def run(self) -> Plan:
        if self.cluster.claims:
            place_claimed(self)
        heads = self._open_heads()
        if heads and self.guarantees:
            place_covered(self, heads)
        if heads and self.policy.backfill.keep and not self._kept_first():
            heads = []
        for tier in by_tier(heads, self.policy.queue_tiers):
            if not self._go_through(self._line(tier)):
                break
        self.plan.consumed = [(head.lane, head.consumed) for head in self.heads if head.consumed]
        if self.preempts is not None and not self.plan.exhausted:
            look_for_victims(self, self.preempts)
        return self.plan

    # ------------------------------------------------------------ 1. which classes may find room

    def _open_heads(self) -> list[Head]:
        """The lanes of classes that some node may take; all lanes where what is first may hold up others."""
        queue, choice = self.cluster.queue, self.choice
        pools = {c: self.pool(c) for c in queue.classes()}
        before, backfill = self.cluster.reservations, self.policy.backfill
        found = {c for c, pool in pools.items() if choice.may_find(pool)} if backfill.looks else set()
        has_to_plan = bool(found) or backfill.always or (self.preempts is not None and backfill.name != "skip")
        if not has_to_plan and (before or not backfill.keep):
            others = self.cluster.reserved_others
            self.plan.reservations = [Reservation(k, *there, others.get(k, ())) for k, there in before.items()]
            return []
        wanted = found if backfill.name == "skip" else pools
        self.heads = [Head(self.cluster, lane, pools[c]) for c in pools if c in wanted for lane in queue.lanes(c)]
        return self.heads

    def pool(self, placement_class: PlacementClass) -> Pool:
        return self.choice.pool(placement_class, self._balancer(placement_class))

    def _balancer(self, placement_class: PlacementClass) -> str:
        if placement_class.balancer in SCORES:
            return placement_class.balancer
        default = self.policy.gpu_balancer if self.cluster.capacity.get("gpu") else self.policy.balancer
        return self.policy.queue_balancers.get(placement_class.queue, default)

    # ------------------------------------------------------------ 2. who is next

    def _line(self, heads: list[Head]) -> Line:
        if self.policy.fairness.by == "nobody":
            return RankLine(heads)
        return fair_line(self.cluster, heads, self.now, self.guarantees.changed if self.guarantees else {})

    def _kept_first(self) -> bool:
        """What had a reservation comes before everything. False when it holds up all others."""
        for key in self.cluster.reservations:
            task = self.cluster.tasks.get(key.task)
            position = None if task is None else self.position_of(task, key)
            if task is None or position is None or key in self.taken:
                continue
            pool = self.pool(class_of(task.spec))
            if not self.within(task, pool):
                continue
            self.taken.add(key)
            if not self.place(pool, task, position):
                return self._reserve(pool, task, position) and self.policy.backfill.reserves
        return True

    def position_of(self, task: Task, key: ElementKey) -> int | None:
        """Of an element that is queued."""
        position = 0 if task.spec.array is None else task.spec.array.position_of(key.index) or 0
        return position if self.cluster.state_at(task, position) is State.QUEUED else None

    # ------------------------------------------------------------ 3. place what is first

    def _go_through(self, line: Line) -> bool:
        """False when nothing behind this line may start either."""
        backfill = self.policy.backfill
        if self.plan.reservations and backfill.order != "policy":
            self._fill(line)
            return True
        while (head := line.first()) is not None:
            task = head.task
            assert task is not None
            if len(self.plan.decisions) >= self.policy.budget:
                self.plan.exhausted = True
                return False
            if not self.within(task, head.pool):
                self._look_past(line, head, self.licenses.too_long)
            elif self.throttled(task) or (self.taken and task.key_at(head.position) in self.taken):
                self.skip(line, head)
            elif self.place(head.pool, task, head.position):
                if len(head.pool.group.members) == 1 and isinstance(line, RankLine):
                    place_following(self, line, head)
                head.advance()
                line.again(placed=True)
            elif backfill.name == "skip" or (backfill.name == "none" and self.choice.booked and self.choice.too_long):
                self._look_past(line, head, bool(self.choice.booked) and self.choice.too_long)
            elif backfill.name == "none":
                if self._reserve(head.pool, task, head.position):
                    return False
                line.drop()
            else:
                line = self._pass_by(line, head, task)
                if self.plan.reservations and backfill.order != "policy":
                    self._fill(line)
                    return True
        return True

    def _look_past(self, line: Line, head: Head, too_long: bool) -> None:
        """It waits, and so does all of its lane, unless a shorter one may start."""
        if too_long and self.looked < self.policy.backfill.look:
            self.looked += 1
            self.skip(line, head)
        else:
            line.drop()

    def throttled(self, task: Task) -> bool:
        array = task.spec.array
        if array is None or array.throttle is None:
            return False
        return self.cluster.on_nodes.get(task.id, 0) + self.running.get(task.id, 0) >= array.throttle

    def place(self, pool: Pool, task: Task, position: int, on: tuple[int, ...] = ()) -> bool:
        """Place an element, nowhere but ``on`` these nodes if any are said; False when no node takes it."""
        until = latest = NEVER
        if self.policy.backfill.reserves:
            latest = self.now + seconds_of(self.policy.order, task.spec)
            until = self.now + self.seconds(task) if self.by_prediction else latest
        ends = self.now + seconds_of(self.policy.order, task.spec) if self.choice.booked else NEVER
        key, others = task.key_at(position), tuple[int, ...]()
        chosen: tuple[int, bool] | None
        if on:
            chosen, others = (on[0], False) if self.choice.takes(pool, task, on, until, ends) else None, on[1:]
        elif self.plans_all and (planned := self._as_planned(key, pool, task, until, ends)):
            chosen, others = (planned[0], False), planned[1:]
        elif pool.nodes > 1:
            nodes = self.choice.choose_gang(pool, task, until, ends)
            chosen = None if nodes is None else (nodes[0], False)
            others = () if nodes is None else nodes[1:]
        else:
            chosen = self.choice.choose(pool, task, until, ends)
        if chosen is None:
            return False
        node, is_ahead = chosen
        held = self.choice.near.held(pool, task, (node, *others)) if self.choice.near.any_holds else 0
        kind = pool.placement_class
        self.plan.decisions.append(Decision(key, position, node, is_ahead, kind, until, latest, others, held))
        self.choice.account(pool, task, node, is_ahead, until)
        for other in others:
            self.choice.account(pool, task, other, False, until)
        self.will_have(task, pool)
        return True

    def _as_planned(self, key: ElementKey, pool: Pool, task: Task, until: float, ends: float) -> tuple[int, ...]:
        """The nodes that are reserved for it, if it may begin there: what comes after it is planned around that."""
        before = self.cluster.reservations.get(key)
        if before is None:
            return ()
        nodes = (before[0], *self.cluster.reserved_others.get(key, ()))
        return nodes if self.choice.takes(pool, task, nodes, until, ends) else ()

    def will_have(self, task: Task, pool: Pool) -> None:
        """It counts for its owner and its array from now on."""
        if self.headroom is not None:
            self.headroom.give(task.project, task.user, pool.whole)
        if self.guarantees:
            self.guarantees.give(task.project, pool.whole)
        if pool.licenses:
            self.licenses.give(pool.licenses)
        if task.spec.array is not None:
            self.running[task.id] = self.running.get(task.id, 0) + 1

    # ------------------------------------------------------------ 4. what is first and does not fit

    def _pass_by(self, line: Line, head: Head, task: Task) -> Line:
        """Reserve a start for it, if it is its turn to have one, and go on with what may start before."""
        backfill, plan = self.policy.backfill, self.plan
        depth = 1 if backfill.name == "easy" else backfill.depth
        too_long = self.choice.too_long
        if len(plan.reservations) < depth:
            if not self._reserve(head.pool, task, head.position):
                line.drop()
                return line
            self.skip(line, head)
            return line.only_open() if len(plan.reservations) >= depth else line
        self.looked += 1
        if too_long and self.looked < backfill.look:
            self.skip(line, head)
        else:
            line.drop()
        return line

    def skip(self, line: Line, head: Head) -> None:
        head.skip_task()
        line.again(placed=False)

    def _reserve(self, pool: Pool, task: Task, position: int) -> bool:
        """False when it fits on no node, however empty: it holds up nobody."""
        key = task.key_at(position)
        if self.policy.backfill.name == "none":
            if not self.choice.ever_fits(pool):
                return False
            self.plan.reservations.append(Reservation(key, 0, NEVER))
            return True
        found = self.choice.reserve(pool, key, self.seconds(task), (task.project, task.user))
        if found is not None:
            self.plan.reservations.append(Reservation(key, *found))
            if pool.licenses:
                self.licenses.reserve(pool.licenses, found[1])
        return found is not None

    def _fill(self, line: Line) -> None:
        """What may start before the reservation, in an order of its own."""
        waiting: list[tuple[float, int, int, Pool, Task]] = []
        line = line.only_open()
        while (head := line.first()) is not None and len(waiting) < self.policy.backfill.look:
            task = head.task
            assert task is not None
            waiting.append((self._fill_rank(task), task.id, head.position, head.pool, task))
            self.skip(line, head)
        waiting.sort(key=lambda candidate: candidate[:3])
        for _, _, position, pool, task in waiting:
            if task.key_at(position) not in self.taken and not self.throttled(task) and self.within(task, pool):
                self.place(pool, task, position)

    def covers(self, task: Task) -> bool:
        """Whether its project is guaranteed what it asks for."""
        return self.guarantees is not None and self.guarantees.covers(task.project, task.spec.whole)

    def within(self, task: Task, pool: Pool) -> bool:
        if self.headroom is not None and self.headroom.over(task.project, task.user, pool.whole) is not None:
            self.licenses.too_long = False
            return False
        if not pool.licenses:
            return True
        return self.licenses.has(pool.licenses, self.now + seconds_of(self.policy.order, task.spec))

    def _fill_rank(self, task: Task) -> float:
        order, spec = self.policy.order, task.spec
        if self.policy.backfill.order == "submission":
            return task.submitted_at
        said = self.cluster.predict(task) if order.times == "predicted" else None
        seconds = seconds_of(order, spec, None if said is None else said.seconds)
        return seconds if self.policy.backfill.order == "shortest" else seconds * weight_of(order, spec)

    def seconds(self, task: Task) -> float:
        """How long its room is thought to be taken: the upper bound of what is predicted, where predictions are asked for."""
        said = self.cluster.predict(task) if self.by_prediction else None
        foreseen = None if said is None else getattr(said, self.policy.backfill.bound)
        return seconds_of(self.policy.order, task.spec, foreseen)
