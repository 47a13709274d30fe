"""PURE: why an element waits: all blockers at once, from the very filters that place."""

from collections.abc import Callable, Iterator
from heapq import merge
from typing import Any

from jarvis.core.errors import JarvisError, NeverFits, NoNodeHasAll, TooFewNodes
from jarvis.core.gpus import ask_of, room_of
from jarvis.core.ids import SOLO, ElementKey
from jarvis.core.node import Node
from jarvis.core.resources import format_amount, shortages
from jarvis.core.states import HELD_BY_USER, ON_NODE, State
from jarvis.core.task import Task, TaskSpec
from jarvis.scheduler import bookings, foresight, licenses, near, preempted, whatif
from jarvis.scheduler.cluster import Cluster, NodeView
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.filters import Reason, eligible_reason, every_reason, room_reason, static_reason
from jarvis.scheduler.gangs import alive
from jarvis.scheduler.line import before, is_throttled
from jarvis.scheduler.policy.affinity import Around
from jarvis.scheduler.policy.plugged import WORD, refusal
from jarvis.scheduler.policy.quotas import Headroom
from jarvis.scheduler.task_queue import PlacementClass, class_of

NAMED_MOST = 10
COUNT_MOST = 1000
"""Tasks that go first and are counted one by one."""
UNFORESEEN: dict[str, Any] = {"changes": [], "predicted": None, "expected": {"earliest_s": None, "latest_s": None}}
"""Of what waits for elements of its own array: neither another request nor the ends of others would let it start."""


def why(cluster: Cluster, key: ElementKey, now: float, policy: Policy | None = None) -> dict[str, Any] | None:
    """Reasons of an element that the leader holds; None when it does not (it has ended, or never was). With the policy that it is
    placed by, also what would let it start at once, who goes first, and between which instants it is expected to start, by limits
    and by predictions."""
    task = cluster.tasks.get(key.task)
    if task is None:
        return None
    position = 0 if task.spec.array is None or key.index == SOLO else task.spec.array.position_of(key.index)
    if position is None:
        return None
    state = cluster.state_at(task, position)
    if state is None:
        return None
    asks = policy or Policy()
    ahead = before(cluster, asks, task, now, whatif.AHEAD_MOST + 1) if state is State.QUEUED else []
    reasons, nodes = _reasons(cluster, task, position, state, now)
    if reasons and ahead:
        reasons += _first_of_its_shape(cluster, asks, task, position, ahead)
    told = dict[str, Any]()
    if policy is not None and state is State.QUEUED:
        asked = whatif.to_ask(cluster, now)
        one = whatif.as_task(task.spec, task.project, task.user, task.submitted_at, task.id)
        might_preempt = key in cluster.claims
        if reasons and not might_preempt:
            none = preempted.barred(cluster, policy, task, now), preempted.held_back(asked, policy, one, now)
            reasons += [reason for reason in none if reason is not None]
            might_preempt = none != (None, None)
        told = UNFORESEEN if is_throttled(cluster, task) else _expectations(asked, policy, one, ahead, now)
        told = told | (_or_sooner(told) if might_preempt else {})
        told |= {"ahead": [other.id for other in ahead[:NAMED_MOST]]}
    told |= {"run": foresight.run_of(cluster, task, position, now)}
    summary = "; ".join(r.text for r in reasons) if reasons else _where(cluster, task, position, state)
    return {
        "id": str(key), "state": str(state), "reason": reasons[0].word if reasons else "",
        "summary": f"task {key} is {state}: {summary}",
        "reasons": [{"reason": r.word, "text": r.text} for r in reasons],
        "nodes": nodes,
        "near": [
            {"node": cluster.nodes[node].node.name, "holds": near.said(cluster.holders, task.spec, node)}
            for node in near.most_near(cluster.holders, task.spec)
        ] if state is State.QUEUED else [],
        "history": cluster.history.of(task) if state is State.QUEUED else [],
    } | told  # fmt: skip


