"""PURE: what a cycle decided about preemption becomes so: victims are told to stop, each with its reason."""

from jarvis.core.effects import Recall, ToNode
from jarvis.core.ids import ElementKey
from jarvis.core.states import Cause, State
from jarvis.scheduler.cycle import Plan
from jarvis.scheduler.outcomes import stop
from jarvis.scheduler.policy.preemption import RECLAIMING, Claim, Preemption
from jarvis.scheduler.turn import Turn

NAMED_MOST = 10


def stop_victims(turn: Turn, plan: Plan, rules: Preemption | None) -> None:
    """Tell the victims of new claims, and remember the claims there are."""
    cluster = turn.cluster
    if plan.looked_for_victims:
        cluster.victims_looked_at = turn.now
    for key, claim in plan.claims.items():
        if cluster.claims.get(key) != claim:
            _stop_for(turn, key, claim, rules or RECLAIMING)
    cluster.claims = plan.claims


def _stop_for(turn: Turn, key: ElementKey, claim: Claim, rules: Preemption) -> None:
    for victim, _ in claim.victims:
        element = turn.cluster.elements[victim]
        if element.state is not State.CANCELLING:
            stop(turn, element, Cause.PREEMPTED, "preempt", rules.grace, by=str(key))
    for node in claim.nodes:
        ahead = [number for number, placed in turn.cluster.nodes[node].placed.items() if placed.ahead]
        if ahead:
            turn.effects.append(ToNode(node, Recall(numbers=ahead), turn.cause_id))
    turn.event("preempts", key, node=claim.node, victims=named(claim))


def named(claim: Claim) -> str:
    """Its victims, in words."""
    keys = list(dict.fromkeys(str(victim) for victim, _ in claim.victims))
    return ", ".join(keys[:NAMED_MOST]) + (f" and {len(keys) - NAMED_MOST} more" if len(keys) > NAMED_MOST else "")
