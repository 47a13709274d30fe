"""What is kept of the last ends is bounded, by their number and by their size."""

import pytest

from jarvis.core.attempt import Attempt
from jarvis.core.changes import Changes
from jarvis.core.ids import SOLO
from jarvis.core.states import State
from jarvis.core.task import Task, TaskSpec
from jarvis.state import recent_outcomes
from jarvis.state.recent_outcomes import RecentOutcomes


def end(ident: int, result: bytes = b"") -> Changes:
    task = Task(
        id=ident, uuid="u", project="p", user="u", spec=TaskSpec(name="t"), submitted_at=1.0, ended_at=2.0, state=State.SUCCEEDED
    )  # fmt: skip
    attempt = Attempt(task=ident, index=SOLO, attempt=1, token=7, node=1, number=ident, placements=(), assigned_at=1.0)
    attempt.result = result
    return Changes(tasks={ident: task}, attempts={(ident, SOLO, 1): attempt})


def test_the_oldest_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_outcomes, "MOST", 3)
    monkeypatch.setattr(recent_outcomes, "MOST_BYTES", 100)
    recent = RecentOutcomes()
    for ident in range(1, 6):
        recent.note(end(ident, b"x"))
    found, unknown = recent.of([5, 4, 3, 2, 1])
    assert ({o.task for o in found}, unknown) == ({3, 4, 5}, [1, 2])
    recent.note(end(6, b"x" * 99))
    assert {o.task for o in recent.of(range(9))[0]} == {5, 6}
    recent.note(end(6, b"x" * 98))
    recent.note(end(7, b"x"))
    assert {o.task for o in recent.of(range(9))[0]} == {5, 6, 7}, "what is said again counts once"
    recent.note(end(8, b"x" * 101))
    assert recent.of(range(9))[0] == []
