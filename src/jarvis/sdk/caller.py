"""Calls on their way: pickled once, gathered into batches, their results fetched many at a time."""

import asyncio
import atexit
import hashlib
import os
import pickle
import sys
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import cloudpickle
import msgspec

from jarvis.sdk.broken import ProcessDied
from jarvis.sdk.client import Client
from jarvis.sdk.errors import ClientError, TaskFailed
from jarvis.sdk.pushes import Pushes
from jarvis.sdk.waiting import Waiting

T = TypeVar("T")
Function = Callable[..., Any]
Row = tuple[int, str, str, str, bytes | None, str | None]
"""Task, state, cause, message, result, digest of the result."""

BATCH = 1000
RESULTS_AT_ONCE = 2000
"""Calls whose ends are waited for at a time: each request names them all."""
WAIT_S = 5.0
TURN_S = 0.1
"""How long a part of more than ``RESULTS_AT_ONCE`` pending calls is waited for before the next part has its turn."""
INLINE = 64 * 1024
REQUEST_BYTES = 4 * 1024 * 1024
"""Arguments that travel in one request; the server takes twice as much."""
TEMPLATES_MOST = 1000
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_DIED = frozenset({"exit", "signal", "oom"})
_BROKEN = (ClientError, OSError, RuntimeError)
"""What a request may raise; RuntimeError is what the HTTP client says when somebody closed it."""


class RemoteTraceback(Exception):
    """Where the exception was raised, on the node; the ``__cause__`` of what is re-raised here."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"


class Call(NamedTuple):
    """A call that is to be sent: its spec without the function, the code's digest, its arguments inline or by digest."""

    spec: dict[str, Any]
    code: str
    args: bytes
    digest: str | None
    future: "TaskFuture[Any]"

    def goes_with(self, other: "Call") -> bool:
        """Whether they differ in their arguments alone."""
        return self.spec is other.spec and self.code == other.code and self.digest is None and other.digest is None

    def task(self) -> dict[str, Any]:
        """As the API takes it."""
        function = {**self.spec["function"], "code": self.code, "python": PYTHON}
        return {**self.spec, "function": function if self.digest is None else {**function, "args_digest": self.digest}}


class TaskFuture(Future[T]):
    """A Future that knows its task; cancelling it cancels the task, even when it runs already."""

    task_id: int | None = None
    _owner: "Caller | None" = None
    _invoke_callbacks: Callable[[], None]

    def __init__(self) -> None:
        """As the base class does, but for the condition."""
        self._condition = Waiting()
        self._state, self._result, self._exception = "PENDING", None, None
        self._waiters: list[Any] = []
        self._done_callbacks: list[Any] = []

    def cancel(self) -> bool:
        if not super().cancel():
            return False
        if self._notify_cancelled() and self._owner is not None:
            self._owner.cancel_later(self)
        return True

    def _notify_cancelled(self) -> bool:
        """Wake who waits for it; true the first time."""
        with self._condition:
            if self._state != "CANCELLED":
                return False
            self.set_running_or_notify_cancel()
            return True

    def settle(self, value: Any, error: BaseException | None) -> None:
        """What it returned or ended with; nothing where it was cancelled."""
        with self._condition:
            if self._state != "PENDING":
                return
            self._state, self._result, self._exception = "FINISHED", value, error
            for waiter in self._waiters:
                (waiter.add_result if error is None else waiter.add_exception)(self)
            self._condition.notify_all()
        self._invoke_callbacks()

    def drop(self) -> None:
        """As cancel, when the server has cancelled its task already."""
        if super().cancel():
            self._notify_cancelled()

    def fail(self, error: BaseException) -> None:
        self.settle(None, error)

    def get_artifacts(self, directory: str | os.PathLike[str] = ".", *patterns: str) -> list[Path]:
        """Bring the files that the call left (``pull``) into a directory, when it has ended; the paths."""
        self.exception()
        if self._owner is None or self.task_id is None:
            raise RuntimeError("the call did not reach the cluster")
        return self._owner.client.get_artifacts(self.task_id, directory, *patterns)

    def __await__(self) -> Iterator[Any]:
        return asyncio.wrap_future(self).__await__()


