"""How urgent a task is, as the command line says it: a word or a number, less what is nice to others."""

from typing import Any

import pytest

from jarvis.cli.options import task_fields


@pytest.mark.parametrize(
    ("given", "priority"),
    [
        ({"priority": "high"}, 500),
        ({"priority": "-7"}, -7),
        ({"nice": 100}, -100),
        ({"nice": 0}, 0),
        ({"priority": "high", "nice": 100}, 400),
        ({"priority": "20", "nice": -5}, 25),
        ({"priority": "urgent", "nice": 5}, "urgent"),
    ],
)
def test_nice_is_taken_away(given: dict[str, Any], priority: object) -> None:
    assert task_fields(given, {}, "/here")["priority"] == priority


def test_who_says_nothing_asks_for_nothing() -> None:
    assert "priority" not in task_fields({}, {}, "/here")