def _expectations(cluster: Cluster, policy: Policy, asked: Task, ahead: list[Task], now: float) -> dict[str, Any]:
    earliest, latest = whatif.expected(cluster, policy, asked, ahead, now)
    return {
        "changes": [change.text for change in whatif.changes(cluster, policy, asked, now)],
        "predicted": foresight.start_of(cluster, policy, asked, ahead, now),
        "expected": {
            "earliest_s": None if earliest is None else round(earliest - now, 3),
            "latest_s": None if latest is None else round(latest - now, 3),
        },
    }  # fmt: skip


def _or_sooner(told: dict[str, Any]) -> dict[str, Any]:
    """Of who may have others stopped, now or soon: it need not wait for any end that is known. None stays None."""
    bounds = {
        name: told[name] for name in ("expected", "predicted") if told[name] and told[name]["earliest_s"] is not None
    }
    return {name: bound | {"earliest_s": 0.0} for name, bound in bounds.items()}


def _where(cluster: Cluster, task: Task, position: int, state: State) -> str:
    attempt = cluster.attempts.get(task.key_at(position))
    if attempt is not None and state in ON_NODE:
        views = [(cluster.nodes[node], number) for node, number in alive(attempt)]
        held = sum(view.placed[number].held for view, number in views)
        spared = f", where {format_amount('memory', held)} of what it needs were already" if held else ""
        names = ", ".join(view.node.name for view, _ in views)
        return f"attempt {attempt.attempt} is on node{'s' if len(views) > 1 else ''} {names}{spared}"
    return "it can start in the next cycle"


def _reasons(
    cluster: Cluster, task: Task, position: int, state: State, now: float
) -> tuple[list[Reason], list[dict[str, str]]]:
    spec = task.spec
    if state is State.HELD:
        by = "an administrator" if task.reason == "JobHeldAdmin" else "its user"
        return [Reason(task.reason or HELD_BY_USER, f"it is held by {by}: release it to go on")], []
    if state is State.QUARANTINED:
        return [Reason("JobHeldAdmin", "it took several nodes down: an administrator may release it")], []
    if state is State.BACKOFF:
        element = cluster.elements[task.key_at(position)]
        wait = max((element.eligible_at or now) - now, 0.0)
        return [Reason("Backoff", f"attempt {element.attempt} ended {element.cause}; the next one in {wait:.0f} s")], []
    if state is State.WAITING:
        return _waiting(cluster, task, now), []
    if state is State.CANCELLING:
        return [*preempted.stopping_for(cluster, task.key_at(position))], []
    if state is not State.QUEUED:
        return [], []
    reasons, nodes = _queued(cluster, class_of(spec), bookings.refuser(cluster, task, now))
    reasons = [*queued_reasons(cluster, task, now, reasons)]
    array = spec.array
    if array is not None and is_throttled(cluster, task):
        reasons.insert(0, Reason("JobArrayTaskLimit", f"{array.throttle} of its elements are on nodes, its limit"))
    return [*preempted.waiting_for(cluster, task.key_at(position)), *reasons], nodes


def queued_reasons(cluster: Cluster, task: Task, now: float, found: list[Reason] | None = None) -> list[Reason]:
    """Of what is queued: its owner's quota, what nodes say, and what room is kept for."""
    spec = task.spec
    refused = bookings.refuser(cluster, task, now)
    reasons = _queued(cluster, class_of(spec), refused)[0] if found is None else list(found)
    if cluster.quotas:
        over = Headroom(cluster.quotas, cluster.ledger).over(task.project, task.user, spec.whole)
        if over is not None:
            reasons.insert(0, over)
    if spec.licenses:
        reasons[:0] = licenses.reasons(cluster, task)
    return reasons or [*_kept_for_others(cluster, task, OnNode(cluster, class_of(spec), refused))]


def _kept_for_others(cluster: Cluster, task: Task, on_node: "OnNode") -> Iterator[Reason]:
    """The first reservation on a node that could take it."""
    for key, (node, _) in cluster.reservations.items():
        for ident in (node, *cluster.reserved_others.get(key, ())):
            view = cluster.nodes.get(ident)
            if key.task != task.id and view is not None and not on_node(view):
                text = f"room on {view.node.name} is kept for task {key}, which goes first"
                yield Reason("Priority", text)
                return


