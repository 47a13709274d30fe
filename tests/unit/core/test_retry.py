"""Which endings are tried again, and when."""

import pytest

from jarvis.core.retry import Ending, RetryPolicy, backoff_seconds, ending_classes, should_retry
from jarvis.core.states import Cause

OOM = Ending(Cause.OOM, signal=9)
SEVENTY_FIVE = Ending(Cause.EXIT, exit_code=75)
VALUE_ERROR = Ending(Cause.EXCEPTION, exit_code=1, exception="ValueError")


def test_classes() -> None:
    assert ending_classes(OOM) == {"any", "oom", "signal:9"}
    assert ending_classes(SEVENTY_FIVE) == {"any", "exit", "exit:75"}
    assert ending_classes(VALUE_ERROR) == {"any", "exception", "exit:1", "exception:ValueError"}


@pytest.mark.parametrize(("policy", "ending", "failures", "again"), [
    (RetryPolicy(), OOM, 1, False),
    (RetryPolicy(max_attempts=3), OOM, 1, True),
    (RetryPolicy(max_attempts=3), OOM, 3, False),
    (RetryPolicy(max_attempts=3, retry_on=("oom",)), SEVENTY_FIVE, 1, False),
    (RetryPolicy(max_attempts=3, retry_on=("oom", "exit:75")), SEVENTY_FIVE, 1, True),
    (RetryPolicy(max_attempts=3, never_on=("exception:ValueError",)), VALUE_ERROR, 1, False),
])  # fmt: skip
def test_decisions(policy: RetryPolicy, ending: Ending, failures: int, again: bool) -> None:
    assert should_retry(policy, ending, failures) is again


def test_losses_are_counted_elsewhere() -> None:
    with pytest.raises(ValueError, match="counter"):
        should_retry(RetryPolicy(), Ending(Cause.NODE_LOST), 1)


@pytest.mark.parametrize(("backoff", "windows"), [
    ("constant", [2, 2, 2, 2]), ("linear", [2, 4, 6, 8]), ("exponential", [2, 4, 8, 10]),
])  # fmt: skip
def test_waits_grow_up_to_a_bound_and_are_spread(backoff: str, windows: list[float]) -> None:
    policy = RetryPolicy(backoff=backoff, base=2.0, max_backoff=10.0)  # type: ignore[arg-type]
    assert [backoff_seconds(policy, n, 0.0) for n in range(1, 5)] == [w / 2 for w in windows]
    assert [backoff_seconds(policy, n, 0.999999) for n in range(1, 5)] == pytest.approx(windows, rel=1e-5)
    assert backoff_seconds(policy, 10_000, 0.0) <= max(10_000, policy.max_backoff)
