"""A submitted workflow, as a client sees it."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from jarvis.sdk.errors import ClientError, WaitTimedOut

if TYPE_CHECKING:
    from jarvis.sdk.client import Client

LONG_POLL_S = 20.0
ENDS = frozenset({"succeeded", "failed", "cancelled", "timeout"})


class WorkflowFailed(ClientError):
    """A workflow did not succeed; ``steps`` are the paths of those that failed."""

    def __init__(self, workflow: int, state: str, steps: list[str]) -> None:
        named = f" ({', '.join(steps[:5])})" if steps else ""
        super().__init__(f"workflow {workflow} ended {state}{named}", code=state)
        self.workflow, self.state, self.steps = workflow, state, steps


class WorkflowHandle:
    """``id`` is what people type."""

    def __init__(self, client: "Client", ident: int) -> None:
        self._client, self.id = client, ident

    def __repr__(self) -> str:
        return f"<workflow {self.id}>"

    def show(self) -> dict[str, Any]:
        return dict(self._client.connection.get(f"/workflows/{self.id}"))

    def wait(self, timeout: float | None = None) -> dict[str, Any]:
        """Until it has ended; raises :class:`WaitTimedOut` after ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = LONG_POLL_S if deadline is None else min(LONG_POLL_S, max(deadline - time.monotonic(), 0.0))
            found = self._client.connection.get(f"/workflows/{self.id}", wait=f"{left:.3f}s", timeout=left + 30.0)
            if found["state"] in ENDS:
                return dict(found)
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimedOut(
                    f"workflow {self.id} is still {found['state']} after {timeout:g} s", "wait_timed_out"
                )

    def result(self, timeout: float | None = None) -> Any:
        """Its output; raises :class:`WorkflowFailed` unless it succeeded."""
        found = self.wait(timeout)
        if found["state"] != "succeeded":
            bad = [s["path"] for s in self.steps() if s["state"] in ("failed", "timeout", "lost", "cancelled")]
            raise WorkflowFailed(self.id, found["state"], bad)
        return found["output"]

    def steps(self) -> Iterator[dict[str, Any]]:
        """Steps that have left ``waiting``, page by page."""
        cursor: str | None = ""
        while cursor is not None:
            page = self._client.connection.get(f"/workflows/{self.id}/steps", cursor=cursor, limit=1000)
            yield from page["items"]
            cursor = page["next"]

    def step(self, path: str) -> dict[str, Any] | None:
        return next((step for step in self.steps() if step["path"] == path), None)

    def act(self, verb: str, **body: Any) -> Any:
        """cancel, pause, resume, decide."""
        return self._client.connection.post(f"/workflows/{self.id}/{verb}", body or None)

    def retry(self, *again: str) -> "WorkflowHandle":
        """A new workflow that takes over what went well; ``again`` are steps that run again all the same."""
        answer = self._client.connection.post(f"/workflows/{self.id}/retry", {"again": list(again)}, idempotent=True)
        return WorkflowHandle(self._client, int(answer["id"]))

    def cancel(self) -> None:
        self.act("cancel")
