"""PURE: sessions of nodes: who they are, and the comparison of what should run there with what does.

=====================  ===============================  ==========================================
database says          node says                        so
=====================  ===============================  ==========================================
assigned               in its backlog                   nothing
assigned               running                          the start is recorded
assigned               unknown, same boot               the assignment is said again (same number)
running, cancelling    in its backlog or running        nothing; a stop is said again
running, cancelling    unknown, same boot               ``supervisor_lost``; of a gang, a rank that had not begun is said
                                                        again, or is over if the gang is cancelling
any                    unknown, other boot              ``node_lost``
assigned               unknown, an earlier life of the  ``supervisor_lost``: it may have ended there and be forgotten
                       database
any                    ended                            the node says the end again; it is recorded
not current there      in its backlog or running        it is stopped
not current there      ended                            it may forget it
=====================  ===============================  ==========================================
"""

from jarvis.core.effects import Recall, Refused, Stop, ToNode, ToSession, Welcome
from jarvis.core.inputs import Hello, Known, NodeConnected, NodeDisconnected, Started
from jarvis.core.node import Node, NodeState
from jarvis.core.retry import Ending
from jarvis.core.states import Cause, State
from jarvis.scheduler import gangs
from jarvis.scheduler.cluster import NodeView, Placed
from jarvis.scheduler.outcomes import on_started, over
from jarvis.scheduler.turn import Turn

RETRY_S = 5.0
BACK_S = 1.0
NUMBER_JUMP = 1_000_000
"""More than a node can have been told in the time by which a standby may be late."""
BELIEVED_AGAIN_S = 300.0
"""No Hello is so late."""
STALE_S = 2.0
"""Twenty times as long as what is assigned ahead of room is meant to wait for it."""
LOST_MESSAGE_S = 6.0
"""A message that a node has not received by then, while it is heard, was lost on the way."""
_WISH_CAUSES = {
    "cancel": Cause.CANCELLED, "requeue": Cause.REQUEUED, "expire": Cause.EXPIRED, "preempt": Cause.PREEMPTED,
}  # fmt: skip


def on_node_connected(turn: Turn, item: NodeConnected) -> None:
    """Register or recognise the node, compare, and welcome it."""
    hello = item.hello
    view = _recognise(turn, hello)
    if view is None:
        reason = f"a node named {hello.name!r} is connected already: give this one another --name"
        turn.effects.append(ToSession(item.session, Refused(reason=reason, retry_s=RETRY_S), turn.cause_id, close=True))
        return
    if reason := _outdated(turn, view, hello):
        turn.effects.append(ToSession(item.session, Refused(reason=reason, retry_s=RETRY_S), turn.cause_id, close=True))
        return
    rebooted = view.node.boot_id not in ("", hello.boot_id)
    another_life = 0 < hello.incarnation < turn.cluster.incarnation
    if another_life:  # it may remember numbers that this life of the database does not
        view.node.next_number += NUMBER_JUMP
    _update(turn, view, item)
    known, windows = {k.number: k for k in hello.known}, turn.cluster.windows
    answer_at = len(turn.effects)
    _compare_ours(turn, view, known, rebooted=rebooted, another_life=another_life)
    current = {n for n, p in view.placed.items() if n in known and known[n].token == _token(turn, p)}
    turn.effects.insert(  # before what the comparison has to say on the session that it opens
        answer_at,
        ToSession(
            item.session,
            Welcome(
                node=view.node.id, incarnation=turn.cluster.incarnation, epoch=turn.cluster.epoch,
                heartbeat_s=windows.heartbeat_s, fence_s=windows.fence_s, grace_s=windows.grace_s,
                floor=turn.floor(view.node.id),
                forget=[n for n, k in known.items() if n not in current and k.state == "ended"],
                stop=[n for n, k in known.items() if n not in current and k.state != "ended"],
            ),
            turn.cause_id,
        ),
    )  # fmt: skip


def _outdated(turn: Turn, view: NodeView, hello: Hello) -> str:
    """A Hello may come late, to the next leader too: what it does not know would end as lost while it runs. Boots are told
    apart by the node's clock, which may have been set back: a node that is silent for long is believed again."""
    node = view.node
    if node.boot_id == hello.boot_id:
        return "a later session of this node is there already" if hello.ordinal < node.hello else ""
    in_use = view.session is not None or bool(view.placed)
    if 0 < hello.booted_at < node.booted_at and in_use and turn.now - view.heard_at < BELIEVED_AGAIN_S:
        return "a later boot of this node is there already"
    return ""


