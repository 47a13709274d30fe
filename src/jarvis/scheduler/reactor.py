"""PURE: from inputs to a turn: each handler lives with its subject, this file only knows which input goes where."""

from collections import Counter
from collections.abc import Iterator

from jarvis.core import resources as vector
from jarvis.core.attempt import Attempt
from jarvis.core.effects import AckFrame
from jarvis.core.ids import ElementKey
from jarvis.core.inputs import (
    CommandsTaken,
    Ended,
    Fact,
    Input,
    NodeConnected,
    NodeDisconnected,
    NodeReported,
    NodesSeen,
    ReportTaken,
    Returned,
    Started,
    TasksTaken,
)
from jarvis.core.states import ON_NODE, PENDING, Cause, State
from jarvis.core.task import Task
from jarvis.scheduler import alike, gangs, nodes
from jarvis.scheduler.bookings import advance
from jarvis.scheduler.cluster import Cluster, NodeView, Placed
from jarvis.scheduler.commands import on_command
from jarvis.scheduler.cycle import Plan, Policy, plan_cycle
from jarvis.scheduler.outcomes import go_on, on_ended, on_returned, on_started, stop
from jarvis.scheduler.placement import on_begin, on_tasks_ended
from jarvis.scheduler.policy.order import seconds_of
from jarvis.scheduler.policy.preemption import Preemption
from jarvis.scheduler.quotas import write_down
from jarvis.scheduler.task_queue import class_of
from jarvis.scheduler.timer import Timer
from jarvis.scheduler.turn import Turn
from jarvis.scheduler.victims import stop_victims

LOOK_S = 1.0
"""How often all nodes are compared with what is known of them; at once when something was heard that may change them."""
REASON_MOST = 200
REBUILT_AT_ONCE = 250
"""Tasks between two pauses: a few thousandths of a second."""


def handle(turn: Turn, item: Input) -> None:
    """Let one input have its consequences, down to the tasks that waited for what ended."""
    turn.cause_id = item.cause_id
    if isinstance(item, NodeReported):
        _on_reported(turn, item)
    elif isinstance(item, TasksTaken):
        alike.take(turn, item.tasks, item.ended)
        if len(turn.cluster.tasks) >= turn.cluster.parked_from:
            _park(turn, item.tasks)
    elif isinstance(item, CommandsTaken):
        for command in item.commands:
            turn.changes.commands_done[command.id] = on_command(turn, command.body, command.id)
    elif isinstance(item, ReportTaken):
        _on_report_taken(turn, item)
    elif isinstance(item, NodesSeen):
        _on_seen(turn, item)
    elif isinstance(item, NodeConnected):
        nodes.on_node_connected(turn, item)
    elif isinstance(item, NodeDisconnected):
        nodes.on_node_disconnected(turn, item)
    on_tasks_ended(turn)


def _park(turn: Turn, tasks: list[Task]) -> None:
    for task in tasks:
        if task.state is not State.QUEUED or task.id in turn.changes.tasks:
            continue
        if turn.cluster.tasks.get(task.id) is task:
            turn.cluster.park(task)


def _on_reported(turn: Turn, item: NodeReported) -> None:
    view = turn.cluster.nodes.get(item.node)
    if view is None or view.session != item.session:
        return
    view.heard_at = turn.now
    _on_facts(turn, view, item.facts)
    turn.effects.append(AckFrame(item.session, item.node, item.seq, turn.cause_id))


def _on_report_taken(turn: Turn, item: ReportTaken) -> None:
    """Of whatever session: numbers and tokens tell what is current."""
    view = turn.cluster.nodes.get(item.node)
    if view is not None:
        _on_facts(turn, view, item.facts)
    turn.changes.reports_done.append(item.report)


def _on_facts(turn: Turn, view: NodeView, facts: list[Fact]) -> None:
    at = 0
    while at < len(facts):
        alike_ones = alike.succeed(turn, view, facts, at)
        if not alike_ones:
            _on_fact(turn, view, facts[at])
        at += alike_ones or 1


def _on_fact(turn: Turn, view: NodeView, fact: Fact) -> None:
    if isinstance(fact, Ended):
        on_ended(turn, view, fact)
    elif isinstance(fact, Started):
        on_started(turn, view, fact)
    elif isinstance(fact, Returned):
        on_returned(turn, view, fact)
    if not isinstance(fact, Started) and fact.drain:
        nodes.on_hook_failed(turn, view, fact.drain[:REASON_MOST])


