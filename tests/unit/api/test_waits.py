"""How a task's reasons changed, from its events and what the leader remembers."""

from jarvis.api.waits import history
from jarvis.core.event import Event
from jarvis.core.ids import ElementKey


def test_states_from_events_and_reasons_from_the_leader() -> None:
    events = [
        Event(1, 10.0, "held", 7, detail={"reason": "JobHeldAdmin"}), Event(2, 20.0, "waiting", 7), Event(3, 30.0, "queued", 7),
        Event(4, 40.0, "assigned", 7, 3), Event(5, 50.0, "backoff", 7, 4), Event(6, 55.0, "preempts", 7),
        Event(7, 60.0, "queued", 7, 4),
    ]  # fmt: skip
    changes = [
        {"since": 35.0, "reasons": ["Resources"], "text": "1 of 1 nodes"}, {"since": 70.0, "reasons": [], "text": ""},
    ]  # fmt: skip
    told = [(row["since"], row["state"], row["reasons"]) for row in history(events, changes, ElementKey(7, 4))]
    assert told == [
        ("1970-01-01T00:00:10.000Z", "held", ["JobHeldAdmin"]),
        ("1970-01-01T00:00:20.000Z", "waiting", ["Dependency"]),
        ("1970-01-01T00:00:30.000Z", "queued", []),
        ("1970-01-01T00:00:35.000Z", "queued", ["Resources"]),
        ("1970-01-01T00:00:50.000Z", "backoff", ["Backoff"]),
        ("1970-01-01T00:01:00.000Z", "queued", []),
        ("1970-01-01T00:01:10.000Z", "queued", []),
    ]
