"""PURE: whether a node can take a class of tasks at all; each filter returns a reason value, so ``why`` is a view of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jarvis.core import resources as vector
from jarvis.core.gpus import NO_ROOM, WHOLE, Ask, Room, ask_of, could_hold, pick, room_of
from jarvis.core.node import NodeState
from jarvis.core.resources import Resources, format_amount
from jarvis.core.task import ADDRESS_LABEL, CONTAINER_LABEL, Constraint, Preference
from jarvis.scheduler.task_queue import PlacementClass

if TYPE_CHECKING:
    from jarvis.scheduler.cluster import NodeView


@dataclass(frozen=True, slots=True)
class Reason:
    """Why not: Slurm's word, and a sentence with numbers for people."""

    word: str
    text: str


def _node_available(view: "NodeView") -> Reason | None:
    node = view.node
    if node.state is not NodeState.READY:
        return Reason("ReqNodeNotAvail", f"is {node.state}")
    if node.draining:
        return Reason("ReqNodeNotAvail", f"is draining{_because(node.reason)}")
    if node.cordoned:
        return Reason("ReqNodeNotAvail", f"is cordoned{_because(node.reason)}")
    if view.closed:
        return Reason("ReqNodeNotAvail", view.closed)
    if node.unfit:
        return Reason("ReqNodeNotAvail", f"is not fit: {node.unfit}")
    return None if view.session is not None else Reason("ReqNodeNotAvail", "is not connected")


def _because(reason: str) -> str:
    return f" ({reason})" if reason else ""


def holds(constraint: Constraint | Preference, labels: dict[str, str]) -> bool:
    value = labels.get(constraint.label)
    if constraint.op == "exists":
        return value is not None
    return (value in constraint.value.split("|")) is (constraint.op == "=")


def _labels(view: "NodeView", constraints: tuple[Constraint, ...]) -> Reason | None:
    for constraint in constraints:
        if not holds(constraint, view.node.labels):
            have = view.node.labels.get(constraint.label, "none")
            wanted = constraint.label + constraint.op.replace("exists", "") + constraint.value
            return Reason("NoMatchingLabel", f"label {constraint.label} is {have}, wanted {wanted}")
    return None


def _engine(view: "NodeView", kind: str) -> Reason | None:
    if kind != "container" or view.node.labels.get(CONTAINER_LABEL, "none") != "none":
        return None
    return Reason("NoMatchingLabel", "has no container engine ('jarvis doctor' there says why)")


def _knows_gangs(view: "NodeView", gang: bool) -> Reason | None:
    if not gang or ADDRESS_LABEL in view.node.labels:
        return None
    return Reason("ReqNodeNotAvail", "has an agent that knows nothing of tasks on several nodes: upgrade it")


def _taints(view: "NodeView", tolerations: tuple[str, ...]) -> Reason | None:
    for taint in view.node.taints:
        if taint not in tolerations:
            return Reason("ReqNodeNotAvail", f"has taint {taint}, which is not tolerated")
    return None


def _capacity(view: "NodeView", need: Resources) -> Reason | None:
    short = vector.shortages(need, view.node.resources)
    if not short:
        return _gpu_capacity(view, need)
    have = " and ".join(f"{format_amount(name, view.node.resources.get(name, 0))} {name}" for name in sorted(short))
    wanted = " and ".join(format_amount(name, need[name]) for name in sorted(short))
    return Reason("NeverFits", f"has {have} in all, wanted {wanted}")


def _gpu_capacity(view: "NodeView", need: Resources) -> Reason | None:
    """Its GPUs have enough memory together: have they one by one?"""
    node = view.node
    if could_hold(node.resources, node.gpu_memory, need):
        return None
    sizes, wanted = room_of(node.resources, node.gpu_memory).sizes, need["gpu_memory"]
    have = ", ".join(f"GPU {at} has {format_amount('gpu_memory', size)}" for at, size in enumerate(sizes))
    return Reason("NeverFits", f"{have or 'it has no GPU'}, wanted {format_amount('gpu_memory', wanted)} on one")


def unsuitable(
    view: "NodeView", constraints: tuple[Constraint, ...], tolerations: tuple[str, ...], kind: str, gang: bool
) -> Reason | None:
    """Why a node takes no work at all now, or none of this kind; its size apart."""
    return (
        _node_available(view)
        or _labels(view, constraints)
        or _engine(view, kind)
        or _taints(view, tolerations)
        or _knows_gangs(view, gang)
    )


def static_reason(view: "NodeView", placement_class: PlacementClass) -> Reason | None:
    """Why this class cannot run there whatever else runs; None when it could."""
    return (
        _labels(view, placement_class.constraints)
        or _engine(view, placement_class.kind)
        or _taints(view, placement_class.tolerations)
        or _knows_gangs(view, placement_class.nodes > 1)
        or _capacity(view, placement_class.need)
    )


def every_reason(view: "NodeView", placement_class: PlacementClass) -> Iterator[Reason]:
    """All that keeps a node from taking this class now, room apart; each of it would do so alone."""
    labels = (_labels(view, (constraint,)) for constraint in placement_class.constraints)
    found = (
        _node_available(view), *labels, _engine(view, placement_class.kind), _taints(view, placement_class.tolerations),
        _knows_gangs(view, placement_class.nodes > 1), _capacity(view, placement_class.need),
    )  # fmt: skip
    yield from (reason for reason in found if reason is not None)


def eligible_reason(view: "NodeView", placement_class: PlacementClass) -> Reason | None:
    """As :func:`static_reason`, and also whether the node takes work now."""
    return _node_available(view) or static_reason(view, placement_class)


def room_reason(need: Resources, free: Resources, gpus: Room = NO_ROOM) -> Reason | None:
    """Why it does not fit into what is free at the moment, of GPUs one by one."""
    short = vector.shortages(need, free)
    ask = ask_of(need)
    lacking = ask is not None and pick(gpus, ask) is None
    if not (short or lacking):
        return None
    names = [name for name in sorted(short) if name != "gpu_memory"]
    has = " and ".join(f"{format_amount(name, max(0, free.get(name, 0)))} {name}" for name in names)
    wanted = " and ".join(format_amount(name, need[name]) for name in names)
    parts = [f"{has} free, wanted {wanted}"] if names else []
    if lacking and ask is not None and (ask.memory or "gpu" not in short):
        parts.append(_gpu_by_gpu(ask, gpus))
    return Reason("Resources", ", ".join(parts))


def _gpu_by_gpu(ask: Ask, gpus: Room) -> str:
    """What each has left of what is asked: memory, a part of it, or both."""
    wanted = [f"{format_amount('gpu', min(ask.part, WHOLE))} of one"] if ask.part else []
    wanted += [f"{format_amount('gpu_memory', ask.memory)} on one"] if ask.memory else []
    said = []
    for at, (part, memory, size) in enumerate(zip(*gpus, strict=True)):
        left = [format_amount("gpu", part)] if ask.part else []
        if size and (ask.memory or memory < size * part // WHOLE):
            left.append(f"{format_amount('gpu_memory', memory)} of {format_amount('gpu_memory', size)}")
        said.append(f"GPU {at} has {' and '.join(left or ['0'])} free")
    return f"{', '.join(said)}, wanted {' and '.join(wanted)}"
