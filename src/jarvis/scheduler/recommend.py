"""PURE: what to ask for, from what runs of the same command or name have used."""

import math
from typing import Any

from jarvis.core.resources import Resources, format_amount
from jarvis.core.task import Task
from jarvis.scheduler.policy.prediction import Needs, Predictor, groups_of

ENOUGH = 5
"""Runs without which nothing is recommended."""
SHARE = 0.95
"""Of the runs, that would have had enough."""
MEMORY_MARGIN, CPU_MARGIN, LIMIT_MARGIN = 1.2, 1.1, 1.5
"""What is recommended is the measure times this: the next run may need more than any before."""
MEMORY_STEP = 16 << 20
CPU_STEP = 100
LIMIT_STEP_S = 60


def recommend(predictor: Predictor, task: Task) -> dict[str, Any]:
    """Amounts that ``SHARE`` of the runs stay within, and a margin, beside what the task asks for; None for what was not measured
    often enough. A task that nobody submitted, with a name alone, asks about that name."""
    found = predictor.needs(groups_of(task)[1:3], SHARE, ENOUGH)
    runs = 0 if found is None else found.runs
    given = {"project": task.project, "user": task.user, "name": task.spec.name, "runs": runs, "needed": ENOUGH}
    if found is None or runs < ENOUGH:
        return given | {
            "enough": False, "like": "" if found is None else found.like, "cpu": None, "memory": None, "time_limit": None,
            "asked": _asked(task),
            "summary": f"not enough runs: {runs} of {task.spec.name} by {task.user} ended by themselves, {ENOUGH} are needed",
        }  # fmt: skip
    wanted = _wanted(found)
    limit = _up(found.seconds * LIMIT_MARGIN, LIMIT_STEP_S)
    written = {
        name: f"{amount >> 20}Mi" if name == "memory" else format_amount(name, amount)
        for name, amount in wanted.items()
    }
    said = ", ".join([*(f"{name} {amount}" for name, amount in written.items()), f"time limit {limit} s"])
    return given | {
        "enough": True, "like": found.like, "cpu": written.get("cpu"), "memory": written.get("memory"), "time_limit": limit,
        "asked": _asked(task),
        "summary": f"{said}: what {100 * SHARE:.0f} % of the last {runs} {found.like} used, and a margin"
        + ("" if "memory" in wanted else f"; memory was measured in {found.with_memory} of them, which is too little"),
    }  # fmt: skip


def _wanted(found: Needs) -> Resources:
    wanted = {"cpu": _up(max(found.cpus, 0.05) * 1000 * CPU_MARGIN, CPU_STEP)}
    if found.with_memory >= ENOUGH:
        wanted["memory"] = _up(found.memory * MEMORY_MARGIN, MEMORY_STEP)
    return wanted


def _asked(task: Task) -> dict[str, Any]:
    asked: dict[str, Any] = {
        name: format_amount(name, amount) for name, amount in task.spec.resources.items() if name in ("cpu", "memory")
    }
    return asked if task.spec.time_limit is None else asked | {"time_limit": task.spec.time_limit}


def _up(amount: float, step: int) -> int:
    return max(math.ceil(amount / step), 1) * step