def _token(turn: Turn, placed: Placed) -> int:
    attempt = turn.cluster.attempts.get(placed.key)
    return attempt.token if attempt is not None else -1


def _recognise(turn: Turn, hello: Hello) -> NodeView | None:
    """The node that says Hello: by the id it was given before, else by a name nobody is connected under, else new."""
    cluster = turn.cluster
    if hello.node is not None and hello.node in cluster.nodes:
        return cluster.nodes[hello.node]
    named = cluster.node_names.get(hello.name)
    if named is not None:
        view = cluster.nodes[named]
        return view if view.session is None else None
    node = Node(id=cluster.next_node, name=hello.name, registered_at=turn.now)
    cluster.next_node += 1
    cluster.nodes[node.id] = NodeView(node)
    cluster.node_names[node.name] = node.id
    turn.event("node.registered", node=node.id, name=node.name)
    return cluster.nodes[node.id]


def _update(turn: Turn, view: NodeView, item: NodeConnected) -> None:
    hello, node = item.hello, view.node
    if node.name != hello.name and hello.name not in turn.cluster.node_names:
        turn.cluster.node_names.pop(node.name, None)
        turn.cluster.node_names[hello.name] = node.id
        node.name = hello.name
    view.session, view.over = item.session, None
    turn.cluster.holders.tell(node.id, {})  # it tells anew, if it is of a version that tells
    view.heard_at = view.connected_at = turn.now
    node.boot_id, node.booted_at, node.hello = hello.boot_id, hello.booted_at, hello.ordinal
    node.version, node.seen_at = hello.software, turn.now
    node.resources, node.taints, node.watch = hello.resources, hello.taints, hello.watch
    node.gpu_memory = hello.gpu_memory
    node.labels = {**node.labels, **hello.labels}
    if node.state is not NodeState.READY:
        node.state = NodeState.READY
        turn.event("node.back", node=node.id)
    turn.changes.nodes[node.id] = node
    turn.event("node.connected", node=node.id)


def _compare_ours(turn: Turn, view: NodeView, known: dict[int, Known], *, rebooted: bool, another_life: bool) -> None:
    """Every assignment that the database has on this node, against what the node said."""
    for number, placed in sorted(view.placed.items()):
        attempt = turn.cluster.attempts[placed.key]
        element, task = turn.cluster.elements[placed.key], turn.cluster.tasks[placed.key.task]
        said = known.get(number)
        if said is not None and said.token == attempt.token:
            if said.state == "running":
                on_started(turn, view, Started(number=number, token=attempt.token))
            if element.state is State.CANCELLING and said.state != "ended":
                cause = _WISH_CAUSES.get(element.wish, Cause.CANCELLED)
                stop = Stop(number=number, cause=cause, grace_s=task.spec.grace)
                turn.effects.append(ToNode(view.node.id, stop, turn.cause_id))
        elif rebooted:
            over(turn, placed, Ending(Cause.NODE_LOST), "the node was started anew")
        elif attempt.ranks and not another_life and not placed.begun:
            if element.state is State.CANCELLING:
                over(turn, placed, Ending(Cause.RECALLED), "stopped before it came to its node")
            else:
                gangs.say(turn, task, element, attempt, placed.rank)
        elif element.state is State.ASSIGNED and not another_life:
            array = task.spec.array
            position = 0 if array is None else array.position_of(element.index) or 0
            turn.send_assignment(task, element, attempt, position, element.cause or "")
        else:
            over(turn, placed, Ending(Cause.SUPERVISOR_LOST), "its node does not know it any more")


def on_node_disconnected(turn: Turn, item: NodeDisconnected) -> None:
    """A hint only: no new work goes there; whether the node is lost is for its heartbeats to say."""
    view = turn.cluster.nodes.get(item.node)
    if view is not None and view.session == item.session:
        view.session = None
        turn.event("node.disconnected", node=item.node)


def on_told(turn: Turn, view: NodeView, told: int) -> None:
    """How many messages the node says it has received: when some stay away, its session begins anew and all is compared."""
    if told >= view.told_mark:
        view.told_mark, view.told_mark_at = view.told, turn.now
    elif turn.now - view.told_mark_at > LOST_MESSAGE_S and view.session is not None:
        _end_session(turn, view, "messages to this node were lost", 0.1)
        turn.event("node.messages_lost", node=view.node.id)


