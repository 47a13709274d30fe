"""Identifiers: tasks are integers that people type, elements are ``42_7``, fencing tokens only grow."""

from typing import NamedTuple

from jarvis.core.errors import InvalidValue

SOLO = -1
"""Index of the only element of a task without an array."""

ATTEMPT_BITS = 20
MAX_ATTEMPT = (1 << ATTEMPT_BITS) - 1


class ElementKey(NamedTuple):
    """One element of one task: the thing that has a state and runs."""

    task: int
    index: int = SOLO  # type: ignore[assignment]  # hides tuple.index, which nobody needs here

    def __str__(self) -> str:
        return str(self.task) if self.index == SOLO else f"{self.task}_{self.index}"


def parse_element(text: str) -> ElementKey:
    """Read ``42`` or ``42_7``; raises :class:`InvalidValue` naming what was given."""
    task, _, index = text.partition("_")
    if not task.isascii() or not task.isdigit() or ("_" in text and not (index.isascii() and index.isdigit())):
        raise InvalidValue("id", text, "a task id like 42 or an element id like 42_7")
    return ElementKey(int(task), int(index) if index else SOLO)


def fencing_token(incarnation: int, attempt: int) -> int:
    """Token of an attempt: grows with each attempt and with each life of the database; below 2**53."""
    if not 0 < attempt <= MAX_ATTEMPT:
        raise InvalidValue("attempt", attempt, f"between 1 and {MAX_ATTEMPT}")
    return (incarnation << ATTEMPT_BITS) + attempt
