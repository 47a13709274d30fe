"""Functions as tasks: ``Executor``, ``@task`` and what they take."""

import os
import sys
import sysconfig
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor as BaseExecutor
from contextlib import AbstractContextManager
from functools import partial
from itertools import islice
from time import monotonic
from typing import Any, Generic, ParamSpec, TypeVar, cast
from weakref import finalize

from jarvis.sdk.broken import InitializerFailed
from jarvis.sdk.caller import Caller, TaskFuture, ending
from jarvis.sdk.client import Client
from jarvis.sdk.errors import Unreachable
from jarvis.sdk.remote import Chunk, Initialized
from jarvis.sdk.workflow import building

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Call = Callable[[], TaskFuture[Any]]

NAMES_MOST = 1000
_FIELDS = (
    "queue",
    "priority",
    "project",
    "time_limit",
    "constraints",
    "tolerations",
    "keys",
    "near",
    "apart",
    "prefer",
    "licenses",
    "on_lost",
    "preemptible",
    "balancer",
    "name",
    "after",
)


def function_spec(options: dict[str, Any], name: str) -> dict[str, Any]:
    """The fields of a task from what ``Executor`` and ``@task`` take: cpus, mem, gpus, gpu_mem, retries, retry_on, push, pull, and
    more."""
    given = dict(options)
    spec: dict[str, Any] = {"name": name, "cwd": os.getcwd(), "function": {}}
    resources: dict[str, Any] = {"cpu": given.pop("cpus", 1)}
    for option, resource in (("mem", "memory"), ("gpus", "gpu"), ("gpu_mem", "gpu_memory")):
        if given.get(option) is not None:
            resources[resource] = given[option]
        given.pop(option, None)
    retries, retry_on = given.pop("retries", 0), given.pop("retry_on", None)
    if retries:
        spec["retry"] = {"max_attempts": retries + 1}
        if retry_on is not None:
            spec["retry"]["retryable_errors"] = list(retry_on)
    for option, field in (("push", "push"), ("pull", "artifacts")):
        words = given.pop(option, None) or ()
        if words:
            spec[field] = [words] if isinstance(words, str | os.PathLike) else list(words)
            spec.pop("cwd", None)  # it has a directory of its own
    unknown = set(given) - set(_FIELDS)
    if unknown:
        raise TypeError(
            f"unknown option {min(unknown)!r}; there are cpus, mem, gpus, gpu_mem, retries, retry_on, push, pull, "
            f"{', '.join(_FIELDS)}"
        )
    spec["env"] = environment()
    return spec | {"resources": resources} | given


_OWN = (
    f"{sys.base_prefix}/{sys.platlibdir}/python{sys.version_info.major}{sys.version_info.minor}.zip",
    sysconfig.get_config_var("DESTSHARED"),
)
"""Where every interpreter looks of itself, behind its standard library: a node's has its own."""


def environment() -> dict[str, str]:
    """Where programs and modules are found, as here. Each task keeps it in its row, so nothing is said twice."""
    programs = dict.fromkeys(os.environ.get("PATH", "").split(os.pathsep))
    modules = dict.fromkeys(entry or os.getcwd() for entry in sys.path if entry not in _OWN)
    return {"PATH": os.pathsep.join(programs), "PYTHONPATH": os.pathsep.join(modules)}