class Caller:
    """Two threads of a client: one sends calls and cancellations, one fetches results.

    ``limit`` is how many calls may be with the server at once; ``wrap`` goes around each function; ``leave`` is called when
    all is over. A ``detached`` caller's results are not waited for when the program ends.
    """

    def __init__(
        self, client: Client, limit: int | None = None, wrap: Callable[[Function], Function] | None = None,
        leave: Callable[[], None] | None = None, detached: bool = False,
    ) -> None:  # fmt: skip
        self._client, self._limit, self._wrap, self._leave, self.detached = client, limit, wrap, leave, detached
        self._lock = threading.Lock()
        self._to_send, self._to_fetch = threading.Condition(self._lock), threading.Condition(self._lock)
        self._calls: deque[Call] = deque()
        self._pending: dict[int, TaskFuture[Any]] = {}
        self._cancels: list[tuple[int, dict[str, Any]]] = []
        self._dropped: set[int] = set()
        self._unsettled = 0
        self._closing = False
        self._reader, self._poll = uuid.uuid4().hex, 0
        """``_poll`` numbers the request that waits for results; 0 while none does."""
        self._pushes = Pushes(client)
        self._codes: set[str] = set()
        self._templates: dict[tuple[int, str], tuple[dict[str, Any], bytes]] = {}
        """What calls of a spec and a code have in common; the spec is kept, so that its id stays its own."""
        self._pickled: WeakKeyDictionary[Function, str] = WeakKeyDictionary()
        self._threads = [
            threading.Thread(target=self._send_all, name="jarvis-submit", daemon=True),
            threading.Thread(target=self._fetch_all, name="jarvis-results", daemon=True),
        ]
        _callers.add(self)
        for thread in self._threads:
            thread.start()

    @property
    def client(self) -> Client:
        return self._client

    # ------------------------------------------------------------ the threads of users

    def call(
        self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any], spec: dict[str, Any]
    ) -> TaskFuture[Any]:
        """Never raises for what cannot be pickled or stored: the future does. Calls with the same ``spec`` travel together."""
        future: TaskFuture[Any] = TaskFuture()
        future._owner = self
        try:
            body = _pickle((args, kwargs))
            digest = self._client.put_blob(body) if len(body) > INLINE else None
            if "push" in spec:
                spec = self._pushes.filled(spec)
            call = Call(spec, self._code(function), b"" if digest else body, digest, future)
        except Exception as error:  # noqa: BLE001 - whatever the user's own pickling raises
            future.fail(error)
            return future
        with self._lock:
            self._unsettled += 1
            self._calls.append(call)
            if len(self._calls) == 1:  # else it is on its way to them, or has no room for more
                self._to_send.notify()
        return future

    def _code(self, function: Function) -> str:
        """The digest of a function's pickle; sent to the server the first time."""
        try:
            known = self._pickled.get(function)
        except TypeError:  # a callable that has no hash or no weak reference is pickled each time
            return self._send_code(function)
        if known is None:
            known = self._pickled[function] = self._send_code(function)
        return known

    def _send_code(self, function: Function) -> str:
        data = cloudpickle.dumps(function if self._wrap is None else self._wrap(function))
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self._codes:
            self._client.put_blob(data)
            self._codes.add(digest)
        return digest

    def cancel_later(self, future: TaskFuture[Any]) -> None:
        """Called by futures, also from callbacks: the request itself is the sending thread's."""
        with self._lock:
            if future.task_id is not None:
                self._cancels.append((future.task_id, {"grace": 0}))
            self._to_send.notify()

    def drop_waiting(self) -> None:
        """Cancel what has not begun to run."""
        with self._lock:
            calls = [call.future for call in self._calls]
            self._dropped |= set(self._pending)
            self._cancels += [(task, {"unstarted": True}) for task in self._pending]
            self._to_send.notify()
        for future in calls:
            future.cancel()

    def close(self) -> None:
        """No more calls will come; the threads end with the last result."""
        with self._lock:
            self._closing = True
            self._to_send.notify_all()
            self._to_fetch.notify_all()

    def join(self) -> None:
        """Until all calls have ended (when detached: are with the server)."""
        for thread in self._threads[: 1 if self.detached else 2]:
            if thread is not threading.current_thread():
                thread.join()

    # ------------------------------------------------------------ the sending thread

    def _send_all(self) -> None:
        while self._send():
            pass

    def _send(self) -> bool:
        """One request for everything that has gathered while the one before was on its way."""
        with self._lock:
            while not self._cancels and not self._room():
                if self._closing and not (self._calls if self.detached else self._unsettled):
                    return False
                self._to_send.wait()
            cancels, self._cancels = self._cancels, []
            batch = [self._calls.popleft() for _ in range(min(self._room(), len(self._calls)))]
        if batch:
            self._submit(batch)
        for task, how in cancels:
            if "unstarted" not in how:
                self._take([task])
            try:
                self._client.act(task, "cancel", **how)
            except _BROKEN:
                continue
        return True

    def _room(self) -> int:
        """How many of the calls at hand may be sent now."""
        free = BATCH if self._limit is None else max(self._limit - len(self._pending), 0)
        return min(free, BATCH, len(self._calls))

    def _take(self, tasks: list[int]) -> list[TaskFuture[Any] | None]:
        """Out of the pending ones, for good; None for what is not among them."""
        with self._lock:
            taken = [self._pending.pop(task, None) for task in tasks]
            self._settled(len(taken) - taken.count(None))
        return taken

    def _settled(self, count: int) -> None:
        """So many calls are over; the lock is held."""
        self._unsettled -= count
        self._to_send.notify()
        self._to_fetch.notify()

    def _submit(self, batch: list[Call]) -> None:
        alive = [call for call in batch if not call.future.cancelled()]
        sent: list[tuple[Call, int]] = []
        for group in _groups(alive):
            try:
                sent += zip(group, self._send_group(group), strict=True)
            except _BROKEN as error:
                for call in group:
                    call.future.fail(error)
        with self._lock:
            before = len(self._pending)
            for call, task in sent:
                call.future.task_id = task
                self._pending[task] = call.future
                if call.future.cancelled():
                    self._cancels.append((task, {"grace": 0}))
            self._settled(len(batch) - (len(self._pending) - before))
            poll = self._poll if before < RESULTS_AT_ONCE else 0
        self._end_poll(poll)

    def _send_group(self, group: list[Call]) -> list[int]:
        first = group[0]
        if first.digest is not None:
            return [self._client.submit(**first.task()).id]
        at = (id(first.spec), first.code)
        known = self._templates.get(at)
        if known is None or known[0] is not first.spec:
            if len(self._templates) >= TEMPLATES_MOST:
                self._templates.clear()
            known = self._templates[at] = (first.spec, msgspec.json.encode(first.task()))
        return self._client.submit_calls(known[1], [call.args for call in group])

    def _end_poll(self, poll: int) -> None:
        """A request that waits already does not know what was submitted since: another one takes its place."""
        while poll and poll == self._poll:
            try:
                if self._ask([], 0.0)["took"]:
                    return
            except _BROKEN:
                return

    # ------------------------------------------------------------ the fetching thread

    def _fetch_all(self) -> None:
        polls = 0
        while True:
            with self._lock:
                while not self._pending:
                    if self._closing and not self._unsettled:
                        break
                    self._to_fetch.wait()
                if not self._pending:
                    break
                wanted = [task for task, _ in zip(self._pending, range(RESULTS_AT_ONCE), strict=False)]
                polls += 1
                self._poll = polls
                wait = WAIT_S if len(self._pending) == len(wanted) else TURN_S
            self._fetch(wanted, wait)
        _callers.discard(self)
        if self._leave is not None:
            self._leave()

    def _fetch(self, wanted: list[int], wait: float) -> None:
        try:
            rows = self._ask(wanted, wait)["results"]
        except _BROKEN as error:
            for lost in filter(None, self._take(wanted)):
                lost.fail(error)
            return
        finally:
            self._poll = 0
        for future, row in zip(self._take([row[0] for row in rows]), rows, strict=True):
            if future is not None:
                self._settle(future, row)
        if not rows and wait == TURN_S:
            with self._lock:
                for task in wanted:
                    if task in self._pending:
                        self._pending[task] = self._pending.pop(task)

    def _ask(self, ids: list[int], wait: float) -> dict[str, Any]:
        body = msgspec.msgpack.encode({"ids": ids, "wait": wait, "reader": self._reader})
        answer = self._client.connection.post_bytes("/tasks/results", body, timeout=wait + 30)
        return dict(msgspec.msgpack.decode(answer))

    def _settle(self, future: TaskFuture[Any], row: Row) -> None:
        if row[1] == "cancelled" and row[0] in self._dropped:
            future.drop()
        else:
            future.settle(*self._outcome(row))

    def _outcome(self, row: Row) -> tuple[Any, BaseException | None]:
        """What the call returned, or what it ended with."""
        task, state, cause, message, data, digest = row
        try:
            if data is None and digest is not None:
                data = self._client.connection.request("GET", f"/blobs/{digest}").content
            if state == "succeeded" and data is not None:
                return pickle.loads(data), None
            if cause == "exception" and data is not None:
                error, text = pickle.loads(data)
                error.__cause__ = RemoteTraceback(text)
                return None, error
        except Exception as error:  # noqa: BLE001 - a result that cannot be unpickled here is this call's error
            return None, error
        except BaseException as error:  # noqa: BLE001 - nor may one end the program
            return None, RuntimeError(f"unpickling the result raised {type(error).__name__}({error})")
        return None, (ProcessDied if cause in _DIED else TaskFailed)(task, state, message or cause)


def _groups(calls: list[Call]) -> Iterator[list[Call]]:
    """Neighbours that go together, as many as one request may carry."""
    group: list[Call] = []
    size = 0
    for call in calls:
        size += len(call.args)
        if group and (not call.goes_with(group[-1]) or size > REQUEST_BYTES):
            yield group
            group, size = [], len(call.args)
        group.append(call)
    if group:
        yield group


def _pickle(value: object) -> bytes:
    try:
        return pickle.dumps(value, protocol=5)
    except Exception:  # noqa: BLE001 - lambdas and local classes: the slower pickler knows them
        return bytes(cloudpickle.dumps(value, protocol=5))


_callers: set[Caller] = set()
ending = threading.Event()
"""Set when the program ends: from then on no call is taken."""


@atexit.register
def _at_exit() -> None:
    """A program that ends waits for its calls, as with every other executor."""
    ending.set()
    for caller in list(_callers):
        caller.close()
    for caller in list(_callers):
        caller.join()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_callers.clear)
