"""Virtual time: an event loop that never waits, but jumps to the next timer; the same seed makes the same history."""

import asyncio
from typing import Any

SPIN_LIMIT = 200_000
"""Turns of the loop without time passing before it is taken for an endless one."""


class Stuck(RuntimeError):
    """Everybody waits for somebody, or somebody never waits: time cannot go on."""


class _Jump:
    """In the place of the selector: instead of waiting for a file it moves the clock."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Stuck("nothing is due and nobody can go on")
        self._loop.advance(timeout)
        return []

    def close(self) -> None:
        """Nothing is held."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Callbacks run in the order that asyncio promises, and at equal instants in one fixed order. No threads, no files."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._spins = 0
        self._selector = _Jump(self)

    def time(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass; raises :class:`Stuck` when it has not passed for very many turns."""
        self._spins = 0 if seconds > 0.0 else self._spins + 1
        if self._spins > SPIN_LIMIT:
            self._spins = 0
            raise Stuck(f"time stands still at {self._now}")
        self._now += seconds

    def _process_events(self, event_list: list[Any]) -> None:
        """There are no files, so there are no events."""

    def _write_to_self(self) -> None:
        raise RuntimeError("threads have no place in virtual time")
