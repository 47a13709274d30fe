"""Functions as tasks: pickled once, gathered into batches, their results fetched many at a time."""

import base64
import hashlib
import os
import pickle
import queue
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor as BaseExecutor
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any, Generic, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import cloudpickle
import msgspec

from jarvis.sdk.client import Client
from jarvis.sdk.errors import ClientError, TaskFailed

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

BATCH = 1000
RESULTS_AT_ONCE = 5000
WAIT_S = 10.0
INLINE = 64 * 1024
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


class RemoteTraceback(Exception):
    """Where the exception was raised, on the node; the ``__cause__`` of what is re-raised here."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"


class TaskFuture(Future[T]):
    """A Future that knows its task; cancelling it cancels the task."""

    task_id: int | None = None
    _owner: "Caller | None" = None

    def cancel(self) -> bool:
        cancelled = super().cancel()
        if cancelled and self._owner is not None and self.task_id is not None:
            self._owner.cancel_later(self.task_id)
        return cancelled

    def __await__(self) -> Iterator[Any]:
        import asyncio

        return asyncio.wrap_future(self).__await__()


class Caller:
    """Two threads of a client: one gathers calls into batches, one fetches results."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._calls: queue.SimpleQueue[tuple[dict[str, Any], TaskFuture[Any]] | None] = queue.SimpleQueue()
        self._pending: dict[int, TaskFuture[Any]] = {}
        self._cancels: list[int] = []
        self._lock = threading.Lock()
        self._something = threading.Event()
        self._closing = False
        self._codes: dict[str, str] = {}
        self._pickled: WeakKeyDictionary[Callable[..., Any], str] = WeakKeyDictionary()
        self._threads = [
            threading.Thread(target=self._submit_all, name="jarvis-submit", daemon=True),
            threading.Thread(target=self._fetch_all, name="jarvis-results", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def code(self, function: Callable[..., Any]) -> str:
        """The digest of a function's pickle; sent to the server the first time."""
        try:
            known = self._pickled.get(function)
        except TypeError:  # a callable that has no hash or no weak reference is pickled each time
            return self._send_code(function)
        if known is None:
            known = self._pickled[function] = self._send_code(function)
        return known

    def _send_code(self, function: Callable[..., Any]) -> str:
        data = cloudpickle.dumps(function)
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self._codes:
            self._codes[digest] = self._client.put_blob(data)
        return digest

    def call(self, code: str, args: tuple[Any, ...], kwargs: dict[str, Any], spec: dict[str, Any]) -> TaskFuture[Any]:
        future: TaskFuture[Any] = TaskFuture()
        future._owner = self
        body = _pickle((args, kwargs))
        call: dict[str, Any] = {"code": code, "python": PYTHON}
        if len(body) <= INLINE:
            call["args"] = base64.b64encode(body).decode()
        else:
            call["args_digest"] = self._client.put_blob(body)
        self._calls.put(({**spec, "function": call}, future))
        return future

    def cancel_later(self, task: int) -> None:
        """Called by futures, also from callbacks: the request itself is the fetching thread's."""
        with self._lock:
            self._cancels.append(task)
        self._something.set()

    def close(self) -> None:
        self._calls.put(None)
        self._closing = True
        self._something.set()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(timeout=60)

    # ------------------------------------------------------------ the submitting thread

    def _submit_all(self) -> None:
        """One request for everything that has gathered while the one before was on its way."""
        item = self._calls.get()
        while item is not None:
            batch = [item]
            item = None
            while len(batch) < BATCH and not self._calls.empty():
                following = self._calls.get()
                if following is None:
                    self._submit(batch)
                    return
                batch.append(following)
            self._submit(batch)
            item = self._calls.get()

    def _submit(self, batch: list[tuple[dict[str, Any], TaskFuture[Any]]]) -> None:
        alive = [(spec, future) for spec, future in batch if not future.cancelled()]
        if not alive:
            return
        try:
            answers = self._client.submit_many([spec for spec, _ in alive])
        except (ClientError, OSError) as error:
            for _, future in alive:
                _fail(future, error)
            return
        with self._lock:
            for (_, future), answer in zip(alive, answers, strict=True):
                if "id" not in answer:
                    problem = answer["problem"]
                    _fail(future, ClientError(str(problem.get("detail")), str(problem.get("code"))))
                    continue
                future.task_id = int(answer["id"])
                self._pending[future.task_id] = future
                if future.cancelled():
                    self._cancels.append(future.task_id)
        self._something.set()

    # ------------------------------------------------------------ the fetching thread

    def _fetch_all(self) -> None:
        while True:
            self._something.wait()
            self._something.clear()
            while self._pending or self._cancels:
                if not self._fetch():
                    break
            if self._closing and not self._pending and not self._threads[0].is_alive():
                return
            if self._closing and self._threads[0].is_alive():
                self._threads[0].join(timeout=0.05)
                self._something.set()

    def _fetch(self) -> bool:
        self._send_cancels()
        with self._lock:
            wanted = list(self._pending)[:RESULTS_AT_ONCE]
        if not wanted:
            return False
        body = msgspec.msgpack.encode({"ids": wanted, "wait": WAIT_S if not self._closing else 2.0})
        try:
            answer = self._client.connection.request("POST", "/tasks/results", content=body, timeout=WAIT_S + 30)
        except ClientError as error:
            with self._lock:
                failed, self._pending = self._pending, {}
            for future in failed.values():
                _fail(future, error)
            return False
        for row in msgspec.msgpack.decode(answer.content)["results"]:
            self._settle(row)
        return True

    def _send_cancels(self) -> None:
        with self._lock:
            cancels, self._cancels = self._cancels, []
        for task in cancels:
            self._pending.pop(task, None)
            try:
                self._client.act(task, "cancel", grace=0)
            except ClientError:
                continue

    def _settle(self, row: tuple[int, str, str, str, bytes | None, str | None]) -> None:
        task, state, cause, message, result, digest = row
        with self._lock:
            future = self._pending.pop(task, None)
        if future is None or not future.set_running_or_notify_cancel():
            return
        try:
            data = result if result is not None or digest is None else self._blob(digest)
            if state == "succeeded" and data is not None:
                future.set_result(pickle.loads(data))
            elif cause == "exception" and data is not None:
                error, text = pickle.loads(data)
                error.__cause__ = RemoteTraceback(text)
                future.set_exception(error)
            else:
                future.set_exception(TaskFailed(task, state, message or cause))
        except BaseException as error:  # noqa: BLE001 - a result that cannot be unpickled here is this call's error
            future.set_exception(error)

    def _blob(self, digest: str) -> bytes:
        return self._client.connection.request("GET", f"/blobs/{digest}").content


def _fail(future: TaskFuture[Any], error: BaseException) -> None:
    if future.set_running_or_notify_cancel():
        future.set_exception(error)


def _pickle(value: object) -> bytes:
    try:
        return pickle.dumps(value, protocol=5)
    except Exception:  # noqa: BLE001 - lambdas and local classes: the slower pickler knows them
        return bytes(cloudpickle.dumps(value, protocol=5))


_FIELDS = (
    "queue",
    "priority",
    "project",
    "time_limit",
    "constraints",
    "tolerations",
    "on_lost",
    "balancer",
    "name",
    "after",
)


def function_spec(options: dict[str, Any], name: str) -> dict[str, Any]:
    """The fields of a task from what ``Executor`` and ``@task`` take: cpus, mem, gpus, retries, retry_on and more."""
    given = dict(options)
    spec: dict[str, Any] = {"name": name, "cwd": os.getcwd()}
    resources: dict[str, Any] = {"cpu": given.pop("cpus", 1)}
    for option, resource in (("mem", "memory"), ("gpus", "gpu")):
        if given.get(option) is not None:
            resources[resource] = given[option]
        given.pop(option, None)
    retries, retry_on = given.pop("retries", 0), given.pop("retry_on", None)
    if retries:
        spec["retry"] = {"max_attempts": retries + 1}
        if retry_on is not None:
            spec["retry"]["retryable_errors"] = list(retry_on)
    unknown = set(given) - set(_FIELDS)
    if unknown:
        raise TypeError(
            f"unknown option {min(unknown)!r}; there are cpus, mem, gpus, retries, retry_on, {', '.join(_FIELDS)}"
        )
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    spec["env"] = {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": path}
    return spec | {"resources": resources} | given


class Executor(BaseExecutor):
    """``concurrent.futures.Executor`` on a Jarvis cluster: of a given client, of the running server, or a private one."""

    def __init__(self, max_workers: int | None = None, client: Client | None = None, **options: Any) -> None:
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        self._spec = function_spec(options, "call")
        self._exit: Callable[[], None] | None = None
        if client is None:
            client = self._find(max_workers)
        self._caller = Caller(client)
        self._futures: set[TaskFuture[Any]] = set()
        self._shut = False
        self._guard = threading.Lock()

    def _find(self, max_workers: int | None) -> Client:
        from jarvis.sdk.errors import Unreachable

        try:
            client = Client()
            client.connection.get("/version")
            return client
        except Unreachable:
            from jarvis.sdk.local import local

            manager = local(cpus=max_workers)
            client = manager.__enter__()
            self._exit = lambda: _leave(manager)
            return client

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[T]:
        with self._guard:
            if self._shut:
                raise RuntimeError("cannot schedule new futures after shutdown")
            spec = {**self._spec, "name": getattr(fn, "__name__", "call")}
            future = self._caller.call(self._caller.code(fn), args, kwargs, spec)
            self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with self._guard:
            if self._shut:
                return
            self._shut = True
        futures = list(self._futures)
        if cancel_futures:
            for future in futures:
                future.cancel()
        if wait:
            self._finish()
        else:
            threading.Thread(target=self._finish, name="jarvis-shutdown").start()

    def _finish(self) -> None:
        self._caller.close()
        if self._exit is not None:
            self._exit()


def _leave(manager: AbstractContextManager[Client]) -> None:
    manager.__exit__(None, None, None)


_default: Caller | None = None
_default_lock = threading.Lock()


def _default_caller() -> Caller:
    global _default
    with _default_lock:
        if _default is None:
            _default = Caller(Client())
        return _default


class TaskFunction(Generic[P, R]):
    """A function that can be submitted; called directly it just runs."""

    def __init__(self, function: Callable[P, R], options: dict[str, Any]) -> None:
        self._function, self._options = function, options
        self.__name__ = getattr(function, "__name__", "task")
        self.__doc__ = function.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._function(*args, **kwargs)

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[R]:
        """Run it as a task of the running server; the future can be awaited too."""
        caller = _default_caller()
        return caller.call(caller.code(self._function), args, kwargs, function_spec(self._options, self.__name__))

    def map(self, items: Iterable[Any]) -> list[TaskFuture[R]]:
        return [self.submit(item) for item in items]  # type: ignore[call-arg]


def task(function: Callable[P, R] | None = None, **options: Any) -> Any:
    """Decorator: ``@task`` or ``@task(cpus=4, mem="8G", retries=3, retry_on=["oom"])``."""
    function_spec(options, "task")
    if function is not None:
        return TaskFunction(function, options)
    return lambda f: TaskFunction(f, options)


def as_completed(futures: Iterable[TaskFuture[T]], timeout: float | None = None) -> Iterator[TaskFuture[T]]:
    """Futures as they finish; raises TimeoutError as ``concurrent.futures.as_completed`` does."""
    from concurrent.futures import as_completed as base

    yield from base(futures, timeout)  # type: ignore[misc]
