"""``Client``: everything of the REST API as plain calls."""

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self

from jarvis.sdk import artifacts, batches, pushing
from jarvis.sdk.connection import Connection
from jarvis.sdk.errors import TaskFailed, WaitTimedOut
from jarvis.sdk.workflow_handle import WorkflowHandle

TERMINAL = frozenset({"succeeded", "failed", "cancelled", "timeout", "expired", "lost", "skipped", "upstream_failed"})
LONG_POLL_S = 20.0


class TaskHandle:
    """A submitted task; ``id`` is what people type."""

    def __init__(self, client: "Client", ident: int) -> None:
        self._client, self.id = client, ident

    def __repr__(self) -> str:
        return f"<task {self.id}>"

    def show(self) -> dict[str, Any]:
        return self._client.show(self.id)

    def wait(self, timeout: float | None = None) -> dict[str, Any]:
        """Until it has ended; raises :class:`WaitTimedOut` after ``timeout`` seconds."""
        return self._client.wait(self.id, timeout)

    def check(self, timeout: float | None = None) -> dict[str, Any]:
        """As :meth:`wait`, and raises :class:`TaskFailed` unless it succeeded."""
        task = self.wait(timeout)
        if task["state"] != "succeeded":
            raise TaskFailed(self.id, task["state"], str(task.get("cause") or task.get("reason") or ""))
        return task

    def cancel(self) -> None:
        self._client.act(self.id, "cancel")

    def logs(self, **params: Any) -> bytes:
        return self._client.logs(self.id, **params)

    def artifacts(self, attempt: int | None = None) -> dict[str, Any]:
        """``items`` (path, size, digest) that the newest attempt left, or the one asked for; ``left_out`` says what could
        not be kept."""
        return self._client.artifacts(self.id, attempt)

    def get_artifacts(self, directory: str | os.PathLike[str] = ".", *patterns: str) -> list[Path]:
        """Bring those that match into a directory, all of them without a pattern; checked, and never outside of it."""
        return self._client.get_artifacts(self.id, directory, *patterns)


class Client:
    """Asks one server. Without arguments: the one of this user, found by its 0600 file or JARVIS_URL."""

    def __init__(
        self, url: str | None = None, token: str | None = None, directory: str | os.PathLike[str] | None = None
    ) -> None:  # fmt: skip
        self.connection = Connection(url, token, directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self.connection.close()

    def submit(self, **spec: Any) -> TaskHandle:
        """Submit one task; the keywords are the fields of ``POST /tasks``. Durable when it returns."""
        return TaskHandle(self, int(self.connection.post("/tasks", spec, idempotent=True)["id"]))

    def submit_many(
        self, specs: Iterable[dict[str, Any]], *, batch: int | None = None, at_once: int = batches.AT_ONCE,
        key: str | None = None,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """One answer per spec, in order: ``{"id": …}`` or ``{"problem": …}``.

        Up to 10,000 go in one request; more, or more than ``batch``, in several, ``at_once`` of them under way at a time. Ids rise
        with the place within a request, and with ``at_once=1`` over all of them. After a failure some may be accepted: the same
        call under the same ``key`` gets the ids of those and submits the others.
        """
        return batches.submit(self.connection, specs, batch=batch, at_once=at_once, key=key)

    def submit_calls(self, task: bytes, args: list[bytes]) -> list[int]:
        """Calls of one function that differ in their pickled arguments alone; ``task`` is JSON. Their ids, in order."""
        import msgspec  # the command line has no use for it

        body = msgspec.msgpack.encode({"task": task, "args": args})
        answer = self.connection.post_bytes("/tasks/calls", body, idempotent=True)
        return msgspec.msgpack.decode(answer, type=list[int])

    def submit_workflow(
        self, document: str | dict[str, Any], params: dict[str, Any] | None = None, *, reuse: bool = True
    ) -> WorkflowHandle:
        """Submit a workflow, as YAML or as an object; durable when it returns. Without ``reuse``, steps with a cache run in any
        case."""
        body = {"document": document, "params": params or {}, **({} if reuse else {"reuse": False})}
        return WorkflowHandle(self, int(self.connection.post("/workflows", body, idempotent=True)["id"]))

    def validate_workflow(self, document: str | dict[str, Any], params: dict[str, Any] | None = None) -> dict[str, Any]:
        """``valid``, ``problems`` with path and line, ``levels`` and ``order`` of the steps; nothing is stored."""
        return dict(self.connection.post("/workflows/validate", {"document": document, "params": params or {}}))

    def workflow(self, ident: int) -> WorkflowHandle:
        return WorkflowHandle(self, ident)

    def show(self, ident: int | str) -> dict[str, Any]:
        return dict(self.connection.get(f"/tasks/{ident}"))

    def act(self, ident: int | str, verb: str, **args: Any) -> Any:
        """cancel, hold, release, requeue, retry, signal, suspend, resume."""
        return self.connection.post(f"/tasks/{ident}/{verb}", args or None)

    def tasks(self, limit: int | None = None, **where: Any) -> Iterator[dict[str, Any]]:
        """Newest first, page by page."""
        cursor, given = None, 0
        while True:
            page = self.connection.get("/tasks", cursor=cursor, limit=min(limit or 500, 500), **where)
            for task in page["items"]:
                yield task
                given += 1
                if limit is not None and given >= limit:
                    return
            cursor = page.get("next")
            if not cursor:
                return

    def wait(self, ident: int | str, timeout: float | None = None) -> dict[str, Any]:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = LONG_POLL_S if deadline is None else min(LONG_POLL_S, max(deadline - time.monotonic(), 0.0))
            task = dict(self.connection.get(f"/tasks/{ident}", wait=f"{left:.3f}s", timeout=left + 30.0))
            if task["state"] in TERMINAL:
                return task
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimedOut(f"task {ident} is still {task['state']} after {timeout:g} s", "wait_timed_out")

    def logs(self, ident: int | str, **params: Any) -> bytes:
        return self.connection.request("GET", f"/tasks/{ident}/logs", params=params).content

    def push(
        self, *paths: str | os.PathLike[str], take_all: bool = False, limit: int = pushing.LIMIT,
        project: str | None = None, tell: Callable[[pushing.Report], None] = lambda report: None,
    ) -> str:  # fmt: skip
        """Store files and directories for tasks: ``submit(push=[client.push("src")], …)``. Only what the server lacks is
        sent; of a Git checkout what is tracked, unless ``take_all``. ``limit`` in bytes."""
        return pushing.push(self.connection, paths, take_all=take_all, limit=limit, project=project, tell=tell)

    def artifacts(self, ident: int | str, attempt: int | None = None) -> dict[str, Any]:
        return artifacts.listed(self.connection, ident, attempt)

    def get_artifacts(
        self, ident: int | str, directory: str | os.PathLike[str] = ".", *patterns: str, attempt: int | None = None
    ) -> list[Path]:
        return artifacts.fetch(self.connection, ident, directory, patterns, attempt=attempt)

    def put_blob(self, data: bytes, project: str | None = None) -> str:
        """Store bytes; returns their digest."""
        digest = hashlib.sha256(data).hexdigest()
        answer = self.connection.request("PUT", "/blobs", content=data, params={"project": project}).json()
        assert answer["digest"] == digest, "the server stored something else"
        return digest
