"""PURE: what comes next in a lane and can only go where the one before it went: it is counted, not chosen."""

from typing import TYPE_CHECKING

from jarvis.core.ids import SOLO, ElementKey
from jarvis.scheduler.choice import Choice
from jarvis.scheduler.heads import Head, RankLine
from jarvis.scheduler.pools import Pool

if TYPE_CHECKING:
    from jarvis.scheduler.cycle import Cycle

_new = tuple.__new__


def place_following(cycle: "Cycle", line: RankLine, head: Head) -> None:
    """Place those behind the one placed last, which is the first of this line, as long as nothing else comes before them. There is
    one node for its class."""
    if cycle.by_prediction or cycle.headroom is not None or cycle.taken:
        return
    decisions, pool, first = cycle.plan.decisions, head.pool, head.task
    last = decisions[-1]
    most = min(_more(cycle.choice, pool, last.node, last.ahead), cycle.policy.budget - len(decisions))
    if most <= 0 or first is None:
        return
    if (array := first.spec.array) is not None:
        positions = head.follow_array(most)
        places = zip(array.indices(last.position + 1, len(positions)), positions, strict=True)
        own = [(_new(ElementKey, (first.id, index)), position, last.held) for index, position in places]
    else:
        near, on = cycle.choice.near, (last.node,)
        own = [
            (_new(ElementKey, (task.id, SOLO)), last.position, near.held(pool, task, on) if near.any_holds else 0)
            for task in head.follow(most, line.second())
        ]
    if own:
        same = last[2:-1]
        decisions += [_new(type(last), (key, position, *same, held)) for key, position, held in own]
        cycle.choice.account(pool, first, last.node, last.ahead, last.until, count=len(own))


def _more(choice: Choice, pool: Pool, node: int, is_ahead: bool) -> int:
    """How many more of a class its only node takes in the same way; 0 where it takes more to know that than counting."""
    if not pool.is_plain or pool.nodes > 1 or pool.gpu or pool.licenses or choice.booked or choice.horizons:
        return 0
    view = choice.nodes[node]
    if is_ahead:
        return choice.ahead_allowed(view, pool.placement_class) - choice.ahead_count(node, pool.placement_class)
    used, capacity = choice.used.get(node) or view.used, view.node.resources
    return min(
        ((capacity.get(n, 0) - used.get(n, 0)) // amount for n, amount in pool.need.items() if amount), default=0
    )
