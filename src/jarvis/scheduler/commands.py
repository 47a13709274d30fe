"""PURE: what users ask of things that exist. Each answers "" when done, or why it could not be."""

from collections.abc import Callable, Iterator

from jarvis.core.command import NewCommand
from jarvis.core.effects import Recall, Signal, ToNode
from jarvis.core.ids import ElementKey
from jarvis.core.states import HELD_BY_USER, ON_NODE, PENDING, TERMINAL, Cause, State
from jarvis.core.task import Element, Task
from jarvis.scheduler.bookings import on_booking
from jarvis.scheduler.cluster import NodeView
from jarvis.scheduler.gangs import alive
from jarvis.scheduler.nodes import on_node_lost, recall_unstarted
from jarvis.scheduler.outcomes import go_on, stop
from jarvis.scheduler.placement import ready_again, what_next
from jarvis.scheduler.quotas import on_quota
from jarvis.scheduler.timer import Timer
from jarvis.scheduler.turn import Turn

SIGSTOP, SIGCONT = 19, 18
CHECKPOINT_SIGNALS = frozenset({10, 12})
"""SIGUSR1 and SIGUSR2, on which programs write a checkpoint: less is lost when they are preempted afterwards."""


def on_command(turn: Turn, command: NewCommand, ident: int = 0) -> str:
    """Act on one command, stored under a number if anybody asked for it."""
    if command.verb.startswith("node_"):
        view = turn.cluster.nodes.get(command.node or 0)
        return "no such node" if view is None else _NODE_VERBS[command.verb](turn, view, command)
    if command.verb.startswith("quota_"):
        return on_quota(turn, command)
    if command.verb.startswith("booking_"):
        return on_booking(turn, command, ident)
    task = turn.cluster.tasks.get(command.task or 0)
    if task is None:
        return "already ended"
    if command.index is None and _whole_task(turn, task, command):
        return ""
    outcomes = [_TASK_VERBS[command.verb](turn, task, e, command) for e in list(_targets(turn, task, command))]
    return next((text for text in outcomes if text), "") if outcomes else "no such element"


def _whole_task(turn: Turn, task: Task, command: NewCommand) -> bool:
    """Elements without a row of their own follow the task in one step. True when there is nothing else to do."""
    after = {"cancel": State.CANCELLED, "hold": State.HELD}.get(command.verb)
    before = task.base if task.spec.array is not None else task.state
    if ElementKey(task.id) in turn.cluster.elements or before not in PENDING:
        return False
    if after is not None and before is not after and _unnamed(turn, task):
        reason = "" if after is State.CANCELLED else _held_by(command)
        turn.move_base(task, after, reason)
    elif command.verb == "release" and before is State.HELD:
        ready_again(turn, task)
    return task.id not in turn.cluster.tasks or not turn.cluster.by_task.get(task.id)


def _unnamed(turn: Turn, task: Task) -> int:
    if task.spec.array is None:
        return 1
    return task.size - task.next_position - len(turn.cluster.named_ahead.get(task.id, ()))


def _held_by(command: NewCommand) -> str:
    return "JobHeldAdmin" if command.admin else HELD_BY_USER


def _targets(turn: Turn, task: Task, command: NewCommand) -> Iterator[Element]:
    if command.index is None:
        for index in sorted(turn.cluster.by_task.get(task.id, ())):
            yield turn.cluster.elements[ElementKey(task.id, index)]
        return
    position = task.spec.array.position_of(command.index) if task.spec.array is not None else None
    if position is None:
        return
    if task.key_at(position) in turn.cluster.elements:
        yield turn.element_at(task, position)
    elif not turn.cluster.has_row(task, position) and task.base not in TERMINAL:
        element = turn.element_at(task, position)
        if element.state is State.QUEUED:
            turn.cluster.enqueue(task, position)
        yield element


def _cancel(turn: Turn, task: Task, element: Element, command: NewCommand) -> str:
    if element.state in PENDING:
        turn.move(task, element, State.CANCELLED, by=command.user)
    elif command.args.get("unstarted"):
        if element.state is State.ASSIGNED:
            _recall(turn, element, "withdraw")
    elif element.state in ON_NODE:
        grace = command.args.get("grace")
        stop(turn, element, Cause.CANCELLED, "cancel", task.spec.grace if grace is None else float(grace))
    return ""


def _hold(turn: Turn, task: Task, element: Element, command: NewCommand) -> str:
    if element.state is State.ASSIGNED:
        _recall(turn, element, "hold")
        return ""
    if element.state in ON_NODE:
        return f"task {element.key} is {element.state}: only what has not started can be held"
    if element.state is not State.HELD:
        turn.move(task, element, State.HELD, _held_by(command))
    return ""


def _recall(turn: Turn, element: Element, wish: str) -> None:
    """Ask its node to give it back; the wish comes true only if it has not begun there."""
    element.wish = wish
    turn.changes.elements[element.key] = element
    attempt = turn.cluster.attempts[element.key]
    for node, number in alive(attempt):
        turn.effects.append(ToNode(node, Recall(numbers=[number]), turn.cause_id))


def _release(turn: Turn, task: Task, element: Element, command: NewCommand) -> str:
    if element.state not in (State.HELD, State.QUARANTINED):
        return f"task {element.key} is {element.state}, not held"
    if element.reason == "JobHeldAdmin" and not command.admin:
        return f"task {element.key} is held by an administrator"
    element.lost_on = ()
    state, reason = what_next(turn, task) if element.state is State.HELD else (State.QUEUED, "")
    turn.move(task, element, state, reason)
    go_on(turn, task, element)
    return ""


