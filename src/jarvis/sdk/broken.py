"""What ends a pool or a call in it, for who catches ``concurrent.futures.process.BrokenProcessPool``."""

from concurrent.futures.process import BrokenProcessPool

from jarvis.sdk.errors import TaskFailed


class ProcessDied(TaskFailed, BrokenProcessPool):
    """The process ended in the middle of this call. Other calls, and the pool, go on."""


class InitializerFailed(BrokenProcessPool):
    """The pool's initializer raised, so that no call can run; its traceback is the ``__cause__``."""
