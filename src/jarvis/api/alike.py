"""PURE: members of a batch that differ in their command alone, which is what most batches are, read at a tenth of the price.

A member is bytes of JSON. Where the bytes before and after the command are those of a member that was read and checked in full, only
the command is looked at. Whatever is unusual about it is left to the full way, which has the words for mistakes.
"""

import re
from collections.abc import Callable

import msgspec

from jarvis.api.schemas.task_in import TaskFast
from jarvis.api.schemas.task_rules import named_after
from jarvis.core.task import TaskSpec

_KEY = re.compile(rb'"command"\s*:\s*')
_PROBE = b'["\\u0070"]'
"""Another command, to see that what it stands for is the command."""
_command = msgspec.json.Decoder(list[str] | str).decode
_replace = msgspec.structs.replace


class _Command(msgspec.Struct):
    command: msgspec.Raw


class Alike:
    """What is around the command of a member, and the spec that it was read as."""

    __slots__ = ("_head", "_names", "_spec", "_tail")

    def __init__(self, head: bytes, tail: bytes, spec: TaskSpec, named: bool) -> None:
        """``named``: its name does not come from its command."""
        self._head, self._tail, self._spec = head, tail, spec
        self._names: dict[str, str] | None = None if named else {}

    def read(self, body: bytes) -> TaskSpec | None:
        """The spec of a member like this one; None where it is another, or its command has to be looked at closely."""
        head, tail = self._head, self._tail
        if not (body.startswith(head) and body.endswith(tail)) or len(body) <= len(head) + len(tail):
            return None
        given = body[len(head) : len(body) - len(tail)]
        if b"\\" in given:  # control characters are written with it
            return None
        try:
            command = _command(given)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        if not command:
            return None
        name = self._spec.name if self._names is None else self._name(command)
        return _replace(self._spec, name=name, command=command if isinstance(command, str) else tuple(command))

    def _name(self, command: list[str] | str) -> str:
        if isinstance(command, str):
            return named_after(command)
        assert self._names is not None
        name = self._names.get(command[0])
        if name is None:
            name = self._names[command[0]] = named_after(command[0])
        return name


class Same:
    """A member whose likes are told by all of their bytes."""

    __slots__ = ("_body", "_spec")

    def __init__(self, body: bytes, spec: TaskSpec) -> None:
        self._body, self._spec = body, spec

    def read(self, body: bytes) -> TaskSpec | None:
        return self._spec if body == self._body else None


def alike(body: bytes, task: TaskFast, spec: TaskSpec, decode: Callable[[bytes], TaskFast]) -> Alike | Same:
    """What others may have in common with a member that was read in full."""
    found = _KEY.search(body)
    if found is None or not task.command or task.function is not None:
        return Same(body, spec)
    value = bytes(msgspec.json.decode(body, type=_Command).command)
    head, tail = body[: found.end()], body[found.end() + len(value) :]
    try:
        probed = decode(head + _PROBE + tail)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Same(body, spec)
    if body != head + value + tail or probed != _replace(task, command=["p"]):
        return Same(body, spec)  # the key was found within another, or stands there twice
    return Alike(head, tail, spec, named=task.name is not None or task.script is not None)
