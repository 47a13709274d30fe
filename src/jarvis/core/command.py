"""Command: a wish about something that exists (cancel, hold, drain …), an append-only row until the leader has acted on it."""

from typing import Literal

import msgspec

Verb = Literal[
    "cancel", "hold", "release", "requeue", "signal", "suspend", "resume",
    "workflow_cancel", "workflow_pause", "workflow_resume", "workflow_decide",
    "schedule_pause", "schedule_resume", "schedule_remove", "schedule_trigger", "schedule_backfill", "schedule_event",
    "node_cordon", "node_uncordon", "node_drain", "node_resume", "node_remove", "node_label", "node_taint",
    "quota_set", "quota_remove", "booking_add", "booking_remove",
]  # fmt: skip


Args = dict[str, str | int | float | None]


class NewCommand(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """``task`` (and ``index`` for one element of an array), ``node``, ``workflow`` or ``schedule`` names the target."""

    verb: Verb
    user: str
    admin: bool = False
    task: int | None = None
    index: int | None = None
    node: int | None = None
    project: str | None = None
    """Of a quota or a booking; ``args`` may name a ``user`` in it."""
    workflow: int | None = None
    schedule: int | None = None
    args: Args = {}


class Command(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """A stored command with its id and instant."""

    id: int
    at: float
    body: NewCommand
