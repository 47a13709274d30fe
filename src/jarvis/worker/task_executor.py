"""PORT: starts one kind of task on this node. What happens to it comes back through the agent's ``happened``."""

from typing import Protocol

from jarvis.core.inputs import Ended
from jarvis.core.states import Cause
from jarvis.worker.machine import Work


class Reports(Protocol):
    """How an executor tells the agent."""

    def started(self, number: int, age: float = 0.0) -> None: ...
    def finished(self, end: Ended) -> None: ...


class TaskExecutor(Protocol):
    """Methods return at once; what takes time goes on in the background."""

    def start(self, work: Work) -> None: ...
    def kill(self, work: Work, cause: Cause, grace_s: float) -> None: ...
    def signal(self, work: Work, signum: int) -> None: ...
    def forget(self, number: int, work: Work | None) -> None:
        """The end is recorded: acknowledge it below, remove what was kept."""
        ...


def failed(work: Work, message: str, exit_code: int = 125) -> Ended:
    """The end of something that could not be started."""
    return Ended(
        number=work.number, token=work.assignment.token, cause=Cause.START_FAILED, exit_code=exit_code, message=message
    )
