"""SHELL: what ended before this leader led, read page by page between turns, so that its predictions need not begin anew."""

from typing import TYPE_CHECKING

from jarvis.core.states import TERMINAL
from jarvis.scheduler.policy.prediction import Predictor
from jarvis.state.store import Store, TaskFilter

if TYPE_CHECKING:
    from jarvis.core.attempt import Attempt
    from jarvis.core.task import Task

PAGE = 200
"""Tasks read, or ends learned, in one turn: about 10 ms."""
MOST = 2000
"""Tasks that are read, the newest ones: with more, groups would forget the first of them again."""


class Recall:
    """Reads the newest first, and learns the oldest first, as they came."""

    def __init__(self, store: Store, most: int) -> None:
        self._store, self._most = store, most
        self._left = 0
        self._before: int | None = None
        self._found: list[tuple[float, int, int, Task, Attempt]] = []

    def begin(self) -> None:
        self._left, self._before, self._found = self._most, None, []

    @property
    def is_pending(self) -> bool:
        return bool(self._left or self._found)

    async def advance(self, predictor: Predictor) -> None:
        """One page more."""
        if self._left:
            await self._read()
            if not self._left:
                self._found.sort(key=lambda end: end[:3], reverse=True)
            return
        for _ in range(min(PAGE, len(self._found))):
            at, _, _, task, attempt = self._found.pop()
            if attempt.usage is not None and attempt.cause is not None:
                predictor.learn(task, attempt.usage, attempt.cause, at)

    async def _read(self) -> None:
        page = await self._store.task_list(TaskFilter(states=TERMINAL), self._before, min(PAGE, self._left))
        tasks = {task.id: task for task in page}
        for attempt in await self._store.attempt_list_ended(list(tasks)) if tasks else ():
            self._found.append((attempt.ended_at or 0.0, attempt.task, attempt.index, tasks[attempt.task], attempt))
        self._left = max(self._left - len(page), 0) if len(page) == PAGE else 0
        self._before = page[-1].id if page else None