def _requeue(turn: Turn, task: Task, element: Element, command: NewCommand) -> str:
    if element.state in ON_NODE:
        stop(turn, element, Cause.REQUEUED, "requeue", task.spec.grace)
    elif element.state is State.BACKOFF:
        turn.move(task, element, State.QUEUED)
        go_on(turn, task, element)
    return ""


def _signal(turn: Turn, task: Task, element: Element, command: NewCommand) -> str:
    if element.state not in (State.RUNNING, State.SUSPENDED):
        return f"task {element.key} is {element.state}: signals go to running tasks"
    signum = int(command.args.get("signum") or 15)
    if signum in CHECKPOINT_SIGNALS:
        for node, number in alive(turn.cluster.attempts[element.key]):
            turn.cluster.nodes[node].placed[number].saved_at = turn.now
    return _send_signal(turn, element, signum)


def _send_signal(turn: Turn, element: Element, signum: int) -> str:
    attempt = turn.cluster.attempts[element.key]
    for node, number in alive(attempt):
        turn.effects.append(ToNode(node, Signal(number=number, signum=signum), turn.cause_id))
    return ""


def _suspend(turn: Turn, task: Task, element: Element, command: NewCommand) -> str:
    if element.state is not State.RUNNING:
        return f"task {element.key} is {element.state}, not running"
    turn.move(task, element, State.SUSPENDED, by=command.user)
    return _send_signal(turn, element, SIGSTOP)


def _resume(turn: Turn, task: Task, element: Element, command: NewCommand) -> str:
    if element.state is not State.SUSPENDED:
        return f"task {element.key} is {element.state}, not suspended"
    turn.move(task, element, State.RUNNING, by=command.user)
    return _send_signal(turn, element, SIGCONT)


_TASK_VERBS: dict[str, Callable[[Turn, Task, Element, NewCommand], str]] = {
    "cancel": _cancel, "hold": _hold, "release": _release, "requeue": _requeue, "signal": _signal,
    "suspend": _suspend, "resume": _resume,
}  # fmt: skip


# ---------------------------------------------------------------- nodes


def _changed(turn: Turn, view: NodeView, what: str, command: NewCommand) -> str:
    view.node.reason = str(command.args.get("reason") or "") if what not in ("uncordoned", "resumed") else ""
    turn.changes.nodes[view.node.id] = view.node
    turn.event(f"node.{what}", node=view.node.id, by=command.user, reason=view.node.reason)
    return ""


def _node_cordon(turn: Turn, view: NodeView, command: NewCommand) -> str:
    view.node.cordoned = True
    return _changed(turn, view, "cordoned", command)


def _node_uncordon(turn: Turn, view: NodeView, command: NewCommand) -> str:
    view.node.cordoned = False
    return _changed(turn, view, "uncordoned", command)


def _node_drain(turn: Turn, view: NodeView, command: NewCommand) -> str:
    """No new work; what has not started goes elsewhere at once, what runs may finish until the deadline."""
    view.node.draining = True
    seconds = command.args.get("deadline_s")
    if seconds is not None:
        view.node.drain_deadline = turn.now + float(seconds)
        turn.cluster.add_timer(Timer(view.node.drain_deadline, "drain", view.node.id))
    recall_unstarted(turn, view)
    return _changed(turn, view, "draining", command)


def _node_resume(turn: Turn, view: NodeView, command: NewCommand) -> str:
    view.node.draining = view.node.cordoned = False
    view.node.drain_deadline = None
    return _changed(turn, view, "resumed", command)


def _node_label(turn: Turn, view: NodeView, command: NewCommand) -> str:
    for name, value in command.args.items():
        if value is None:
            view.node.labels.pop(name, None)
        else:
            view.node.labels[name] = str(value)
    return _changed(turn, view, "labelled", command)


def _node_taint(turn: Turn, view: NodeView, command: NewCommand) -> str:
    add, remove = command.args.get("add"), command.args.get("remove")
    taints = [t for t in view.node.taints if t not in (add, remove)]
    view.node.taints = tuple(taints + ([str(add)] if add else []))
    return _changed(turn, view, "tainted", command)


def _node_remove(turn: Turn, view: NodeView, command: NewCommand) -> str:
    """What runs there is lost with it, if that is wanted; fenced work must have passed its fence. One that is connected goes
    only if its membership has ended: else it would come back at once."""
    if view.placed and not command.args.get("force"):
        return f"node {view.node.name} still has {len(view.placed)} tasks: drain it first, or remove it with force"
    if view.session is not None and not command.args.get("expelled"):
        return f"node {view.node.name} is connected: stop its agent first"
    on_node_lost(turn, view)
    if view.placed:
        return (
            f"node {view.node.name} has {len(view.placed)} fenced tasks: they are given up when their fence has passed"
        )
    del turn.cluster.nodes[view.node.id]
    turn.cluster.holders.tell(view.node.id, {})
    turn.cluster.node_names.pop(view.node.name, None)
    turn.changes.nodes.pop(view.node.id, None)
    turn.changes.nodes_removed.append(view.node.id)
    turn.event("node.removed", node=view.node.id, by=command.user)
    return ""


_NODE_VERBS: dict[str, Callable[[Turn, NodeView, NewCommand], str]] = {
    "node_cordon": _node_cordon, "node_uncordon": _node_uncordon, "node_drain": _node_drain,
    "node_resume": _node_resume, "node_label": _node_label, "node_taint": _node_taint, "node_remove": _node_remove,
}  # fmt: skip
