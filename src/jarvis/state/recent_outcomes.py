"""How the last tasks ended, kept in memory: who waits for results asks for them a moment after they were committed."""

from collections import OrderedDict
from collections.abc import Iterable

from jarvis.core.changes import Changes
from jarvis.core.ids import SOLO
from jarvis.state.persistence import outcome_of
from jarvis.state.store import Outcome

MOST = 5_000
MOST_BYTES = 8 * 1024 * 1024
"""Of results and outputs together."""


class RecentOutcomes:
    """For a store whose only writer is this process."""

    def __init__(self) -> None:
        self._ended = OrderedDict[int, Outcome]()
        """By task, the oldest first: a plain dict would look for that among all that it has forgotten."""
        self._bytes = 0

    def note(self, changes: Changes) -> None:
        """This was committed. What does not say how a task ended in full makes it unknown."""
        ended, tasks = self._ended, changes.tasks
        if not ended.keys().isdisjoint(tasks):
            self.forget(ended.keys() & tasks.keys())
        later = {task for task, _, _ in changes.attempts_new} if changes.attempts else ()
        for (ident, index, _), attempt in changes.attempts.items():
            if index != SOLO:
                continue
            if ident in ended:
                self.forget((ident,))
            task = tasks.get(ident)
            if task is not None and task.ended_at is not None and ident not in later:
                ended[ident] = outcome_of(task, attempt)
                self._bytes += len(attempt.result or b"") + len(attempt.output or b"")
        while len(ended) > MOST or self._bytes > MOST_BYTES:
            self._bytes -= _size(ended.popitem(last=False)[1])

    def forget(self, tasks: Iterable[int]) -> None:
        for ident in tasks:
            outcome = self._ended.pop(ident, None)
            if outcome is not None:
                self._bytes -= _size(outcome)

    def of(self, tasks: Iterable[int]) -> tuple[list[Outcome], list[int]]:
        """Those that are known, and the tasks of which the store must be asked."""
        found, unknown = [], []
        for ident in set(tasks):
            outcome = self._ended.get(ident)
            if outcome is None:
                unknown.append(ident)
            else:
                found.append(outcome)
        return found, sorted(unknown)


def _size(outcome: Outcome) -> int:
    return len(outcome.result or b"") + len(outcome.output or b"")
