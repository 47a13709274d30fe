"""PURE: something that is due at an instant."""

from typing import NamedTuple

from jarvis.core.ids import SOLO


class Timer(NamedTuple):
    """Something to look at again at an instant; looked at once, and ignored when it no longer applies."""

    at: float
    kind: str
    task: int
    index: int = SOLO  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
