"""The event loop: epoll, callbacks by descriptor, and parts that are called again when their time has come."""

from __future__ import annotations

import os
import select
import signal

from .system import child_ends, log, now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Part(Protocol):
        """Something with a time at which it wants to be called; `inf` for never."""

        @property
        def due(self) -> float: ...

        def on_due(self, moment: float) -> None: ...


NEVER = float("inf")
READ = select.EPOLLIN | select.EPOLLRDHUP
WRITE = select.EPOLLOUT
HANGUP = select.EPOLLHUP | select.EPOLLERR
# epoll waits on a clock that stops in suspend; looking again this often bounds how late a deadline can be after it.
LONGEST_SLEEP = 5.0


class Loop:
    """One thread, no exceptions out of callbacks: the supervisor outlives a bug in one of its attempts."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.callbacks: dict[int, Callable[[int], None]] = {}
        self.masks: dict[int, int] = {}
        self.parts: list[Part] = []
        self.signals: Callable[[set[int]], None] = lambda received: None
        self.turn_ends: Callable[[], None] = lambda: None
        self.finished = False
        self.hurry = False  # set within a turn when work is left over: do not sleep
        self._wakeup, self._alarm = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.watch(self._wakeup, READ, self._on_wakeup)

    def listen_to_signals(self, signals: list[int]) -> None:
        """Turn signals into readable bytes; the handlers themselves do nothing."""
        signal.set_wakeup_fd(self._alarm, warn_on_full_buffer=False)
        for signum in signals:
            signal.signal(signum, lambda _signum, _frame: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        self._ends = child_ends()
        self.watch(self._ends, READ, self._on_end)

    def watch(self, fd: int, mask: int, callback: Callable[[int], None]) -> None:
        """Call `callback(mask)` on events of `fd`; a second watch of the same fd changes the first."""
        known = self.masks.get(fd)
        if known is None:
            self.epoll.register(fd, mask)
        elif known != mask:
            self.epoll.modify(fd, mask)
        self.masks[fd] = mask
        self.callbacks[fd] = callback

    def forget(self, fd: int) -> None:
        """Stop watching; before the fd is closed."""
        if self.callbacks.pop(fd, None) is not None:
            del self.masks[fd]
            self.epoll.unregister(fd)

    def run(self) -> None:
        """Turn until finished."""
        while not self.finished:
            self.turn()

    def turn(self) -> None:
        """Wait for the next thing that happens or is due, then handle all that has gathered."""
        due = min([part.due for part in self.parts], default=NEVER)
        timeout = 0.0 if self.hurry else max(0.0, min(due - now(), LONGEST_SLEEP))
        self.hurry = False
        for fd, mask in self.epoll.poll(timeout):
            callback = self.callbacks.get(fd)
            if callback is not None:
                guarded(callback, mask)
        if due <= now():  # what has become due since is handled in the next turn, which will not sleep
            self._call_due()
        guarded(self.turn_ends)

    def _call_due(self) -> None:
        moment = now()
        for part in self.parts:
            if part.due <= moment:
                guarded(part.on_due, moment)

    def _on_end(self, mask: int) -> None:
        try:
            os.read(self._ends, 4096)
        except BlockingIOError:
            return
        self.signals(set())

    def _on_wakeup(self, mask: int) -> None:
        received: set[int] = set()
        try:
            received.update(os.read(self._wakeup, 65536))
        except BlockingIOError:
            pass
        self.signals(received)


def guarded(function: Callable[..., None], *arguments: object) -> None:
    """Call it; a defect is logged with its trace and ends there."""
    try:
        function(*arguments)
    except Exception:  # noqa: BLE001 - whatever the defect, the tasks of this node depend on us
        import traceback

        log(f"defect, continuing: {traceback.format_exc()}")
