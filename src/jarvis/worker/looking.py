"""Files that schedules wait for on this node: looked for whenever the leader asks, where the node's own settings allow it.

Nothing has to outlive the agent: the files are there at the next look, and the leader knows which of them made runs.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence

import msgspec

from jarvis.bus.messages import Looked
from jarvis.core.effects import Look
from jarvis.core.schedule import Stamp
from jarvis.utils.directory_listing import listed

SCHEDULES_MOST = 1000
"""Whose last looks are remembered; that of another one is a first look again."""


class Looking:
    """Answers Look with Looked, unless the leader has seen just that."""

    def __init__(self, allowed: Sequence[str], say: Callable[[Looked], None]) -> None:
        self._allowed, self._say = allowed, say
        self._before: dict[int, dict[str, Stamp]] = {}
        self._busy: set[int] = set()

    async def look(self, wanted: Look) -> None:
        """One at a time for a schedule: a directory of a slow disk must not be waited for again and again."""
        if wanted.schedule in self._busy:
            return
        self._busy.add(wanted.schedule)
        try:
            self._answer(wanted, await asyncio.to_thread(self._found, wanted))
        finally:
            self._busy.discard(wanted.schedule)

    def _found(self, wanted: Look) -> dict[str, Stamp] | str:
        """What lies there, or why it cannot be seen."""
        try:
            return listed(wanted.directory, wanted.pattern, self._allowed, "worker.watch")
        except OSError as error:
            return str(error)

    def _answer(self, wanted: Look, found: dict[str, Stamp] | str) -> None:
        ident = wanted.schedule
        if isinstance(found, str):
            answer = Looked(schedule=ident, problem=found)
        else:
            before = self._before.pop(ident, {})
            while len(self._before) >= SCHEDULES_MOST:
                del self._before[next(iter(self._before))]
            self._before[ident] = found
            moving = [name for name, stamp in found.items() if before.get(name) != stamp]
            answer = Looked(schedule=ident, files=found, moving=moving)
        answer.mark = hashlib.blake2b(msgspec.msgpack.encode(answer), digest_size=16).hexdigest()
        if answer.mark != wanted.seen:
            self._say(answer)
