"""PURE: least attained service: who has had little so far goes before who has had much, where nobody knows how long tasks take.

Run times of clusters are spread so widely that what has run long is likely to go on for long (Nuyens and Wierman, "The
Foreground-Background queue", Performance Evaluation 2008; for GPU clusters Tiresias, Gu et al., NSDI'19). What a task has had is
its size times its seconds over all of its attempts, in cpu-seconds. Levels that grow geometrically keep tasks of about the same
from taking turns; within a level, order of submission holds.

Waiting makes up for levels: ``patience`` seconds for each. A level as it counts at an instant is therefore
``level - (now - submitted_at) / patience``, whose comparison between two that wait needs no clock.
"""

import math

from jarvis.scheduler.policy.order import Order

LEAST_ATTAINED = "least_attained"
LEVELS_MOST = 64
LEVEL_STEP = 1e8
"""Seconds of submission (three years) that a level weighs where patience has no end."""


def level_of(order: Order, attained: float) -> int:
    """0 up to ``first`` cpu-seconds, then one more for each multiplication by ``factor``."""
    level, bound = 0, order.first
    while attained >= bound and level < LEVELS_MOST:
        level, bound = level + 1, bound * order.factor
    return level


def behind(order: Order, attained: float) -> float:
    """Seconds of submission that it stands behind a fresh task."""
    return level_of(order, attained) * min(order.patience, LEVEL_STEP)


def level_at(order: Order, attained: float, waited: float) -> int:
    """Its level with what its age of ``waited`` seconds since submission makes up for; may be below 0."""
    return level_of(order, attained) - math.floor(waited / min(order.patience, LEVEL_STEP))


def put_off(size: float, attained: float) -> float:
    """How many ends a second are likely to be put off if it is stopped: what has run for long is the last to end."""
    return size / max(attained, 1.0)
