"""Event: a recorded, numbered fact. The leader alone writes them, packed in one row a commit."""

import msgspec


class Event(msgspec.Struct, gc=False, frozen=True, array_like=True):
    """``seq`` has no gaps within an incarnation; ``at`` is database time; ``detail`` is small and flat."""

    seq: int
    at: float
    kind: str
    task: int = 0
    index: int = -1
    attempt: int = 0
    node: int = 0
    cause_id: str = ""
    detail: dict[str, str | int | float] = {}
