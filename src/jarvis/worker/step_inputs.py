"""What a function is given of the steps before it: placeholders in its arguments become values, in the warm process alone."""

import pickle
from collections.abc import Mapping
from typing import Any

import msgspec

from jarvis.core.task import StepInput, StepValue

JSON_MOST = 64 * 1024


def supplied(value: Any, inputs: dict[str, StepInput], bodies: Mapping[str, bytes]) -> Any:
    """The value with every placeholder in it, in whatever plain containers, filled in. ``bodies``: the stored results that
    the inputs name by digest."""
    if isinstance(value, StepValue):
        return _value(inputs[value.name], bodies)
    if type(value) in (list, tuple):
        return type(value)(supplied(item, inputs, bodies) for item in value)
    if type(value) is dict:
        return {key: supplied(item, inputs, bodies) for key, item in value.items()}
    return value


def _value(given: StepInput, bodies: Mapping[str, bytes]) -> Any:
    if given.pickled:
        kept = [bodies[digest] if digest else b"" for digest in given.digests or [""] * len(given.pickled)]
        values = [pickle.loads(part or body) for part, body in zip(given.pickled, kept, strict=True)]
        return values if given.many else values[0]
    return msgspec.json.decode(given.json or b"null")


def as_json(value: object) -> bytes:
    """The result as steps' expressions see it; empty where JSON cannot say it, or not in so few bytes."""
    try:
        data = msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError, UnicodeEncodeError):
        return b""
    return data if len(data) <= JSON_MOST else b""
