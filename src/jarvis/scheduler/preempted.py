"""PURE: preemption in words: for whom something stops, for whose end something waits, and whom a task would preempt."""

from collections.abc import Iterator
from dataclasses import replace

from jarvis.core.ids import ElementKey
from jarvis.core.states import State
from jarvis.core.task import Task
from jarvis.scheduler import whatif
from jarvis.scheduler.cluster import Cluster
from jarvis.scheduler.cycle import Policy, plan_cycle
from jarvis.scheduler.filters import Reason
from jarvis.scheduler.outcomes import PREEMPTED
from jarvis.scheduler.policy.preemption import Claim, Preemption
from jarvis.scheduler.victims import NAMED_MOST, named

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
    claim = _would_claim(cluster, policy, task, now)
    return None if claim is None else Reason("WaitingForPreempted", _said(cluster, claim, "would stop", "would stop"))


def _would_claim(cluster: Cluster, policy: Policy, task: Task, now: float) -> Claim | None:
    asked = whatif.question(cluster, [task])
    asked.elements, asked.victims_looked_at, asked.claims = cluster.elements, LOOKED_LONG_AGO, {}
    return plan_cycle(asked, replace(policy, ahead_seconds=0.0), now, seed=cluster.last_seq).claims.get(
        ElementKey(task.id)
    )


def protected(cluster: Cluster, policy: Policy, task: Task, now: float) -> Reason | None:
    """Whom it would have stopped if they were not left alone for the moment, or for good: they began just now, or were stopped
    often enough. None where nothing can be stopped for it anyway, or something is."""
    rules = policy.preemption
    if rules is None or _would_claim(cluster, policy, task, now) is not None:
        return None
    unprotected = replace(policy, preemption=replace(rules, protect=0.0, times=1 << 30))
    claim = _would_claim(cluster, unprotected, task, now)
    if claim is None:
        return None
    said = [text for victim, _ in claim.victims if (text := _spared(cluster, rules, victim, now))]
    where = cluster.nodes[claim.node].node.name
    more = f" and {len(said) - NAMED_MOST} more" if len(said) > NAMED_MOST else ""
    return Reason("VictimsProtected", f"on {where} " + ", ".join(said[:NAMED_MOST]) + more)


def _spared(cluster: Cluster, rules: Preemption, victim: ElementKey, now: float) -> str:
    """Why it is left alone; "" where it is not."""
    element, attempt = cluster.elements[victim], cluster.attempts[victim]
    left = rules.protect - (now - (attempt.started_at or attempt.assigned_at))
    if element.preemptions >= rules.times:
        return f"task {victim} was preempted {element.preemptions} times, as often as may be"
    return f"task {victim} is left alone for {left:.0f} s more after its start" if left > 0 else ""


def _said(cluster: Cluster, claim: Claim, many: str, one: str) -> str:
    several = len(claim.victims) > 1
    where = cluster.nodes[claim.node].node.name
    return f"task{'s' if several else ''} {named(claim)} on {where} {many if several else one} for it"
