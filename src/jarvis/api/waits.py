"""How the reasons for which a task waited changed: its events, and while it was queued what the leader remembers."""

from collections.abc import Sequence
from typing import Any

from jarvis.api.schemas.values import rfc3339
from jarvis.core.event import Event
from jarvis.core.ids import SOLO, ElementKey
from jarvis.core.states import State

_WORDS = {
    State.WAITING: "Dependency", State.HELD: "JobHeldUser", State.BACKOFF: "Backoff", State.QUARANTINED: "JobHeldAdmin",
}  # fmt: skip
"""Of states in which an event says no reason of its own."""
_STATES = frozenset(State)


def history(events: Sequence[Event], changes: Sequence[dict[str, Any]], key: ElementKey) -> list[dict[str, Any]]:
    """Oldest first: since when it was in which state, and for which reasons. ``changes``: as ``explain.why`` tells them."""
    own = [event for event in events if event.kind in _STATES and event.index in (SOLO, key.index)]
    ends = [event.at for event in own[1:]] + [float("inf")]
    found: list[dict[str, Any]] = []
    for event, end in zip(own, ends, strict=True):
        state = State(event.kind)
        reason = str(event.detail.get("reason") or _WORDS.get(state, ""))
        found.append({"since": event.at, "state": state, "reasons": [reason] if reason else [], "text": ""})
        if state is State.QUEUED:
            found += [{**change, "state": state} for change in changes if event.at <= change["since"] < end]
    return [{**row, "since": rfc3339(row["since"])} for row in found]
