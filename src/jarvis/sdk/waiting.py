"""A condition that costs little until somebody waits at it: of a pool's ten thousand futures hardly any is ever waited for."""

import threading
from collections import deque
from typing import Any


class Waiting(threading.Condition):
    """As ``threading.Condition`` with an RLock. That one makes eight objects that the collector of cycles looks at, again and again
    while a program submits, which takes longer than all else in a future; here they are made by whoever waits first."""

    _waiters: Any
    _lock: Any

    def __init__(self) -> None:
        self._lock, self._waiters = threading.RLock(), ()

    def acquire(self, *args: Any, **options: Any) -> bool:
        return bool(self._lock.acquire(*args, **options))

    def release(self) -> None:
        self._lock.release()

    def _release_save(self) -> Any:
        return self._lock._release_save()  # noqa: SLF001 - as Condition does

    def _acquire_restore(self, state: Any) -> None:
        self._lock._acquire_restore(state)  # noqa: SLF001 - as Condition does

    def _is_owned(self) -> bool:
        return bool(self._lock._is_owned())  # noqa: SLF001 - as Condition does

    def wait(self, timeout: float | None = None) -> bool:
        if type(self._waiters) is tuple and self._is_owned():
            self._waiters = deque()
        return super().wait(timeout)

    def notify(self, n: int = 1) -> None:
        if self._waiters:
            super().notify(n)
