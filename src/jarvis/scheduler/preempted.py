"""PURE: preemption in words: for whom something stops, for whose end something waits, and whom a task would preempt."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from jarvis.core.ids import ElementKey
from jarvis.core.states import State
from jarvis.core.task import Task
from jarvis.scheduler import whatif
from jarvis.scheduler.cluster import Cluster
from jarvis.scheduler.cycle import Policy, plan_cycle
from jarvis.scheduler.filters import Reason, eligible_reason
from jarvis.scheduler.outcomes import PREEMPTED
from jarvis.scheduler.policy.guarantees import Guarantees
from jarvis.scheduler.policy.preemption import RECLAIMING, Claim, beats
from jarvis.scheduler.preemption import NODES_MOST, count_leaving, level_in, shield, standing_of
from jarvis.scheduler.task_queue import class_of
from jarvis.scheduler.victims import named

LOOKED_LONG_AGO = float("-inf")


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


def would_preempt(cluster: Cluster, policy: Policy, task: Task, now: float) -> Reason | None:
    """Whom a task that nobody submitted would have stopped, asked of the engine."""
    asked = whatif.question(cluster, [task])
    asked.elements, asked.victims_looked_at = cluster.elements, LOOKED_LONG_AGO
    claim = plan_cycle(asked, replace(policy, ahead_seconds=0.0), now, seed=cluster.last_seq).claims.get(
        ElementKey(task.id)
    )
    return None if claim is None else Reason("WaitingForPreempted", _said(cluster, claim, "would stop", "would stop"))


def barred(cluster: Cluster, policy: Policy, task: Task, now: float) -> Reason | None:
    """Why a task that waits has nobody stopped although something of lower standing runs where it could; None where nothing does,
    or all of that may be stopped and would not be enough. Nodes beyond those on which victims are sought do not count."""
    guarantees = Guarantees(cluster.quotas, cluster.ledger)
    rules = policy.preemption or (RECLAIMING if guarantees else None)
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