class Executor(BaseExecutor):
    """``concurrent.futures.Executor`` on a Jarvis cluster: of a given client, of the running server, or a private one.

    ``max_workers`` is how many of its calls are with the cluster at once (a private one has as many cores);
    ``initializer(*initargs)`` runs once in each process before the pool's first call there, and a process ends after
    ``max_tasks_per_child`` calls. A process that dies ends its own call (:class:`ProcessDied`) and not the pool.
    """

    def __init__(
        self, max_workers: int | None = None, client: Client | None = None, *,
        initializer: Callable[..., object] | None = None, initargs: tuple[Any, ...] = (),
        max_tasks_per_child: int | None = None, **options: Any,
    ) -> None:  # fmt: skip
        _check_count("max_workers", max_workers)
        _check_count("max_tasks_per_child", max_tasks_per_child)
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._spec = function_spec(options, "call")
        self._specs: dict[str, dict[str, Any]] = {}
        wrap = None
        if initializer is not None:
            pool = self._spec["function"]["environment"] = uuid.uuid4().hex
            wrap = partial(Initialized, pool=pool, initializer=initializer, args=initargs)
        if max_tasks_per_child is not None:
            self._spec["function"]["max_calls"] = max_tasks_per_child
        limit, leave = max_workers, None
        if client is None:
            client, leave, private = _find_cluster(max_workers)
            if private and self._spec["resources"]["cpu"] in (1, "1"):
                limit = None  # its cores are the limit, and calls may wait there
        self._caller = Caller(client, limit, wrap, leave)
        self._close = finalize(self, self._caller.close)
        self._close.atexit = False
        self._shut = False
        self._broken: list[BaseException] = []
        self._guard = threading.Lock()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[T]:
        """Raises RuntimeError after shutdown, and :class:`InitializerFailed` when the initializer has failed."""
        with self._guard:
            if self._broken:
                raise InitializerFailed(str(self._broken[0])) from self._broken[0]
            if self._shut or ending.is_set():
                what = "shutdown" if self._shut else "interpreter shutdown"
                raise RuntimeError(f"cannot schedule new futures after {what}")
            future = self._caller.call(fn, args, kwargs, self._spec_of(getattr(fn, "__name__", "call")))
        if "environment" in self._spec["function"]:
            future.add_done_callback(partial(_look_broken, self._broken))
        return future

    def _spec_of(self, name: str) -> dict[str, Any]:
        """One object for each name, so that calls with the same one travel together."""
        spec = self._specs.get(name)
        if spec is None:
            if len(self._specs) >= NAMES_MOST:
                self._specs.clear()
            spec = self._specs[name] = {**self._spec, "name": name}
        return spec

    def map(
        self, fn: Callable[..., T], /, *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:  # fmt: skip
        """Results in order. ``chunksize`` sets of arguments go into one call; with ``buffersize`` no more calls than that
        are ahead of what was taken, so that iterables may be endless. Raises TimeoutError ``timeout`` seconds from now.
        """
        deadline = None if timeout is None else monotonic() + timeout
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        _check_count("buffersize", buffersize)
        submit: Callable[..., TaskFuture[Any]] = self.submit
        rows = zip(*iterables, strict=False)
        if chunksize == 1:
            calls = (partial(submit, fn, *row) for row in rows)
            return _results(_ahead(calls, buffersize), calls, deadline)
        parts: Iterator[list[tuple[Any, ...]]] = iter(lambda: list(islice(rows, chunksize)), [])
        chunk = Chunk(fn)
        calls = (partial(submit, chunk, part) for part in parts)
        return _flat(_results(_ahead(calls, buffersize), calls, deadline))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; ``cancel_futures`` cancels those that have not begun. Waits for the others unless told not to."""
        with self._guard:
            self._shut = True
        if cancel_futures:
            self._caller.drop_waiting()
        self._close()
        if wait:
            self._caller.join()


def _check_count(name: str, value: int | None) -> None:
    if value is not None and not isinstance(value, int):
        raise TypeError(f"{name} must be an integer or None")
    if value is not None and value <= 0:
        raise ValueError(f"{name} must be greater than 0")


def _look_broken(broken: list[BaseException], future: TaskFuture[Any]) -> None:
    error = None if future.cancelled() else future.exception()
    if isinstance(error, InitializerFailed):
        broken.append(error)


def _find_cluster(cpus: int | None) -> tuple[Client, Callable[[], None], bool]:
    """The running server or a private cluster, how to leave it, and whether it is private."""
    try:
        client = Client()
        client.connection.get("/version")
        return client, client.close, False
    except Unreachable:
        pass  # and out of here: what is raised meanwhile would keep this exception, and with it the pool
    from jarvis.sdk.local import local

    manager = local(cpus=cpus)
    return manager.__enter__(), partial(_leave, manager), True


def _leave(manager: AbstractContextManager[Client]) -> None:
    manager.__exit__(None, None, None)


def _ahead(calls: Iterator[Call], count: int | None) -> deque[TaskFuture[Any]]:
    """The first ``count`` of them submitted, or all."""
    return deque(call() for call in islice(calls, count))


def _results(futures: deque[TaskFuture[Any]], calls: Iterator[Call], deadline: float | None) -> Iterator[Any]:
    """In order; keeps no reference to what it has given. What is left when nobody wants more is cancelled."""
    try:
        while futures:
            yield _result_of(futures.popleft(), deadline)
            futures.extend(_ahead(calls, 1))
    finally:
        for future in futures:
            future.cancel()


def _result_of(future: TaskFuture[T], deadline: float | None) -> T:
    try:
        return future.result(None if deadline is None else deadline - monotonic())
    finally:
        future.cancel()
        del future  # the exception's traceback leads to this frame


def _flat(lists: Iterator[list[Any]]) -> Iterator[Any]:
    for part in lists:
        part.reverse()
        while part:
            yield part.pop()


_default: Caller | None = None
_default_lock = threading.Lock()


def _default_caller() -> Caller:
    global _default
    with _default_lock:
        if _default is None:
            _default = Caller(Client(), detached=True)
        return _default


class TaskFunction(Generic[P, R]):
    """A function that can be submitted; called directly it just runs."""

    def __init__(self, function: Callable[P, R], options: dict[str, Any]) -> None:
        self._function, self._options = function, options
        self._spec: dict[str, Any] | None = None
        self.__name__ = getattr(function, "__name__", "task")
        self.__doc__ = function.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Just run it; within a ``@workflow``, a step of that."""
        builder = building.get()
        if builder is None:
            return self._function(*args, **kwargs)
        spec = function_spec(self._options, self.__name__)
        return cast("R", builder.call(self._function, spec, args, dict(kwargs)))

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[R]:
        """Run it as a task of the running server; the future can be awaited too."""
        spec = function_spec(self._options, self.__name__)
        self._spec = spec = self._spec if self._spec == spec else spec
        return _default_caller().call(self._function, args, kwargs, spec)

    def map(self, items: Iterable[Any]) -> list[TaskFuture[R]]:
        """Once for each; within a ``@workflow``, a step that fans out over a list or an earlier result."""
        builder = building.get()
        if builder is not None:
            spec = function_spec(self._options, self.__name__)
            each = list(items) if isinstance(items, list | tuple | range) else items
            return cast("list[TaskFuture[R]]", builder.call(self._function, spec, (), {}, each=each))
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
