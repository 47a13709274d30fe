"""PURE: preemption in words: for whom something stops, for whose end something waits, and whom a task would preempt."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from jarvis.core.ids import ElementKey
from jarvis.core.states import State
from jarvis.core.task import Task
from jarvis.scheduler import whatif
from jarvis.scheduler.cluster import Cluster
from jarvis.scheduler.cycle import Cycle, Policy
from jarvis.scheduler.filters import Reason, eligible_reason
from jarvis.scheduler.outcomes import PREEMPTED
from jarvis.scheduler.passing import Ahead
from jarvis.scheduler.policy.guarantees import Guarantees
from jarvis.scheduler.policy.preemption import RECLAIMING, Claim, Preemption, beats
from jarvis.scheduler.preemption import (
    LANE_LOOK,
    NODES_MOST,
    Look,
    count_leaving,
    level_in,
    look_for_victims,
    preemptors,
    shield,
    standing_of,
)
from jarvis.scheduler.task_queue import class_of
from jarvis.scheduler.victims import named


def waiting_for(cluster: Cluster, key: ElementKey) -> Iterator[Reason]:
    """Of what is queued: what was stopped for it, and that it was stopped itself."""
    claim = cluster.claims.get(key)
    if claim is not None:
        yield Reason("WaitingForPreempted", _said(cluster, claim, "stop", "stops"))
    element = cluster.elements.get(key)
    if element is not None and element.state is State.QUEUED and element.reason == PREEMPTED:
        yield Reason(PREEMPTED, f"attempt {element.attempt} made room for something more urgent, and it goes on later")


def stopping_for(cluster: Cluster, key: ElementKey) -> Iterator[Reason]:
    """Of what is stopping: for whom, if it is preempted."""
    element = cluster.elements.get(key)
    if element is None or element.wish != "preempt":
        return
    found = [who for who, claim in cluster.claims.items() if any(victim == key for victim, _ in claim.victims)]
    yield Reason(
        PREEMPTED, f"it stops for {f'task {found[0]}' if found else 'something more urgent'}, and goes on later"
    )


def would_preempt(
    cluster: Cluster, policy: Policy, task: Task, now: float
) -> tuple[Reason | None, Reason | None]:  # fmt: skip
    """Whom a task that nobody submitted would have stopped, asked of the engine; and where that is nobody, what holds it back."""
    look = _look(cluster, policy, task, now)
    if look is None:
        return None, None
    claim = look.cycle.plan.claims.get(ElementKey(task.id))
    if claim is None:
        return None, _held_back(look, cluster, task)
    return Reason("WaitingForPreempted", _said(cluster, claim, "would stop", "would stop")), None


def held_back(cluster: Cluster, policy: Policy, task: Task, now: float) -> Reason | None:
    """Whom a task that waits could have stopped, if that did not put off what is reserved before it: asked likewise."""
    look = _look(cluster, policy, task, now)
    return None if look is None else _held_back(look, cluster, task)


def _held_back(look: Look, cluster: Cluster, task: Task) -> Reason | None:
    waiting = next((one for one in preemptors(look.cycle) if one.task.id == task.id), None)
    if waiting is None or not look.cycle.within(task, waiting.pool):
        return None
    kind = look.kind_of(waiting)
    claim = look.claim_of(kind._replace(ahead=Ahead())) if kind.ahead.reservations else None
    if claim is None:
        return None
    there = [one for one in kind.ahead.reservations if {one.node, *one.others} & {*claim.nodes}]
    first = (there or kind.ahead.reservations)[0].key
    said = _said(cluster, claim, "could stop", "could stop")
    return Reason("PutsOffReserved", f"{said}, but that would put off the start of task {first}, which goes first")


def _look(cluster: Cluster, policy: Policy, task: Task, now: float) -> Look | None:
    """Whom it may have stopped, after a cycle in which it is among what comes first; None where nothing is preempted for it."""
    rules = _rules(cluster, policy)
    if rules is None:
        return None
    before = whatif.before(cluster, policy, LANE_LOOK)
    asked = whatif.question(cluster, [*(other for ident, other in before.items() if ident != task.id), task])
    asked.elements, asked.victims_looked_at = cluster.elements, now
    policy = replace(policy, backfill=replace(policy.backfill, always=True), ahead_seconds=0.0)
    cycle = Cycle(asked, policy, now, cluster.last_seq)
    cycle.run()
    return look_for_victims(cycle, rules)


def _rules(cluster: Cluster, policy: Policy) -> Preemption | None:
    return policy.preemption or (RECLAIMING if Guarantees(cluster.quotas, cluster.ledger) else None)


def barred(cluster: Cluster, policy: Policy, task: Task, now: float) -> Reason | None:
    """Why a task that waits has nobody stopped although something of lower standing runs where it could; None where nothing does,
    or all of that may be stopped and would not be enough. Nodes beyond those on which victims are sought do not count."""
    rules, guarantees = _rules(cluster, policy), Guarantees(cluster.quotas, cluster.ledger)
    if rules is None:
        return None
    count_leaving(cluster, guarantees)
    covered, tiers = guarantees.covers(task.project, task.spec.whole), policy.queue_tiers
    mine = standing_of(
        tiers, task.spec, level_in(cluster, rules, task, cluster.attained.get(ElementKey(task.id), 0.0), now)
    )
    lower, shields = 0, dict[str, int]()
    for key in _placed_where_it_could_be(cluster, task):
        running, attempt = cluster.tasks[key.task], cluster.attempts[key]
        other = running.spec
        level = level_in(cluster, rules, running, cluster.had(running, attempt, now), now) if rules.attained else 0
        spared = running.project != task.project and not guarantees.spares(running.project, (other.whole,))
        borrowed = covered and running.project != task.project and not spared
        if borrowed or beats(rules, mine, standing_of(tiers, other, level)):
            lower += 1
            why = shield(rules, cluster.elements[key], attempt, other, now)
            if why is None and spared:
                why = f"guaranteed to project {running.project}"
            if why is not None:
                shields[why] = shields.get(why, 0) + 1
    if not shields:
        return None
    which = "borrowed or of lower standing" if covered else "of lower standing"
    run = f"{lower} attempt{'s' if lower > 1 else ''} {which} on its nodes"
    counts = ", ".join(f"{count} {why}" for why, count in sorted(shields.items()))
    return Reason("PreemptsNobody", f"of {run} not all may be stopped: {counts}")


def _placed_where_it_could_be(cluster: Cluster, task: Task) -> Iterator[ElementKey]:
    placement_class = class_of(task.spec)
    able = (view for view in cluster.nodes.values() if eligible_reason(view, placement_class) is None)
    for view in islice(able, NODES_MOST):
        for placed in view.placed.values():
            if not placed.ahead:
                yield placed.key


def _said(cluster: Cluster, claim: Claim, many: str, one: str) -> str:
    several = len({victim for victim, _ in claim.victims}) > 1
    where = ", ".join(cluster.nodes[node].node.name for node in claim.nodes)
    return f"task{'s' if several else ''} {named(claim)} on {where} {many if several else one} for it"
