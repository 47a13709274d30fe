"""Whether an ended attempt is tried again, and after how long: a pure decision."""

from typing import Literal

import msgspec

from jarvis.core.states import INFRA_CAUSES, Cause

MAX_INFRA_LOSSES = 10
"""Attempts lost to nodes or supervisors before an element fails with that cause."""
POISON_NODES = 3
"""An element whose attempts were lost on this many different nodes is quarantined."""


class RetryPolicy(msgspec.Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True):
    """``max_attempts`` counts the task's own failures; infra losses have a bound of their own.

    Classes in ``retry_on`` / ``never_on``: a cause (``oom``, ``timeout``, ``node_lost`` …), ``exit:75``,
    ``signal:9``, ``exception:ValueError``, or ``any``.
    """

    max_attempts: int = 1
    backoff: Literal["exponential", "linear", "constant"] = "exponential"
    base: float = 1.0
    max_backoff: float = 300.0
    retry_on: tuple[str, ...] = ("any",)
    never_on: tuple[str, ...] = ()


class Ending(msgspec.Struct, gc=False, frozen=True):
    """What is known of an ended attempt, as far as retrying is concerned."""

    cause: Cause
    exit_code: int | None = None
    signal: int | None = None
    exception: str | None = None


def ending_classes(ending: Ending) -> frozenset[str]:
    """All class names that the ending belongs to."""
    names = {"any", str(ending.cause)}
    if ending.exit_code is not None:
        names.add(f"exit:{ending.exit_code}")
    if ending.signal is not None:
        names.add(f"signal:{ending.signal}")
    if ending.exception:
        names.add(f"exception:{ending.exception}")
    return frozenset(names)


def should_retry(policy: RetryPolicy, ending: Ending, failures: int) -> bool:
    """``failures`` includes this ending. Infra losses are decided by their own counter, not here."""
    if ending.cause in INFRA_CAUSES:
        raise ValueError("infra losses have their own counter")
    if failures >= policy.max_attempts:
        return False
    classes = ending_classes(ending)
    return not classes & set(policy.never_on) and bool(classes & set(policy.retry_on))


def backoff_seconds(policy: RetryPolicy, failures: int, jitter: float) -> float:
    """Wait before the next attempt; ``jitter`` in [0, 1) spreads it over the upper half of the window."""
    if policy.backoff == "constant":
        window = policy.base
    elif policy.backoff == "linear":
        window = policy.base * failures
    else:
        window = policy.base * 2.0 ** min(failures - 1, 60)
    return min(window, policy.max_backoff) * (0.5 + jitter / 2)