def on_beat_of_ended(turn: Turn, view: NodeView) -> None:
    """It goes on in a session that was told to end: that message was lost, too, and is said again."""
    if turn.now - view.told_mark_at > LOST_MESSAGE_S:
        _end_session(turn, view, "this session is over", 0.1)


def _end_session(turn: Turn, view: NodeView, reason: str, retry_s: float) -> None:
    """Only a Hello compares what the node has with what it should have."""
    view.over, view.session = view.session or view.over, None
    view.told_mark_at = turn.now
    if view.over is not None:
        refused = Refused(reason=reason, retry_s=retry_s)
        turn.effects.append(ToSession(view.over, refused, turn.cause_id, close=True))


def on_fitness(turn: Turn, view: NodeView, unfit: str) -> None:
    """What the node's own check says. It is no drain of a person, and ends with what it says."""
    if unfit == view.node.unfit:
        return
    before, view.node.unfit = view.node.unfit, unfit
    turn.changes.nodes[view.node.id] = view.node
    if unfit and not before:
        recall_unstarted(turn, view)
    turn.event("node.unfit" if unfit else "node.fit", node=view.node.id, reason=unfit or before)


def on_hook_failed(turn: Turn, view: NodeView, reason: str) -> None:
    """Its prolog or epilog failed: it takes no more work until a person resumes it."""
    if not view.node.draining:
        view.node.draining, view.node.reason = True, reason
        turn.changes.nodes[view.node.id] = view.node
        recall_unstarted(turn, view)
        turn.alarm("node_drained", f"node {view.node.name}: {reason}")


def recall_unstarted(turn: Turn, view: NodeView, *, only_ahead: bool = False) -> None:
    """What has not started there goes elsewhere; ``only_ahead``: what it has room for stays."""
    unstarted = [
        number for number, placed in view.placed.items()
        if turn.cluster.elements[placed.key].state is State.ASSIGNED and (placed.ahead or not only_ahead)
    ]  # fmt: skip
    if unstarted:
        turn.effects.append(ToNode(view.node.id, Recall(numbers=unstarted), turn.cause_id))


def recall_stale(turn: Turn) -> None:
    """What is assigned ahead of room waits for longer than was meant, because what runs there does, or because its own kind takes
    longer than was thought: back into the queue with it, whose next may be on another node."""
    for view in turn.cluster.nodes.values():
        if view.ahead and view.session is not None and _waits_too_long(turn, view):
            view.stuck = True
            recall_unstarted(turn, view, only_ahead=True)


def _waits_too_long(turn: Turn, view: NodeView) -> bool:
    """The first of its backlog, counted from when the node could know of it."""
    for number in view.backlog:
        placed = view.placed.get(number)
        if placed is not None and placed.ahead and not placed.begun:
            since = max(turn.cluster.attempts[placed.key].assigned_at, view.connected_at)
            return turn.now - since > STALE_S
    return False


def on_node_suspect(turn: Turn, view: NodeView) -> None:
    view.node.state = NodeState.SUSPECT
    turn.changes.nodes[view.node.id] = view.node
    turn.event("node.suspect", node=view.node.id)


def on_node_heard(turn: Turn, view: NodeView) -> None:
    """A suspect was heard of again."""
    view.node.state = NodeState.READY
    turn.changes.nodes[view.node.id] = view.node
    turn.event("node.ready", node=view.node.id)


def on_node_lost(turn: Turn, view: NodeView) -> None:
    """Its heartbeats stopped: what may run elsewhere is superseded now, the fenced ones later. Its session ends, so that it
    comes back with a Hello, however alive that session may turn out to be."""
    if view.session is not None:
        _end_session(turn, view, "this node was not heard of and is taken for lost", BACK_S)
    view.node.state = NodeState.LOST
    turn.changes.nodes[view.node.id] = view.node
    turn.event("node.lost", node=view.node.id)
    for placed in list(view.placed.values()):
        if turn.cluster.tasks[placed.key.task].spec.on_lost != "fence":
            over(turn, placed, Ending(Cause.NODE_LOST), f"node {view.node.name} was not heard of any more")


def on_fence_passed(turn: Turn, view: NodeView) -> None:
    """By now the node itself has killed what it held under ``on_lost=fence``."""
    for placed in list(view.placed.values()):
        over(turn, placed, Ending(Cause.NODE_LOST), f"node {view.node.name} was lost and its fence has passed")
