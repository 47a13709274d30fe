"""The condition of futures: made of little, and to those who wait what any other one is."""

import gc
import threading

import pytest

from jarvis.sdk.caller import TaskFuture
from jarvis.sdk.waiting import Waiting


def test_who_waits_is_woken() -> None:
    condition, waits, woken = Waiting(), threading.Semaphore(0), []

    def wait() -> None:
        with condition:
            waits.release()
            woken.append(condition.wait(60))

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
        waits.acquire()
    with condition:
        condition.notify_all()
    for thread in threads:
        thread.join()
    assert woken == [True, True, True]


def test_a_wait_ends_in_time() -> None:
    condition = Waiting()
    with condition, condition:
        assert not condition.wait(0.001), "and lets go of it as often as it was taken"
    assert condition.acquire(blocking=False)
    condition.release()


def test_only_its_owner_may_wait_or_notify() -> None:
    condition = Waiting()
    for _ in range(2):
        with pytest.raises(RuntimeError):
            condition.wait(0)
        with condition:
            assert not condition.wait(0)
    with condition:
        condition.notify()


def test_a_future_is_made_of_few_objects() -> None:
    """The collector of cycles looks at each of them again and again while a program submits."""
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        futures: list[TaskFuture[None]] = [TaskFuture() for _ in range(1000)]
        made = len(gc.get_objects()) - before
    finally:
        gc.enable()
    assert made <= 6 * len(futures), "two of its own, its lists, and its condition"
