"""PURE: may a step begin? From its edges, its trigger and how the steps before it ended. Order and levels of a block."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from graphlib import CycleError, TopologicalSorter

from jarvis.core.states import State
from jarvis.core.task import TaskSpec
from jarvis.core.workflow import FAILURES, Edge, EdgeOn, StepSpec, Trigger


class Verdict(Enum):
    WAIT = "wait"
    RUN = "run"
    SKIP = "skip"
    FAIL = "fail"
    """Something before it failed: it becomes ``upstream_failed``."""


def edge_met(on: EdgeOn, state: State) -> bool:
    """Whether a step that ended so lets the one behind this edge go on."""
    if on == "any":
        return True
    return state is State.SUCCEEDED if on == "success" else state in FAILURES


def verdict(trigger: Trigger, edges: int, left: int, met: int, failed: bool) -> Verdict:
    """``left`` of its ``edges`` have not ended; ``met`` of those that have are met; ``failed``: one of them ended badly.

    A step may begin as soon as that is sure. That it may not is said only when everything before it has ended, so that the
    answer does not depend on which of two came first.
    """
    if not edges or (trigger == "any" and met):
        return Verdict.RUN
    if left:
        return Verdict.WAIT
    if trigger == "always" or (trigger == "none_failed" and not failed) or (trigger == "all" and met == edges):
        return Verdict.RUN
    return Verdict.FAIL if failed else Verdict.SKIP


def find_cycle(edges: Mapping[str, Iterable[str]]) -> list[str] | None:
    """The steps of a cycle in the order in which they wait for each other, the first one again at the end."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found[::-1]
    return None


def levels(steps: Sequence[StepSpec]) -> list[list[str]]:
    """The steps of a block in the order in which they may run: those of a level wait for earlier levels alone."""
    sorter: TopologicalSorter[str] = TopologicalSorter({s.id: [e.step for e in s.depends_on] for s in steps})
    sorter.prepare()
    out: list[list[str]] = []
    place = {step.id: at for at, step in enumerate(steps)}
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=place.__getitem__)
        out.append(ready)
        sorter.done(*ready)
    return out


def dependents(steps: Sequence[StepSpec]) -> dict[str, list[tuple[str, Edge]]]:
    """Step → those that wait for it, each with its edge."""
    out: dict[str, list[tuple[str, Edge]]] = {step.id: [] for step in steps}
    for step in steps:
        for edge in step.depends_on:
            out[edge.step].append((step.id, edge))
    return out


Expected = Callable[[TaskSpec], float | None]
"""How long the task of a step is predicted to run, None where nothing is known of those like it."""


def unknown(spec: TaskSpec) -> float | None:
    """Where nothing is predicted."""
    return None


def ranks(steps: Sequence[StepSpec], weight: Mapping[str, float]) -> dict[str, float]:
    """Length of the longest path from each step to an end of its block, its own weight included (the b-level).

    ``weight`` is the expected seconds of a step, 1 where nothing is known.
    """
    behind = dependents(steps)
    rank: dict[str, float] = {}
    for level in reversed(levels(steps)):
        for ident in level:
            rank[ident] = weight.get(ident, 1.0) + max((rank[other] for other, _ in behind[ident]), default=0.0)
    return rank


def weights(steps: Sequence[StepSpec], predicted: Expected = unknown) -> dict[str, float]:
    """The expected seconds of each step of a block: what is ``predicted`` for it, its time limit or timeout, the longest way
    through what is inside of it, the length of a pause. What tells nothing counts as the mean of those that do; where none does,
    nothing is known."""
    known = {step.id: seconds for step in steps if (seconds := _seconds(step, predicted)) is not None}
    if not known:
        return {}
    mean = sum(known.values()) / len(known)
    return {step.id: known.get(step.id, mean) for step in steps}


def _seconds(step: StepSpec, predicted: Expected) -> float | None:
    if step.task is not None:
        if (said := predicted(step.task)) is not None:
            return said
        return step.timeout if step.task.time_limit is None else step.task.time_limit
    if step.kind == "sleep":
        return float(step.sleep) if isinstance(step.sleep, int | float) else None
    inside = [
        max(ranks(b.steps, w).values(), default=0.0) for _, b in step.blocks if (w := weights(b.steps, predicted))
    ]
    return max(inside, default=step.timeout)
