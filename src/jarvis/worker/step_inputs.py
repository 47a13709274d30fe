"""What a function is given of the steps before it: placeholders in its arguments become values, in the warm process alone."""

import pickle
from typing import Any

import msgspec

from jarvis.core.task import StepInput, StepValue

JSON_MOST = 64 * 1024


def supplied(value: Any, inputs: dict[str, StepInput]) -> Any:
    """The value with every placeholder in it, in whatever plain containers, filled in."""
    if isinstance(value, StepValue):
        return _value(inputs[value.name])
    if type(value) in (list, tuple):
        return type(value)(supplied(item, inputs) for item in value)
    if type(value) is dict:
        return {key: supplied(item, inputs) for key, item in value.items()}
    return value


def _value(given: StepInput) -> Any:
    if given.pickled:
        values = [pickle.loads(part) for part in given.pickled]
        return values if given.many else values[0]
    return msgspec.json.decode(given.json or b"null")


def as_json(value: object) -> bytes:
    """The result as steps' expressions see it; empty where JSON cannot say it, or not in so few bytes."""
    try:
        data = msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError, UnicodeEncodeError):
        return b""
    return data if len(data) <= JSON_MOST else b""
