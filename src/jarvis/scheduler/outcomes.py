"""PURE: what becomes of an element when its attempt starts, ends or is given back."""

from jarvis.core.inputs import Ended, Returned, Started
from jarvis.core.retry import (
    MAX_INFRA_LOSSES,
    POISON_NODES,
    Ending,
    backoff_seconds,
    should_retry,
)
from jarvis.core.states import HELD_BY_USER, INFRA_CAUSES, PENDING, TERMINAL, Cause, State
from jarvis.core.task import Element, Task
from jarvis.scheduler import gangs
from jarvis.scheduler.cluster import NodeView, Placed
from jarvis.scheduler.policy.attained import LEAST_ATTAINED
from jarvis.scheduler.timer import Timer
from jarvis.scheduler.turn import Turn

PREEMPTED = "Preempted"
"""Why something stops, or waits again, that made room for what is more urgent."""
_WISHED = {Cause.CANCELLED: State.CANCELLED, Cause.EXPIRED: State.EXPIRED}


def on_started(turn: Turn, view: NodeView, fact: Started) -> None:
    """``running`` is not worth a commit of its own: it joins the next one, and is dropped if the end came first."""
    placed = view.placed.get(fact.number)
    if placed is None:
        return
    attempt = turn.cluster.attempts.get(placed.key)
    if attempt is None or attempt.token != fact.token or not (attempt.ranks or attempt.number == fact.number):
        return
    view.begin(fact.number)
    if attempt.ranks:
        gangs.on_rank_started(turn, placed, attempt, fact)
        return
    attempt.started_at = max(turn.now - fact.age, attempt.assigned_at)
    element, task = turn.cluster.elements[placed.key], turn.cluster.tasks[placed.key.task]
    if element.state is State.ASSIGNED or (element.state is State.STARTING and fact.state is State.RUNNING):
        turn.move(task, element, fact.state)
        attempt.state = fact.state
        turn.touch_attempt(attempt)


def on_ended(turn: Turn, view: NodeView, fact: Ended) -> None:
    """Record the outcome once: an end whose number or token is not current changes nothing."""
    turn.recorded(view.node.id, (fact.number,))
    placed = view.placed.get(fact.number)
    attempt = turn.cluster.attempts.get(placed.key) if placed else None
    current = attempt is not None and attempt.token == fact.token and (attempt.ranks or attempt.number == fact.number)
    if placed is None or attempt is None or not current:
        turn.event("stale_end", node=view.node.id, number=fact.number, cause=str(fact.cause))
        return
    ending = Ending(fact.cause, fact.exit_code, fact.signal, fact.exception)
    if fact.held and fact.artifacts is not None:
        turn.cluster.holders.add(view.node.id, fact.artifacts, fact.held)
    if attempt.ranks:
        gangs.note_end(turn, placed, attempt, fact)
        over(turn, placed, ending, fact.message)
        return
    key, task = placed.key, turn.cluster.tasks[placed.key.task]
    element = turn.cluster.elements[key]
    if fact.usage is not None:
        if attempt.started_at is None:
            attempt.started_at = max(turn.now - fact.age - fact.usage.wall_s, attempt.assigned_at)
        turn.cluster.learn(placed.placement_class, task, fact.usage, fact.cause, turn.now)
    attempt.exit_code, attempt.signal, attempt.usage = fact.exit_code, fact.signal, fact.usage
    attempt.stdout, attempt.stderr = fact.stdout, fact.stderr
    attempt.result, attempt.result_digest, attempt.output = fact.result, fact.result_digest, fact.output
    attempt.artifacts = fact.artifacts
    settle(turn, task, element, ending, fact.message)


def over(turn: Turn, placed: Placed, ending: Ending, message: str = "") -> None:
    """What is placed there has ended: the attempt, or one rank of it."""
    attempt = turn.cluster.attempts[placed.key]
    if attempt.ranks:
        whole = gangs.rank_over(turn, placed, ending, message)
        if whole is None:
            return
        ending, message = whole, attempt.message
    settle(turn, turn.cluster.tasks[placed.key.task], turn.cluster.elements[placed.key], ending, message)


def settle(turn: Turn, task: Task, element: Element, ending: Ending, message: str = "") -> None:
    """End the current attempt of an element and decide what comes next."""
    after, reason = decide(turn, task, element, ending)
    if after in PENDING and task.spec.deadline is not None and task.spec.deadline <= turn.now:
        after, reason = State.EXPIRED, ""
    end_state = _attempt_state(ending, after)
    if after not in TERMINAL:
        _note_attained(turn, task, element)
    turn.end_attempt(element.key, end_state, ending.cause, message)
    element.exit_code, element.signal, element.cause = ending.exit_code, ending.signal, str(ending.cause)
    element.node, element.wish = None, ""
    if task.started_at is None:
        task.started_at = turn.now
    detail: dict[str, str | int | float] = {"cause": str(ending.cause)}
    if ending.exit_code is not None:
        detail["exit_code"] = ending.exit_code
    turn.move(task, element, after, reason, **detail)
    go_on(turn, task, element)


