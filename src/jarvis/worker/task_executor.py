"""PORT: starts one kind of task on this node. What happens to it comes back through :class:`Reports`."""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol

from jarvis.core.inputs import Ended
from jarvis.core.states import Cause
from jarvis.worker.machine import Stage, Work

FetchBlob = Callable[[int, str], Awaitable[bytes]]
PutBlob = Callable[[int, int, bytes], Awaitable[str]]
DEFECT = "the agent of its node met a defect"


class Spawn(Protocol):
    """Run it in the background. A defect there is logged, and ends the attempt that it ``stands_for``, if it does for one."""

    def __call__(self, coroutine: Coroutine[Any, Any, None], stands_for: Work | None = None, /) -> None: ...


class Reports(Protocol):
    """How an executor tells the agent."""

    def started(self, number: int, age: float = 0.0) -> None: ...
    def finished(self, end: Ended, heir: int | None = None) -> None: ...
    def vacated(self, number: int, heir: int | None = None) -> None: ...
    def adopted(self, work: Work, where: Stage) -> None: ...
    def unbegun(self, number: int, heir: int | None) -> None: ...
    def withdrawn(self, works: Sequence[Work]) -> None: ...
    def ahead(self, like: Work, limit: int) -> list[Work]: ...


class TaskExecutor(Protocol):
    """Methods return at once; what takes time goes on in the background."""

    def start(self, work: Work) -> None: ...
    def kill(self, work: Work, cause: Cause, grace_s: float) -> None: ...
    def signal(self, work: Work, signum: int) -> None: ...
    def forget(self, number: int, work: Work | None) -> None:
        """The end is recorded: acknowledge it below, remove what was kept."""
        ...

    def broke(self, work: Work, message: str) -> None:
        """A defect ended what was done here for its attempt, which ends with that as soon as nothing of it runs any more."""
        ...

    def output_of(self, work: Work, stream: str) -> tuple[str, int]:
        """(path, offset of its first byte) of an output stream of something that runs."""
        ...


def failed(work: Work, message: str, exit_code: int = 125) -> Ended:
    """The end of something that could not be started."""
    return Ended(
        number=work.number, token=work.assignment.token, cause=Cause.START_FAILED, exit_code=exit_code, message=message
    )


def lost(work: Work, message: str) -> Ended:
    """The end of something that its node is to blame for: it may run elsewhere."""
    return Ended(number=work.number, token=work.assignment.token, cause=Cause.SUPERVISOR_LOST, message=message)


def cut(work: Work, cause: Cause, message: str = "") -> Ended:
    """The end of something that was stopped."""
    return Ended(number=work.number, token=work.assignment.token, cause=cause, message=message)
