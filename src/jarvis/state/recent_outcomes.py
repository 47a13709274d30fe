"""How the last tasks ended, kept in memory: who waits for results asks for them a moment after they were committed."""

from collections.abc import Iterable
from typing import Any

from jarvis.core.changes import Changes
from jarvis.core.ids import SOLO
from jarvis.state.persistence import outcome_fields
from jarvis.state.store import Outcome

MOST = 5_000
MOST_BYTES = 8 * 1024 * 1024
"""Of results and outputs together."""
_RESULT, _OUTPUT = Outcome.__match_args__.index("result"), Outcome.__match_args__.index("output")


class RecentOutcomes:
    """For a store whose only writer is this process."""

    def __init__(self) -> None:
        self._ended: dict[int, tuple[Any, ...]] = {}
        """Fields of outcomes by task, the oldest first."""
        self._bytes = 0

    def note(self, changes: Changes) -> None:
        """This was committed. What does not say how a task ended in full makes it unknown."""
        last = {task: attempt for (task, index, _), attempt in changes.attempts.items() if index == SOLO}
        if self._ended:
            self.forget(last.keys() | changes.tasks.keys())
        later = {task for task, _, _ in changes.attempts_new} if last else set()
        for ident, attempt in last.items():
            task = changes.tasks.get(ident)
            if task is not None and task.ended_at is not None and ident not in later:
                fields = self._ended[ident] = outcome_fields(task, attempt)
                self._bytes += _size(fields)
        while len(self._ended) > MOST or self._bytes > MOST_BYTES:
            self.forget([next(iter(self._ended))])

    def forget(self, tasks: Iterable[int]) -> None:
        for ident in tasks:
            fields = self._ended.pop(ident, None)
            if fields is not None:
                self._bytes -= _size(fields)

    def of(self, tasks: Iterable[int]) -> tuple[list[Outcome], list[int]]:
        """Those that are known, and the tasks of which the store must be asked."""
        found, unknown = [], []
        for ident in set(tasks):
            fields = self._ended.get(ident)
            if fields is None:
                unknown.append(ident)
            else:
                found.append(Outcome(*fields))
        return found, sorted(unknown)


def _size(fields: tuple[Any, ...]) -> int:
    return len(fields[_RESULT] or b"") + len(fields[_OUTPUT] or b"")
