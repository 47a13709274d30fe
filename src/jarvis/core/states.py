"""Every state of an element and the one table of transitions; the diagram in the docs is generated from it."""

from enum import StrEnum

from jarvis.core.errors import InvalidTransition


class State(StrEnum):
    """State of an element (and, derived from its elements, of a task)."""

    SUBMITTED = "submitted"  # acknowledged and durable; the leader has not taken it yet
    WAITING = "waiting"  # for a dependency or its begin time
    HELD = "held"  # by a user or an administrator
    QUEUED = "queued"  # could start as soon as resources allow
    BACKOFF = "backoff"  # waits before the next attempt
    ASSIGNED = "assigned"  # in a node's ordered backlog, holding no resources
    STARTING = "starting"  # the node prepares it (image, environment)
    RUNNING = "running"
    SUSPENDED = "suspended"
    CANCELLING = "cancelling"  # its node has been told to end it
    QUARANTINED = "quarantined"  # it took several nodes down; waits for a person
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    EXPIRED = "expired"  # its total deadline passed
    LOST = "lost"  # only with on_lost=never
    SKIPPED = "skipped"
    UPSTREAM_FAILED = "upstream_failed"


HELD_BY_USER = "JobHeldUser"
"""The reason of what its user holds."""
S = State
TERMINAL = frozenset({S.SUCCEEDED, S.FAILED, S.CANCELLED, S.TIMEOUT, S.EXPIRED, S.LOST, S.SKIPPED, S.UPSTREAM_FAILED})
ON_NODE = frozenset({S.ASSIGNED, S.STARTING, S.RUNNING, S.SUSPENDED, S.CANCELLING})
"""States with a current attempt on a node."""
PENDING = frozenset({S.SUBMITTED, S.WAITING, S.HELD, S.QUEUED, S.BACKOFF, S.QUARANTINED})
LIVE = PENDING | ON_NODE

_GIVE_UP = {S.CANCELLED, S.EXPIRED}
_ENDS = {S.SUCCEEDED, S.FAILED, S.CANCELLED, S.TIMEOUT, S.EXPIRED, S.LOST}
_AGAIN = {S.QUEUED, S.BACKOFF, S.HELD, S.QUARANTINED}

TRANSITIONS: dict[State, frozenset[State]] = {
    S.SUBMITTED: frozenset({S.WAITING, S.HELD, S.QUEUED, S.UPSTREAM_FAILED, S.SKIPPED, *_GIVE_UP}),
    S.WAITING: frozenset({S.QUEUED, S.HELD, S.UPSTREAM_FAILED, S.SKIPPED, *_GIVE_UP}),
    S.HELD: frozenset({S.WAITING, S.QUEUED, S.BACKOFF, S.UPSTREAM_FAILED, S.SKIPPED, *_GIVE_UP}),
    S.QUEUED: frozenset({S.ASSIGNED, S.HELD, S.WAITING, *_GIVE_UP}),
    S.BACKOFF: frozenset({S.QUEUED, S.HELD, *_GIVE_UP}),
    S.ASSIGNED: frozenset({S.STARTING, S.RUNNING, S.CANCELLING, *_ENDS, *_AGAIN}),
    S.STARTING: frozenset({S.RUNNING, S.CANCELLING, *_ENDS, *_AGAIN}),
    S.RUNNING: frozenset({S.SUSPENDED, S.CANCELLING, *_ENDS, *_AGAIN}),
    S.SUSPENDED: frozenset({S.RUNNING, S.CANCELLING, *_ENDS, *_AGAIN}),
    S.CANCELLING: frozenset({*_ENDS, *_AGAIN}),
    S.QUARANTINED: frozenset({S.QUEUED, S.HELD, *_GIVE_UP}),
}

CODES: dict[State, str] = {
    S.SUBMITTED: "SU", S.WAITING: "PD", S.HELD: "H", S.QUEUED: "PD", S.BACKOFF: "RQ", S.ASSIGNED: "AS",
    S.STARTING: "CF", S.RUNNING: "R", S.SUSPENDED: "S", S.CANCELLING: "CG", S.QUARANTINED: "QT", S.SUCCEEDED: "CD",
    S.FAILED: "F", S.CANCELLED: "CA", S.TIMEOUT: "TO", S.EXPIRED: "DL", S.LOST: "LO", S.SKIPPED: "SK",
    S.UPSTREAM_FAILED: "UF",
}  # fmt: skip
"""Slurm's short codes, as tables show them."""

_ROLLUP_ORDER = (
    S.RUNNING, S.CANCELLING, S.STARTING, S.SUSPENDED, S.ASSIGNED, S.QUEUED, S.BACKOFF, S.QUARANTINED,
    S.WAITING, S.HELD, S.SUBMITTED, S.LOST, S.FAILED, S.TIMEOUT, S.EXPIRED, S.CANCELLED, S.UPSTREAM_FAILED,
    S.SKIPPED, S.SUCCEEDED,
)  # fmt: skip


def may_follow(before: State, after: State) -> bool:
    """Whether the table lists ``before → after``."""
    return after in TRANSITIONS.get(before, ())


def check_transition(entity: str, before: State, after: State, cause_id: str) -> None:
    """Raise :class:`InvalidTransition` unless the table lists ``before → after``."""
    if not may_follow(before, after):
        raise InvalidTransition(entity, before, after, cause_id)


def rollup(counts: dict[State, int]) -> State:
    """State of a task from the counts of its elements: what is most alive wins, then what went most wrong."""
    for state in _ROLLUP_ORDER:
        if counts.get(state):
            return state
    raise ValueError("a task has at least one element")


class Cause(StrEnum):
    """Why an attempt ended."""

    EXIT = "exit"  # by itself; the exit code tells
    SIGNAL = "signal"
    EXCEPTION = "exception"  # a function raised
    TIMEOUT = "timeout"
    OOM = "oom"
    OUTPUT_LIMIT = "output_limit"
    CANCELLED = "cancelled"
    START_FAILED = "start_failed"
    PREEMPTED = "preempted"
    REQUEUED = "requeued"
    RECALLED = "recalled"  # never started; not counted as a try
    NODE_LOST = "node_lost"
    SUPERVISOR_LOST = "supervisor_lost"
    EXPIRED = "expired"


INFRA_CAUSES = frozenset({Cause.NODE_LOST, Cause.SUPERVISOR_LOST})
"""Losses that are not the task's own fault; bounded by their own counter."""
