"""TaskFuture is a Future in every respect that CPython tests."""

import logging
import threading
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import Any

import pytest

from jarvis.sdk.caller import TaskFuture


def ended(result: Any = None, error: BaseException | None = None) -> TaskFuture[Any]:
    future: TaskFuture[Any] = TaskFuture()
    future.settle(result, error)
    return future


def running() -> TaskFuture[Any]:
    future: TaskFuture[Any] = TaskFuture()
    assert future.set_running_or_notify_cancel()
    return future


def cancelled() -> TaskFuture[Any]:
    future: TaskFuture[Any] = TaskFuture()
    assert future.cancel()
    return future


def fail(_: Future[Any]) -> None:
    raise ArithmeticError("a callback's own fault")


def test_callbacks_get_the_result() -> None:
    future, seen = running(), []
    future.add_done_callback(lambda f: seen.append(f.result()))
    future.set_result(5)
    assert seen == [5]


def test_callbacks_get_the_exception() -> None:
    future, seen = running(), []
    error = OSError("disk")
    future.add_done_callback(lambda f: seen.append(f.exception()))
    future.set_exception(error)
    assert seen == [error]


def test_callbacks_hear_of_cancelling() -> None:
    future: TaskFuture[Any] = TaskFuture()
    seen: list[bool] = []
    future.add_done_callback(lambda f: seen.append(f.cancelled()))
    assert future.cancel()
    assert seen == [True]


def test_a_callback_that_raises_is_logged_and_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    future, seen = running(), []
    future.add_done_callback(fail)
    future.add_done_callback(lambda f: seen.append(f.result()))
    with caplog.at_level(logging.ERROR, "concurrent.futures"):
        future.set_result(1)
    assert seen == [1]
    assert "a callback's own fault" in caplog.text


def test_callbacks_of_what_has_succeeded_run_at_once() -> None:
    seen: list[int] = []
    ended(6).add_done_callback(lambda f: seen.append(f.result()))
    assert seen == [6]


def test_callbacks_of_what_has_failed_run_at_once() -> None:
    error, seen = OSError("gone"), []
    ended(error=error).add_done_callback(lambda f: seen.append(f.exception()))
    assert seen == [error]


def test_callbacks_of_what_was_cancelled_run_at_once() -> None:
    seen: list[bool] = []
    cancelled().add_done_callback(lambda f: seen.append(f.cancelled()))
    assert seen == [True]


def test_a_late_callback_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "concurrent.futures"):
        ended(1).add_done_callback(fail)
    assert "a callback's own fault" in caplog.text


def test_repr_tells_the_state() -> None:
    pending: TaskFuture[Any] = TaskFuture()
    assert "TaskFuture" in repr(pending)
    for future, words in (
        (pending, "state=pending"), (running(), "state=running"), (cancelled(), "state=cancelled"),
        (ended(error=OSError()), "state=finished raised OSError"), (ended(3), "state=finished returned int"),
    ):  # fmt: skip
        assert words in repr(future)


def test_cancel_takes_what_is_pending_only() -> None:
    for future, may in (
        (TaskFuture(), True), (cancelled(), True), (running(), False), (ended(1), False), (ended(error=OSError()), False),
    ):  # fmt: skip
        assert future.cancel() is may
        assert future.cancelled() is may


def test_only_what_was_cancelled_says_so() -> None:
    pending: TaskFuture[Any] = TaskFuture()
    assert [f.cancelled() for f in (pending, running(), cancelled(), ended(1))] == [False, False, True, False]


def test_what_has_ended_is_done() -> None:
    pending: TaskFuture[Any] = TaskFuture()
    futures = (pending, running(), cancelled(), ended(1), ended(error=OSError()))
    assert [f.done() for f in futures] == [False, False, True, True, True]


def test_only_what_has_begun_and_not_ended_runs() -> None:
    pending: TaskFuture[Any] = TaskFuture()
    assert [f.running() for f in (pending, running(), cancelled(), ended(1))] == [False, True, False, False]


def test_result_gives_up_after_its_time() -> None:
    pending: TaskFuture[Any] = TaskFuture()
    for future in (pending, running()):
        with pytest.raises(TimeoutError):
            future.result(timeout=0)
    with pytest.raises(CancelledError):
        cancelled().result(timeout=0)
    with pytest.raises(OSError, match="disk"):
        ended(error=OSError("disk")).result(timeout=0)
    assert ended(42).result(timeout=0) == 42


def in_thread(call: Any) -> threading.Thread:
    thread = threading.Thread(target=call)
    thread.start()
    return thread


def test_result_waits_for_another_thread() -> None:
    future = running()
    thread = in_thread(lambda: future.set_result("here"))
    assert future.result(timeout=30) == "here"
    thread.join()


def test_result_hears_of_cancelling_in_another_thread() -> None:
    future: TaskFuture[Any] = TaskFuture()
    thread = in_thread(future.cancel)
    with pytest.raises(CancelledError):
        future.result(timeout=30)
    thread.join()


def test_exception_gives_up_after_its_time() -> None:
    pending: TaskFuture[Any] = TaskFuture()
    for future in (pending, running()):
        with pytest.raises(TimeoutError):
            future.exception(timeout=0)
    with pytest.raises(CancelledError):
        cancelled().exception(timeout=0)
    assert isinstance(ended(error=OSError("disk")).exception(timeout=0), OSError)
    assert ended(1).exception(timeout=0) is None


def test_exception_waits_for_another_thread() -> None:
    future, error = running(), OSError("late")
    thread = in_thread(lambda: future.set_exception(error))
    assert future.exception(timeout=30) is error
    thread.join()


def test_a_result_is_set_once() -> None:
    future = ended(1)
    with pytest.raises(InvalidStateError):
        future.set_result(2)
    assert future.result() == 1


def test_an_exception_is_set_once() -> None:
    error = OSError("first")
    future = ended(error=error)
    with pytest.raises(InvalidStateError):
        future.set_exception(OSError("second"))
    assert future.exception() is error
