"""PURE: the invariants of the leader's memory, re-derived from scratch."""

from jarvis.core import invariants
from jarvis.core import resources as vector
from jarvis.core.gpus import room_of, without
from jarvis.core.invariants import require
from jarvis.core.states import State
from jarvis.scheduler.cluster import Cluster, NodeView
from jarvis.scheduler.gangs import alive
from jarvis.scheduler.policy.affinity import Carriers
from jarvis.scheduler.policy.locality import Holders
from jarvis.scheduler.task_queue import class_of


def check_cluster(cluster: Cluster) -> None:
    """Raise :class:`InvariantBroken` naming the first thing that does not hold."""
    invariants.check_elements(cluster.tasks, cluster.elements)
    invariants.check_attempts(cluster.elements, cluster.attempts)
    for view in cluster.nodes.values():
        holding = [placed.need for placed in view.placed.values() if not placed.ahead]
        invariants.check_node(view.node, view.used, holding)
        ahead = sum(1 for placed in view.placed.values() if placed.ahead)
        require(ahead == sum(view.ahead.values()), f"node {view.node.name}: {ahead} ahead, counted {view.ahead}")
        _check_gpus(view)
        expected = {number for number, placed in view.placed.items() if not (placed.ahead or placed.begun)}
        require(expected == set(view.expected), f"node {view.node.name}: {expected} are to begin, not {view.expected}")
        for number, placed in view.placed.items():
            attempt = cluster.attempts.get(placed.key)
            numbers = () if attempt is None else alive(attempt)
            at = (view.node.id, number)
            require(at in numbers, f"number {number} of {placed.key} is not current")
    gangs = {key: attempt for key, attempt in cluster.attempts.items() if cluster.tasks[key.task].spec.nodes > 1}
    invariants.check_gangs(cluster.tasks, cluster.elements, gangs)
    for key, attempt in gangs.items():
        for node, number in alive(attempt):
            there = cluster.nodes[node].placed.get(number)
            require(there is not None and there.key == key, f"a rank of {key} has no place on node {node}")
    _check_queue(cluster)
    _check_licenses(cluster)
    _check_carriers(cluster)
    _check_ledger(cluster)
    _check_holders(cluster)
    for task_id in cluster.waits_for:
        require(task_id in cluster.tasks, f"task {task_id} waits and is not live")


def _check_gpus(view: NodeView) -> None:
    """No GPU is given away twice, neither by fraction nor by memory; what is taken is what those who are placed have."""
    shares = sorted(share for placed in view.placed.values() for share in placed.shares)
    require(shares == sorted(view.shares), f"node {view.node.name}: GPUs {shares} are given, counted {view.shares}")
    room = without(room_of(view.node.resources, view.node.gpu_memory), shares)
    require(view.gpus == room, f"node {view.node.name}: its GPUs have {room} free, counted {view.gpus}")
    require(min((*room.parts, *room.memory), default=0) >= 0, f"node {view.node.name}: its GPUs have {room} free")


def _check_ledger(cluster: Cluster) -> None:
    """What each owner holds is the sum of the attempts there are."""
    held: dict[tuple[str, str], dict[str, int]] = {}
    for key in cluster.attempts:
        task = cluster.tasks[key.task]
        for owner in ((task.project, ""), (task.project, task.user)):
            held[owner] = vector.add(held.get(owner, {}), task.spec.whole)
    known = {(project, ""): holding for project, holding in cluster.ledger.projects.items()} | cluster.ledger.users
    for owner in held.keys() | known.keys():
        mine = known[owner].held if owner in known else {}
        counted = {name: amount for name, amount in mine.items() if amount}
        summed = {name: amount for name, amount in held.get(owner, {}).items() if amount}
        require(counted == summed, f"{owner} holds {summed}, counted {counted}")


def _check_licenses(cluster: Cluster) -> None:
    """What is in use is what the attempts there are have."""
    held: dict[str, int] = {}
    for key in cluster.attempts:
        held = vector.add(held, cluster.tasks[key.task].spec.licenses)
    used = {name: count for name, count in cluster.licenses.used.items() if count}
    require(used == held, f"licences {held} are in use, counted {used}")


def _check_carriers(cluster: Cluster) -> None:
    """Who carries which key is where the attempts are."""
    found = Carriers()
    for key, attempt in cluster.attempts.items():
        for node in attempt.nodes:
            found.add(cluster.tasks[key.task].spec, node)
    known = cluster.carriers
    require(found.of == known.of, f"keys are at {found.of}, counted {known.of}")
    guards = [{k: {label: n for label, n in g.items() if n} for k, g in c.guards.items()} for c in (found, known)]
    guarded = [{k: g for k, g in c.items() if g} for c in guards]
    require(guarded[0] == guarded[1], f"guards are at {guarded[0]}, counted {guarded[1]}")


def _check_holders(cluster: Cluster) -> None:
    """By name and by node it is the same, and of nodes that there are."""
    found = Holders()
    for node in cluster.nodes:
        found.tell(node, cluster.holders.on(node))
    by_name = [{name: holding.nodes for name, holding in holders.of.items()} for holders in (found, cluster.holders)]
    require(by_name[0] == by_name[1], f"nodes hold {by_name[0]}, known {by_name[1]}")


def _check_queue(cluster: Cluster) -> None:
    """Whatever is queued can be found in the queue."""
    found = {(e.task, e.position, e.is_range) for c in cluster.queue.classes() for e in cluster.queue.entries(c)}
    ranges = {task for task, _, is_range in found if is_range}
    for task in cluster.tasks.values():
        array = task.spec.array
        if array is None:
            require(task.state is not State.QUEUED or (task.id, 0, False) in found, f"task {task.id} is queued nowhere")
        elif task.base is State.QUEUED and task.size - task.next_position > len(cluster.named_ahead.get(task.id, ())):
            require(task.id in ranges, f"array {task.id} is queued nowhere ({class_of(task.spec)})")
    for key, element in cluster.elements.items():
        array = cluster.tasks[key.task].spec.array
        if element.state is State.QUEUED and array is not None:
            at = (key.task, array.position_of(key.index), False)
            require(at in found, f"element {key} is queued nowhere")
