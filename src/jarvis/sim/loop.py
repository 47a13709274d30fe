"""Virtual time: an event loop that never waits, but jumps to the next timer; the same seed makes the same history."""

import asyncio
from collections import deque
from contextvars import Context, ContextVar, copy_context
from typing import Any

SPIN_LIMIT = 200_000
"""Turns of the loop without time passing before it is taken for an endless one."""


_process: ContextVar[str] = ContextVar("process", default="")


def of_process(name: str) -> Context:
    """A context for all that a simulated process does, its timers included."""
    context = copy_context()
    context.run(_process.set, name)
    return context


OF_NOBODY = Context()
"""For what goes on by itself, as bytes on their way do whose sender stands still."""


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


class _Ready(deque[asyncio.Handle]):
    """What is to run next; what belongs to a process that stands still waits elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[str, list[asyncio.Handle]] = {}

    def append(self, handle: asyncio.Handle, /) -> None:
        held = self.held.get(handle._context.get(_process, "")) if self.held else None  # type: ignore[attr-defined]  # noqa: SLF001 - whose it is, nobody else tells
        if held is None:
            super().append(handle)
        else:
            held.append(handle)


class VirtualLoop(asyncio.BaseEventLoop):
    """Callbacks run in the order that asyncio promises, and at equal instants in one fixed order. No threads, no files."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._spins = 0
        self._selector = _Jump(self)
        self._ready = _Ready()

    def freeze(self, process: str) -> None:
        """It stands still at whatever await it is, and its timers with it, as after SIGSTOP."""
        waiting = list(self._ready)
        self._ready.clear()
        self._ready.held.setdefault(process, [])
        for handle in waiting:
            self._ready.append(handle)

    def thaw(self, process: str) -> None:
        """It goes on; what became due meanwhile is due now."""
        for handle in self._ready.held.pop(process, ()):
            self._ready.append(handle)

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
