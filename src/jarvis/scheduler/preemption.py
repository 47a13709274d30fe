"""PURE: preemption within a cycle: what still waits after all that was placed may have others stopped, a gang on several nodes.

A claim keeps the room on its node until its victims have ended and what it is for has started. It lives in the leader's memory
alone: a leader that takes over finds the victims stopping, and counts their room as nearly free when it looks again.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from heapq import nsmallest
from typing import TYPE_CHECKING, NamedTuple

from jarvis.core.attempt import Attempt
from jarvis.core.gpus import NO_ROOM, pick, with_back
from jarvis.core.ids import ElementKey
from jarvis.core.resources import Resources, subtract
from jarvis.core.states import State
from jarvis.core.task import Element, Task, TaskSpec
from jarvis.scheduler.claimed import keep_room
from jarvis.scheduler.cluster import Cluster, Placed
from jarvis.scheduler.heads import Head
from jarvis.scheduler.passing import Ahead, Reserved
from jarvis.scheduler.policy.affinity import carried
from jarvis.scheduler.policy.attained import level_at, put_off
from jarvis.scheduler.policy.guarantees import Guarantees
from jarvis.scheduler.policy.order import seconds_of, weight_of
from jarvis.scheduler.policy.preemption import (
    NOTHING_FOUND,
    Best,
    Candidate,
    Claim,
    Preemption,
    Search,
    Standing,
    beats,
    may_stop,
    some_set,
)
from jarvis.scheduler.pools import Pool
from jarvis.scheduler.task_queue import Entry

if TYPE_CHECKING:
    from jarvis.scheduler.choice import Choice
    from jarvis.scheduler.cycle import Cycle

LOOK_S = 1.0
"""How often it is asked whom what waits could preempt."""
LANE_LOOK = 8
"""Entries of a lane that are looked at: an old task may stand before an urgent one."""
PREEMPTORS_MOST = 16
"""Tasks a look for which victims are sought, those of the highest standing."""
NODES_MOST = 256
"""Nodes a task on which victims are sought."""
TRIED_MOST = 32
"""Of them on which the cheapest set is sought, those where it may be cheapest."""
STEPS_MOST = 2000
"""Of the search for the cheapest set, a task; what was found by then is taken."""
_STOPPABLE = frozenset({State.ASSIGNED, State.STARTING, State.RUNNING})


# ---------------------------------------------------------------- whom what waits may preempt


class Preemptor(NamedTuple):
    """What waits, and what it may take: of lower standing, and if its project is ``covered``, what others borrow."""

    covered: bool
    standing: Standing
    entry: Entry
    key: ElementKey
    task: Task
    position: int
    pool: Pool


def is_due(cycle: "Cycle") -> bool:
    """Whether victims are to be looked for in this cycle."""
    return bool(len(cycle.cluster.queue)) and cycle.now - cycle.cluster.victims_looked_at >= LOOK_S


def look_for_victims(cycle: "Cycle", rules: Preemption) -> "Look | None":
    """Claims for what waits, does not fit anywhere now and would fit without some that it may preempt. Gives what was looked at,
    as it then stands."""
    cycle.plan.looked_for_victims = True
    look: Look | None = None
    for waiting in preemptors(cycle):
        if look is None:
            look = Look(cycle, rules)
        if not cycle.within(waiting.task, waiting.pool) or cycle.throttled(waiting.task):
            continue
        claim = look.claim_for(waiting)
        if claim is not None:
            cycle.plan.claims[waiting.key] = claim
            keep_room(cycle, claim, waiting.task, waiting.pool)
            cycle.will_have(waiting.task, waiting.pool)
            for node in claim.nodes:
                look.changed(node)
    return look


def standing_of(tiers: Mapping[str, int], spec: TaskSpec, level: int = 0) -> Standing:
    return Standing(tiers.get(spec.queue, 0), spec.priority, level)


def standing_in(cycle: "Cycle", task: Task, key: ElementKey) -> Standing:
    """Of what waits."""
    had = cycle.cluster.attained.get(key, 0.0)
    level = level_in(cycle.cluster, cycle.policy.preemption, task, had, cycle.now)
    return standing_of(cycle.policy.queue_tiers, task.spec, level)


def level_in(cluster: Cluster, rules: Preemption | None, task: Task, attained: float, now: float) -> int:
    """Of a task that has had so much; 0 where that does not count."""
    if rules is None or not rules.attained:
        return 0
    return level_at(cluster.order_of(task.spec.queue), attained, now - task.submitted_at)


def shield(rules: Preemption, element: Element, attempt: Attempt, spec: TaskSpec, now: float) -> str | None:
    """Why what is on a node may not be stopped for anything more urgent; None if it may."""
    if element.state not in _STOPPABLE or element.wish:
        return "being stopped"
    if element.preemptions >= rules.times:
        return f"stopped {rules.times} times before"
    if now - (attempt.started_at or attempt.assigned_at) < rules.protect:
        return f"begun less than {rules.protect:g} s ago"
    return None if may_stop(rules, spec) else "never to be stopped"


def count_leaving(cluster: Cluster, guarantees: Guarantees) -> None:
    """Projects have lost already what is being stopped."""
    for key, element in cluster.elements.items():
        if element.state is State.CANCELLING:
            task = cluster.tasks[key.task]
            guarantees.give(task.project, task.spec.whole, -1)


def preemptors(cycle: "Cycle") -> list[Preemptor]:
    """The first of each lane that wait after all that the cycle placed; one element of a task at a time."""
    queue, plan = cycle.cluster.queue, cycle.plan
    done = {decision.key for decision in plan.decisions} | plan.claims.keys()
    claimed = {key.task for key in plan.claims}
    found: dict[int, Preemptor] = {}
    for placement_class in queue.classes():
        pool = cycle.pool(placement_class)
        for lane in queue.lanes(placement_class):
            head = Head(cycle.cluster, lane, pool)
            for _ in range(LANE_LOOK):
                task = _next_waiting(head, done)
                if task is None:
                    break
                key = task.key_at(head.position)
                if task.id not in claimed and head.entry is not None:
                    standing = standing_in(cycle, task, key)
                    one = Preemptor(cycle.covers(task), standing, head.entry, key, task, head.position, pool)
                    found.setdefault(task.id, one)
                head.skip_task()
    return nsmallest(PREEMPTORS_MOST, found.values(), key=_first_served)


def _first_served(waiting: Preemptor) -> tuple[bool, int, int, Entry]:
    return not waiting.covered, -waiting.standing.tier, -waiting.standing.priority, waiting.entry


def _next_waiting(head: Head, done: set[ElementKey]) -> Task | None:
    head.settle()
    while head.task is not None and head.task.key_at(head.position) in done:
        head.advance()
    return head.task


class Look:
    """One look at everything that runs, for all that wait."""

    def __init__(self, cycle: "Cycle", rules: Preemption) -> None:
        self.cycle, self.cluster, self.choice, self.rules = cycle, cycle.cluster, cycle.choice, rules
        self.left = rules.most
        self._levels = _levels(cycle) if rules.attained else {}
        self._standings = _standings(cycle, self._levels)
        self._on: dict[int, OnNode] = {}
        self._in_vain: set[Kind] = set()
        self._floors: dict[Kind, dict[int, float]] = {}
        """What preempting on a node costs a kind at least, where it would make room."""
        self.guarantees = cycle.guarantees
        if self.guarantees:
            count_leaving(self.cluster, self.guarantees)
        self.reserved = Reserved(cycle, rules, lambda task, key: standing_in(cycle, task, key))

    def kind_of(self, waiting: Preemptor) -> "Kind":
        beaten = frozenset(other for other in self._standings if beats(self.rules, waiting.standing, other))
        project = waiting.task.project if self.guarantees else ""
        ahead = Ahead() if waiting.covered else self.reserved.ahead_of(waiting.key, waiting.standing, waiting.task)
        return Kind(waiting.pool, beaten, waiting.covered, project, waiting.task.id if self.choice.booked else 0, ahead)

    def claim_for(self, waiting: Preemptor) -> Claim | None:
        kind = self.kind_of(waiting)
        if kind in self._in_vain or not (kind.beaten or kind.covered):
            return None
        if kind.ahead.reservations and not self.cycle.policy.backfill.reserves:
            return None  # what is first holds up all others
        return self.claim_of(kind)

    def claim_of(self, kind: "Kind") -> Claim | None:
        chosen = gang_victims(self, kind, self._nodes(kind)) if kind.pool.nodes > 1 else [self._cheapest(kind)]
        victims = {victim.key: victim for best, _ in chosen for victim in best.victims}
        if not victims:
            self._in_vain.add(kind)
            return None
        for victim in victims.values():
            if not victim.stopping:
                self.left -= 1
                if self.guarantees:
                    self.guarantees.give(victim.project, victim.whole, -1)
        for _, node in chosen:
            self._will_stop(node, victims)
        stopped = tuple((victim.key, victim.number) for best, _ in chosen for victim in best.victims)
        (_, first), *rest = chosen
        return Claim(first, stopped, tuple(node for _, node in rest))

    def _will_stop(self, node: int, gone: Collection[ElementKey]) -> None:
        self._on[node] = OnNode(
            (c._replace(loss=0.0, stopping=True) if c.key in gone else c for c in self.on(node).candidates),
            bool(self.guarantees),
        )  # fmt: skip

    def changed(self, node: int) -> None:
        """Room is kept there that was not: who found none there before finds none now."""
        for kind, floors in self._floors.items():
            if floors.pop(node, None) is not None:
                self._set_floor(kind, floors, node)

    def _cheapest(self, kind: "Kind") -> tuple[Best, int]:
        """The victims and their node; none too where it fits without any: then it is not room that it waits for."""
        floors = self._floors.get(kind)
        if floors is None:
            floors = self._floors[kind] = {}
            for node in self._nodes(kind):
                if not self._set_floor(kind, floors, node):
                    floors.clear()
                    break
        best, at, steps, tried = NOTHING_FOUND, 0, STEPS_MOST, 0
        for floor, node in sorted((floor, node) for node, floor in floors.items()):
            if floor > best.loss or tried >= TRIED_MOST:
                break
            question = Question(self, kind, node)
            if not question.enough(question.candidates):
                continue
            tried += 1
            quick = some_set(question.candidates, question.enough, question.permitted)
            search = Search(question.enough, question.permitted, steps)
            found = search.run(question.candidates, min(best, quick))
            steps = search.steps
            if found.victims and found < best:
                best, at = found, node
        return best, at

    def _nodes(self, kind: "Kind") -> list[int]:
        large = self.choice.large(kind.pool)
        if kind.task:
            task = self.cluster.tasks[kind.task]
            seconds = seconds_of(self.cycle.policy.order, task.spec)
            large = [n for n in large if not self.choice.books_out(n, task, seconds)]
        return large[:NODES_MOST]

    def _set_floor(self, kind: "Kind", floors: dict[int, float], node: int) -> bool:
        """False where it would fit without victims."""
        short = self.short(kind.pool, node)
        if self.fits(kind.pool, node):
            return bool(self.cluster.nodes[node].ahead)
        floor = self.on(node).floor(kind, short)
        if floor is not None:
            floors[node] = floor
        return True

    def fits(self, pool: Pool, node: int) -> bool:
        """Whether there is room without victims."""
        if self.short(pool, node):
            return False
        return not pool.gpu or pick(self.choice.gpus_of(node), pool.gpu) is not None

    def short(self, pool: Pool, node: int) -> list[tuple[str, int]]:
        """How much of what is missing there."""
        free = _free(self.choice, node)
        return [(name, less) for name, amount in pool.need.items() if (less := amount - free.get(name, 0)) > 0]

    def on(self, node: int) -> "OnNode":
        found = self._on.get(node)
        if found is None:
            placed = self.cluster.nodes[node].placed
            every = (self._candidate(number, one) for number, one in placed.items() if not one.ahead)
            found = self._on[node] = OnNode((one for one in every if one is not None), bool(self.guarantees))
        return found

    def _candidate(self, number: int, placed: Placed) -> Candidate | None:
        key = placed.key
        element, task = self.cluster.elements[key], self.cluster.tasks[key.task]
        attempt = self.cluster.attempts[key]
        had, level = self._levels.get(key, (0.0, 0))
        standing = standing_of(self.cycle.policy.queue_tiers, task.spec, level)
        candidate = Candidate(
            0.0, key, number, placed.need, placed.shares, task.project, standing, True, task.spec.whole
        )  # fmt: skip
        if element.state is State.CANCELLING:
            return candidate if element.wish == "preempt" else None
        if shield(self.rules, element, attempt, task.spec, self.cycle.now) is not None:
            return None
        since = attempt.started_at or attempt.assigned_at
        since = max(since, placed.saved_at or since) if attempt.started_at is not None else self.cycle.now
        weight = weight_of(self.cluster.order_of(task.spec.queue), task.spec)
        if self.rules.attained:
            return candidate._replace(loss=put_off(weight, had), stopping=False)
        return candidate._replace(loss=weight * max(self.cycle.now - since, 0.0), stopping=False)


def _levels(cycle: "Cycle") -> dict[ElementKey, tuple[float, int]]:
    """Of all that runs: what it has had, and its level."""
    cluster, now, rules = cycle.cluster, cycle.now, cycle.policy.preemption
    found = {}
    for key, attempt in cluster.attempts.items():
        task = cluster.tasks[key.task]
        had = cluster.had(task, attempt, now)
        found[key] = had, level_in(cluster, rules, task, had, now)
    return found


def _standings(cycle: "Cycle", levels: Mapping[ElementKey, tuple[float, int]]) -> set[Standing]:
    """Of all that runs."""
    cluster, tiers = cycle.cluster, cycle.policy.queue_tiers
    specs = ((cluster.tasks[key.task].spec, levels[key][1] if levels else 0) for key in cluster.attempts)
    return {Standing(tiers.get(q, 0), priority, n) for q, priority, n in {(s.queue, s.priority, n) for s, n in specs}}


class OnNode:
    """What may be stopped on a node at all, the least loss first, with sums by which most nodes are passed quickly."""

    __slots__ = ("_groups", "candidates")

    def __init__(self, candidates: Iterable[Candidate], by_project: bool) -> None:
        self.candidates = sorted(candidates)
        self._groups: dict[tuple[Standing, str], tuple[float, Resources]] = {}
        """(standing, project) → the least loss, and what they have together."""
        for one in self.candidates:
            _, needs = self._groups.setdefault((one.standing, one.project if by_project else ""), (one.loss, {}))
            for name, amount in one.need.items():
                needs[name] = needs.get(name, 0) + amount

    def floor(self, kind: "Kind", short: list[tuple[str, int]]) -> float | None:
        """What is lost at least; None where all together do not make room."""
        groups = [group for at, group in self._groups.items() if kind.may_take(*at)]
        if not groups or any(sum(needs.get(name, 0) for _, needs in groups) < less for name, less in short):
            return None
        return min(least for least, _ in groups)


class Kind(NamedTuple):
    """What decides which victims are right: equal ones find the same. ``beaten``: the standings that it may preempt;
    ``project`` matters where shares are guaranteed, and which ``task`` it is where nodes are booked."""

    pool: Pool
    beaten: frozenset[Standing]
    covered: bool
    project: str
    task: int = 0
    ahead: Ahead = Ahead()

    def may_take(self, standing: Standing, project: str) -> bool:
        return standing in self.beaten or (self.covered and project != self.project)


def gang_victims(look: Look, kind: Kind, nodes: list[int]) -> list[tuple[Best, int]]:
    """For each rank of a gang its node and whom it has stopped there, by node; nothing where not all ranks find room at once.

    Of the nodes those are taken on which the least is lost; what is free counts nothing. What has a rank on two of them is lost
    once, and so is thought to cost no less than it does.
    """
    found: list[tuple[Best, int]] = []
    steps, tried = STEPS_MOST, 0
    for floor, node in sorted(_floors_of(look, kind, nodes)):
        enough = len(found) >= kind.pool.nodes
        if tried >= max(TRIED_MOST, 2 * kind.pool.nodes) or (
            enough and floor > sorted(found)[kind.pool.nodes - 1][0].loss
        ):
            break
        question = Question(look, kind, node)
        if look.fits(kind.pool, node):
            if question.leaves_reserved(()):
                found.append((Best(0.0, 0, (), ()), node))
            continue
        if question.enough(question.candidates):
            tried += 1
            search = Search(question.enough, question.permitted, steps)
            best = search.run(question.candidates, some_set(question.candidates, question.enough, question.permitted))
            steps = search.steps
            if best.victims:
                found.append((best, node))
    return _together(look, kind, sorted(found))


def _floors_of(look: Look, kind: Kind, nodes: list[int]) -> Iterator[tuple[float, int]]:
    for node in nodes:
        floor = 0.0 if look.fits(kind.pool, node) else look.on(node).floor(kind, look.short(kind.pool, node))
        if floor is not None:
            yield floor, node


def _together(look: Look, kind: Kind, found: list[tuple[Best, int]]) -> list[tuple[Best, int]]:
    """As many as there are ranks, by node, of which all victims together may be stopped."""
    chosen: list[tuple[Best, int]] = []
    victims: dict[ElementKey, Candidate] = {}
    for best, node in found:
        more = victims | {victim.key: victim for victim in best.victims}
        if may_all_stop(look, kind, [*more.values()]):
            victims = more
            chosen.append((best, node))
            if len(chosen) == kind.pool.nodes:
                return sorted(chosen, key=lambda one: one[1])
    return []


class Question:
    """What a kind needs on a node, and whom it may stop there."""

    def __init__(self, look: Look, kind: Kind, node: int) -> None:
        self.look, self.kind = look, kind
        self.gpu = kind.pool.gpu
        self.gpus = look.choice.gpus_of(node) if self.gpu else NO_ROOM
        self.short = look.short(kind.pool, node)
        affinities = kind.pool.placement_class.affinities
        self.near = {a.key for a in affinities if a.kind == "near" and not a.weight}
        self.candidates = [c for c in look.on(node).candidates if self._may_take(c) and self._helps(c)]
        self._horizon = look.choice.horizons.get(node) if kind.ahead.on(node) else None
        self._view = look.cluster.nodes[node]
        self._others = look.reserved.others(kind.ahead, node) if self._horizon is not None else []

    def _may_take(self, candidate: Candidate) -> bool:
        if not self.kind.may_take(candidate.standing, candidate.project):
            return False
        return not self.near or not self.near & carried(self.look.cluster.tasks[candidate.key.task].spec)

    def _helps(self, candidate: Candidate) -> bool:
        """Whether it has anything of what is missing; of GPUs, the wrong parts may be free."""
        need = candidate.need
        return any(name in need for name, _ in self.short) or bool(self.gpu and candidate.shares)

    def enough(self, victims: Sequence[Candidate]) -> bool:
        for name, less in self.short:
            if sum(victim.need.get(name, 0) for victim in victims) < less:
                return False
        if self.gpu:
            back = [share for victim in victims for share in victim.shares]
            if pick(with_back(self.gpus, back), self.gpu) is None:
                return False
        return self.leaves_reserved(victims)

    def leaves_reserved(self, victims: Sequence[Candidate]) -> bool:
        """Whether in the place of these it puts off no start that is reserved for who comes before it."""
        if self._horizon is None:
            return True
        now, kind = self.look.cycle.now, self.kind
        freed = [(now, self._view.end_of(victim.number, now), victim.need) for victim in victims]
        return self._horizon.fits_beside(kind.pool.need, now + kind.ahead.seconds, [*self._others, *freed])

    def permitted(self, victims: Sequence[Candidate]) -> bool:
        return may_all_stop(self.look, self.kind, victims)


def may_all_stop(look: Look, kind: Kind, victims: Sequence[Candidate]) -> bool:
    """Not more than may be stopped in a cycle, and no other project below what it is guaranteed."""
    new = [victim for victim in victims if not victim.stopping]
    if len(new) > look.left:
        return False
    if not look.guarantees:
        return True
    others = {victim.project for victim in new} - {kind.project}
    return all(look.guarantees.spares(p, (v.whole for v in new if v.project == p)) for p in others)


def _free(choice: "Choice", node: int) -> Resources:
    """What nobody has and nothing is kept for, as the cycle stands; below 0 where what is kept is still taken."""
    free = subtract(choice.nodes[node].node.resources, choice.used.get(node) or choice.nodes[node].used)
    for need in choice.kept.get(node, ()):
        free = subtract(free, need)
    return free