def _on_seen(turn: Turn, item: NodesSeen) -> None:
    for node, health in item.seen.items():
        view = turn.cluster.nodes.get(node)
        if view is not None:
            view.heard_at = view.node.seen_at = turn.now
            if health:  # else only its Hello was heard
                view.node.health = health
                nodes.on_fitness(turn, view, item.unfit.get(node, ""))
            if view.over is not None:
                nodes.on_beat_of_ended(turn, view)
            elif node in item.told:
                nodes.on_told(turn, view, item.told[node])
    for node, holds in item.holds.items():
        if node in turn.cluster.nodes:
            turn.cluster.holders.tell(node, holds)


def run_timers(turn: Turn) -> None:
    """Everything whose instant has come."""
    for timer in turn.cluster.due_timers(turn.now):
        turn.cause_id = f"timer-{timer.kind}-{timer.task}"
        _on_timer(turn, timer)
        on_tasks_ended(turn)


def _on_timer(turn: Turn, timer: Timer) -> None:
    if timer.kind == "drain":
        _drain_deadline(turn, timer.task)
        return
    task = turn.cluster.tasks.get(timer.task)
    if task is None:
        return
    if timer.kind == "deadline":
        _expire(turn, task)
    elif timer.kind == "begin":
        on_begin(turn, task)
    elif timer.kind == "backoff":
        element = turn.cluster.elements.get(ElementKey(timer.task, timer.index))
        if element is not None and element.state is State.BACKOFF:
            turn.move(task, element, State.QUEUED)
            go_on(turn, task, element)


def _expire(turn: Turn, task: Task) -> None:
    """The total deadline passed: what waits is over, what runs is stopped."""
    for index in sorted(turn.cluster.by_task.get(task.id, ())):
        element = turn.cluster.elements[ElementKey(task.id, index)]
        if element.state in ON_NODE:
            stop(turn, element, Cause.EXPIRED, "expire", task.spec.grace)
        elif element.state in PENDING:
            turn.move(task, element, State.EXPIRED)
    before = task.base if task.spec.array is not None else task.state
    has_base = task.spec.array is not None or task.id not in turn.cluster.by_task
    if task.id in turn.cluster.tasks and before in PENDING and has_base:
        turn.move_base(task, State.EXPIRED)


def _drain_deadline(turn: Turn, node: int) -> None:
    view = turn.cluster.nodes.get(node)
    if view is None or not view.node.draining or view.node.drain_deadline is None:
        return
    for placed in list(view.placed.values()):
        task = turn.cluster.tasks[placed.key.task]
        stop(turn, turn.cluster.elements[placed.key], Cause.REQUEUED, "requeue", task.spec.grace)


def adopt(cluster: Cluster, policy: Policy) -> None:
    """Let a memory without tasks follow a policy: ranks are made when something is queued."""
    cluster.order, cluster.queue_orders = policy.order, policy.queue_orders
    cluster.ranks_change = any(order.may_change for order in (policy.order, *policy.queue_orders.values()))
    cluster.weights, cluster.ahead_seconds = policy.fairness.weights, policy.ahead_seconds
    cluster.ledger.half_life = policy.fairness.half_life
    cluster.pools.filters, cluster.plugged = policy.filters, policy.plugged
    cluster.licenses.total, cluster.licenses.keeps = policy.licenses, policy.backfill.name != "skip"


def place(turn: Turn, policy: Policy) -> Plan:
    """Plan a cycle on the memory as it stands and apply it."""
    cluster = turn.cluster
    if cluster.bookings:
        advance(turn)
    if cluster.nodes_changed or turn.now - cluster.looked_at >= LOOK_S:
        closely, cluster.nodes_changed, cluster.looked_at = cluster.nodes_changed, False, turn.now
        cluster.look_at_nodes(closely)
    plan = plan_cycle(cluster, policy, turn.now, seed=cluster.last_seq)
    apply(turn, plan, policy.preemption)
    write_down(turn)
    cluster.history.look(cluster, turn.now)
    return plan