def _note_attained(turn: Turn, task: Task, element: Element) -> None:
    """What the ending attempt has had counts when its element is queued again."""
    cluster = turn.cluster
    attempt = cluster.attempts.get(element.key)
    if attempt is not None and cluster.order_of(task.spec.queue).name == LEAST_ATTAINED:
        cluster.attained[element.key] = cluster.had(task, attempt, turn.now)


def decide(turn: Turn, task: Task, element: Element, ending: Ending) -> tuple[State, str]:
    """The next state of the element, and why it waits if it does. Counts losses and failures."""
    if ending.cause is Cause.EXIT and ending.exit_code == 0:
        return State.SUCCEEDED, ""
    if ending.cause in INFRA_CAUSES:
        return _after_loss(turn, task, element)
    wished = _WISHED.get(ending.cause) or (State.CANCELLED if element.wish == "cancel" else None)
    if wished is not None:
        return wished, ""
    if element.wish == "withdraw" and ending.cause is Cause.RECALLED:
        return State.CANCELLED, ""
    again = ending.cause in (Cause.REQUEUED, Cause.PREEMPTED, Cause.RECALLED) or element.wish == "requeue"
    if not again:
        element.failures += 1
    element.preemptions += ending.cause is Cause.PREEMPTED
    if element.wish == "hold" and (again or should_retry(task.spec.retry, ending, element.failures)):
        return State.HELD, HELD_BY_USER
    if again:
        return State.QUEUED, PREEMPTED if ending.cause is Cause.PREEMPTED else ""
    if should_retry(task.spec.retry, ending, element.failures):
        jitter = (element.token * 0x9E3779B1 % (1 << 32)) / (1 << 32)
        element.eligible_at = turn.now + backoff_seconds(task.spec.retry, element.failures, jitter)
        return State.BACKOFF, "Backoff"
    return (State.TIMEOUT if ending.cause is Cause.TIMEOUT else State.FAILED), ""


def _after_loss(turn: Turn, task: Task, element: Element) -> tuple[State, str]:
    if element.wish == "cancel":
        return State.CANCELLED, ""
    if task.spec.on_lost == "never":
        return State.LOST, ""
    element.infra_losses += 1
    if element.node is not None and element.node not in element.lost_on:
        element.lost_on = (*element.lost_on, element.node)
    if len(element.lost_on) >= POISON_NODES:
        turn.alarm("quarantined", f"task {element.key} was lost on {len(element.lost_on)} nodes")
        return State.QUARANTINED, "JobHeldAdmin"
    if element.infra_losses > MAX_INFRA_LOSSES:
        return State.FAILED, ""
    return (State.HELD, HELD_BY_USER) if element.wish == "hold" else (State.QUEUED, "")


def _attempt_state(ending: Ending, after: State) -> State:
    """An attempt ends as itself, whatever the element does next."""
    if ending.cause is Cause.EXIT and ending.exit_code == 0:
        return State.SUCCEEDED
    if ending.cause is Cause.TIMEOUT:
        return State.TIMEOUT
    if ending.cause in INFRA_CAUSES:
        return State.LOST
    if ending.cause in (Cause.CANCELLED, Cause.REQUEUED, Cause.PREEMPTED, Cause.RECALLED):
        return State.CANCELLED
    return State.EXPIRED if after is State.EXPIRED else State.FAILED


def go_on(turn: Turn, task: Task, element: Element) -> None:
    """What its new state needs: a place in the queue, a timer."""
    if element.state is State.QUEUED:
        position = 0 if task.spec.array is None else task.spec.array.position_of(element.index) or 0
        turn.cluster.enqueue(task, position)
    elif element.state is State.BACKOFF and element.eligible_at is not None:
        turn.cluster.add_timer(Timer(element.eligible_at, "backoff", element.task, element.index))


def on_returned(turn: Turn, view: NodeView, fact: Returned) -> None:
    """Given back unstarted: not a try, so nothing is counted."""
    for number in fact.numbers:
        placed = view.placed.get(number)
        if placed is not None:
            over(turn, placed, Ending(Cause.RECALLED), fact.reason)


def stop(turn: Turn, element: Element, cause: Cause, wish: str, grace: float, *, by: str = "") -> None:
    """Tell the node to end the current attempt; what it then becomes is decided when the end arrives. A cancel stays one.
    ``by``: the element for which it is preempted."""
    attempt = turn.cluster.attempts[element.key]
    if element.wish == "cancel":
        cause, wish = Cause.CANCELLED, "cancel"
    element.wish = wish
    task = turn.cluster.tasks[element.task]
    if element.state is not State.CANCELLING:
        detail = {"by": by} if by else {}
        turn.move(task, element, State.CANCELLING, PREEMPTED if by else "", **detail)
    turn.changes.elements[element.key] = element
    gangs.stop_ranks(turn, attempt, cause, grace)