def _waiting(cluster: Cluster, task: Task, now: float) -> list[Reason]:
    reasons = []
    waits = sorted(cluster.waits_for.get(task.id, ()))
    if waits:
        named = ", ".join(map(str, waits[:10])) + (f" and {len(waits) - 10} more" if len(waits) > 10 else "")
        reasons.append(Reason("Dependency", f"it waits for the end of task {named}"))
    if task.spec.begin is not None and task.spec.begin > now:
        reasons.append(Reason("BeginTime", f"it begins in {task.spec.begin - now:.0f} s"))
    return reasons


def _queued(
    cluster: Cluster, placement_class: PlacementClass, refused: Callable[[NodeView], Reason | None]
) -> tuple[list[Reason], list[dict[str, str]]]:
    """What each node says, and the words that sum it up: what is nearest to being met comes first."""
    if not cluster.nodes:
        return [Reason("NoNodes", "no node is registered")], []
    on_node = OnNode(cluster, placement_class, refused)
    every = [(view, on_node(view)) for view in cluster.nodes.values()]
    rows = [
        {"node": view.node.name, "reason": reason.word, "text": reason.text}
        for view, reasons in every for reason in reasons
    ]  # fmt: skip
    able = sum(not reasons for _, reasons in every)
    if able >= placement_class.nodes:
        return [], rows
    gang = [_incomplete(able, placement_class.nodes)] if placement_class.nodes > 1 else []
    return gang + _summed_up([reasons for _, reasons in every if reasons], len(cluster.nodes)), rows


class OnNode:
    """Everything that keeps a class from starting on a node; of what it can never have there, not that it is taken as well."""

    def __init__(
        self, cluster: Cluster, placement_class: PlacementClass, refused: Callable[[NodeView], Reason | None]
    ) -> None:
        self._class, self._need = placement_class, placement_class.need
        self._asks_gpus = ask_of(self._need) is not None
        self._around = Around(cluster.carriers, cluster.nodes)
        self._refused, self._filters = refused if cluster.bookings else None, cluster.pools.filters
        self._short: dict[tuple[tuple[str, int], ...], Reason | None] = {}
        """What is free of all that is short → what is said of it: many nodes are alike."""

    def __call__(self, view: NodeView) -> list[Reason]:
        asked = self._class
        found = [] if eligible_reason(view, asked) is None else [*every_reason(view, asked)]
        could = all(reason.word != "NeverFits" for reason in found)
        if asked.keys or asked.affinities:
            found += self._around.refusals(view, asked)
        more = (
            self._refused(view) if self._refused is not None else None,
            refusal(view, asked, self._filters) if self._filters else None,
            self._room(view) if could else None,
        )
        found += [reason for reason in more if reason is not None]
        return found

    def _room(self, view: NodeView) -> Reason | None:
        if self._asks_gpus:
            return room_reason(self._need, view.free, view.gpus)
        has, used = view.node.resources, view.used
        short = tuple((n, left) for n, a in self._need.items() if (left := has.get(n, 0) - used.get(n, 0)) < a)
        if short and short not in self._short:
            self._short[short] = room_reason(self._need, view.free)
        return self._short.get(short)


def _summed_up(every: list[list[Reason]], nodes: int) -> list[Reason]:
    """A sentence for each word: on how many nodes, and what is said where the least else is in the way, as an example where others
    say otherwise. What is nearest to being met comes first; of one node, what would keep it away even if it were empty."""
    order = ("Resources", WORD, "AntiAffinity", "Affinity", "ReqNodeNotAvail", "NoMatchingLabel", "NeverFits")
    nearest: dict[str, tuple[int, int, str]] = {}
    count: dict[str, int] = {}
    mixed = set[str]()
    for reasons in every:
        for word, (at, text) in {r.word: (at, r.text) for at, r in reversed([*enumerate(reasons)])}.items():
            count[word] = count.get(word, 0) + 1
            if word in nearest and text != nearest[word][2]:
                mixed.add(word)
            if word not in nearest or (len(reasons), at) < nearest[word][:2]:
                nearest[word] = len(reasons), at, text
    words = sorted(nearest, key=lambda word: (*nearest[word][:2], order.index(word)))
    return [
        Reason(word, f"{count[word]} of {nodes} nodes{', for example' if word in mixed else ''}: {nearest[word][2]}")
        for word in words
    ]