def apply(turn: Turn, plan: Plan, rules: Preemption | None = None) -> None:
    """What a cycle decided becomes so."""
    cluster = turn.cluster
    alike.assign(turn, plan.decisions)
    if cluster.holders.of:
        cluster.holders.count(decision.held for decision in plan.decisions)
    for lane, count in plan.consumed:
        cluster.queue.drop_head(lane, count)
    stop_victims(turn, plan, rules)
    cluster.reservations = {r.key: (r.node, r.start) for r in plan.reservations}
    cluster.reserved_others = {r.key: r.others for r in plan.reservations if r.others}


def rebuild_tasks(cluster: Cluster, tasks: list[Task]) -> Iterator[None]:
    """Put live tasks, whose elements are in memory already, and those with lower ids as well, back into memory, queue, timers and
    indices; pauses now and then, so that whoever iterates can do something else between."""
    for at in range(0, len(tasks), REBUILT_AT_ONCE):
        some = tasks[at : at + REBUILT_AT_ONCE]
        cluster.tasks.update((task.id, task) for task in some)
        for owner, count in Counter((task.project, task.user) for task in some).items():
            cluster.ledger.count_task(*owner, count)
        for task in some:
            _rebuild_task(cluster, task)
            cluster.park(task)
        yield


def rebuild_attempts(cluster: Cluster) -> None:
    """What attempts hold of nodes, shares and licences, when all tasks are there."""
    for attempt in cluster.attempts.values():
        task = cluster.tasks[attempt.task]
        cluster.ledger.change(task.project, task.user, task.spec.whole, attempt.assigned_at, 1)
        cluster.licenses.take(task.spec.licenses)
        for node in attempt.nodes:
            cluster.carriers.add(task.spec, node)
    for attempt, rank in sorted(gangs.each_rank(cluster.attempts.values()), key=_begun_first):
        _rebuild_placed(cluster, attempt, rank)


def _begun_first(placed: tuple[Attempt, int]) -> tuple[bool, int]:
    attempt, at = placed
    rank = attempt.ranks[at] if attempt.ranks else attempt
    return rank.started_at is None, rank.number


def _rebuild_placed(cluster: Cluster, attempt: Attempt, at: int) -> None:
    """What started has its room first; what then does not fit is in its node's backlog."""
    rank, task = attempt.ranks[at] if attempt.ranks else attempt, cluster.tasks[attempt.task]
    spec = task.spec
    view = cluster.nodes.get(rank.node)
    if view is not None:
        ahead = bool(view.ahead) or not vector.fits(spec.resources, view.free)
        key, begun = ElementKey(attempt.task, attempt.index), rank.started_at is not None
        until = (rank.started_at or attempt.assigned_at) + seconds_of(cluster.order, spec)
        view.place(rank.number, Placed(key, class_of(spec), spec.resources, ahead, begun, until, rank=at))


def _rebuild_task(cluster: Cluster, task: Task) -> None:
    spec = task.spec
    if spec.deadline is not None:
        cluster.add_timer(Timer(spec.deadline, "deadline", task.id))
    waits = {d.task for d in spec.after if d.task in cluster.tasks} if spec.after else None
    base = task.base if spec.array is not None else task.state
    if waits:
        cluster.waits_for[task.id] = waits
        for other in waits:
            cluster.dependents.setdefault(other, set()).add(task.id)
    elif spec.begin is not None and (State.WAITING in (task.state, base) or task.counts.get(State.WAITING)):
        cluster.add_timer(Timer(spec.begin, "begin", task.id))
    own = cluster.by_task.get(task.id, ())
    for index in own:
        _rebuild_element(cluster, task, index)
    if base is State.QUEUED and (spec.array is not None or not own):
        cluster.enqueue(task, task.next_position, is_range=spec.array is not None)


def _rebuild_element(cluster: Cluster, task: Task, index: int) -> None:
    element = cluster.elements[ElementKey(task.id, index)]
    position = 0 if task.spec.array is None else task.spec.array.position_of(index) or 0
    if element.state is State.QUEUED:
        cluster.enqueue(task, position)
    elif element.state is State.BACKOFF:
        cluster.add_timer(Timer(element.eligible_at or 0.0, "backoff", task.id, index))
    elif element.state in ON_NODE and task.spec.array is not None:
        cluster.on_nodes[task.id] = cluster.on_nodes.get(task.id, 0) + 1
    if task.spec.array is not None and position >= task.next_position:
        cluster.named_ahead.setdefault(task.id, set()).add(position)