def _incomplete(able: int, wanted: int) -> Reason:
    have = "1 node has" if able == 1 else f"{able} nodes have"
    return Reason("GangIncomplete", f"{have} room for a rank, {wanted} are wanted at once")


def _first_of_its_shape(
    cluster: Cluster, policy: Policy, task: Task, position: int, ahead: list[Task]
) -> Iterator[Reason]:  # fmt: skip
    """How many go first: what stands in its own lane surely does, of other owners what is known to."""
    kind = class_of(task.spec)
    count = sum(class_of(other.spec) == kind for other in ahead)
    many, known = f"{count:,}", len(ahead) <= whatif.AHEAD_MOST
    if not known:
        alone = policy.fairness.by == "nobody" or len(cluster.queue.lanes(kind)) == 1
        count = max(count, _in_lanes(cluster, kind, None if alone else (task.project, task.user), task, position))
        many = f"more than {COUNT_MOST:,}" if count > COUNT_MOST else f"{'' if alone else 'at least '}{count:,}"
    if count:
        yield Reason(
            "Priority", f"{many} task{'s' if count > 1 else ''} of its shape go{'es' if count == 1 else ''} first"
        )


def _in_lanes(
    cluster: Cluster, kind: PlacementClass, owner: tuple[str, str] | None, task: Task, position: int
) -> int:  # fmt: skip
    """Entries of a class that come first by rank, of one owner or of all (an array counts as one)."""
    mine, count = cluster.entry_of(task, position), 0
    lanes = (lane for lane in cluster.queue.lanes(kind) if owner in (None, (lane.project, lane.user)))
    for entry in merge(*(lane.waiting() for lane in lanes)):
        if entry >= mine or count > COUNT_MOST:
            break
        other = cluster.tasks.get(entry.task)
        if other is not None and other.id != task.id and State.QUEUED in (other.state, other.base):
            count += 1
    return count


def _largest(node: Node, name: str) -> int:
    """How much of a resource one task may have there: of GPU memory, what one GPU has."""
    if name == "gpu_memory":
        return max(room_of(node.resources, node.gpu_memory).sizes, default=0)
    return node.resources.get(name, 0)


def never_fits(cluster: Cluster, spec: TaskSpec) -> JarvisError | None:
    """The refusal of a request that no registered node type can meet, lost ones included, or that asks for licences that there
    are not; None when it can be met, or asks for labels that no node has: one that has them may come."""
    refused = licenses.refused(cluster, spec)
    if refused is not None or not cluster.nodes:
        return refused
    placement_class = class_of(spec)
    able, has_labels = 0, False
    for view in cluster.nodes.values():
        suits = static_reason(view, placement_class) is None  # of most, and found at once
        words = set[str]() if suits else {reason.word for reason in every_reason(view, placement_class)}
        has_labels = has_labels or "NoMatchingLabel" not in words
        able += "NeverFits" not in words
        if able == spec.nodes:
            return None
    if not has_labels and spec.nodes <= len(cluster.nodes):
        return None
    if able or spec.nodes > len(cluster.nodes):
        return TooFewNodes(spec.nodes, able, len(cluster.nodes))
    for name, wanted in placement_class.resources:
        largest = max(_largest(view.node, name) for view in cluster.nodes.values())
        if wanted > largest:
            return NeverFits(name, format_amount(name, wanted), format_amount(name, largest))
    return _nowhere_together(cluster, placement_class)


def _nowhere_together(cluster: Cluster, placement_class: PlacementClass) -> NoNodeHasAll:
    """The refusal of what no node has together, with the node on which the fewest dimensions are short, and of the least part."""
    need = placement_class.need

    def lacks(view: NodeView) -> tuple[int, float, str]:
        short = shortages(need, view.node.resources)
        return len(short), max((amount / need[name] for name, amount in short.items()), default=0.0), view.node.name

    nearest = min(cluster.nodes.values(), key=lacks)
    text = next(reason.text for reason in every_reason(nearest, placement_class) if reason.word == "NeverFits")
    wanted = " and ".join(f"{format_amount(name, amount)} {name}" for name, amount in placement_class.resources)
    return NoNodeHasAll(wanted, nearest.node.name, text)
