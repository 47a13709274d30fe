"""PURE: members of a batch that differ in their command alone, as most do, are read at a tenth of the price.

A member is bytes of JSON. Where the bytes before and after the command are those of a member that was read and checked in full,
only the command is looked at. Whatever is unusual about it is left to the full way, which has the words for mistakes.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile

import msgspec

from jarvis.api.schemas.task_in import TaskFast
from jarvis.api.schemas.task_rules import named_after
from jarvis.core.task import TaskSpec

Command = list[str] | str
_KEY = re.compile(rb'"command"\s*:\s*')
_PROBE = b'["\\u0070"]'
"""Another command, to see that what it stands for is the command."""
_command = msgspec.json.Decoder(list[str] | str).decode
_commands = msgspec.json.Decoder(list[list[str] | str]).decode
_BETWEEN = b"\0"
"""Stands nowhere in JSON."""
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

    def read(self, bodies: Sequence[bytes], begin: int, end: int, longest: int) -> list[TaskSpec]:
        """The specs of members like this one, from ``begin`` on, up to the first that is another, is longer than ``longest`` or
        has a command that has to be looked at closely."""
        some = bodies[begin:end]
        if not some:
            return []
        commands = self._together(some) if max(map(len, some)) <= longest else None
        if commands is None:
            commands = list(self._one_by_one(some, longest))
        known, names = self._spec, self._names
        if names is None:
            return [_replace(known, command=c if isinstance(c, str) else tuple(c)) for c in commands]
        return [
            _replace(known, name=named_after(c), command=c)
            if isinstance(c, str)
            else _replace(known, name=names.get(c[0]) or self._name(c[0]), command=tuple(c))
            for c in commands
        ]

    def _together(self, bodies: Sequence[bytes]) -> list[Command] | None:
        """Their commands, told in a few steps for all of them, or None if not all are like this one in every way.

        Each body is JSON, so that where what follows the command of one, the mark, and what precedes that of the next stand in a
        row, a member ends. What is left, if it reads as one command each, is nothing else: a second value would have a key.
        """
        head, tail = self._head, self._tail
        whole = _BETWEEN.join(bodies)
        if b"\\" in whole or whole.count(_BETWEEN) >= len(bodies):  # control characters are written with the one
            return None
        if not (whole.startswith(head) and whole.endswith(tail)):
            return None
        given = whole[len(head) : len(whole) - len(tail)].split(tail + _BETWEEN + head)
        if len(given) != len(bodies):
            return None
        try:
            commands = _commands(b"[" + b",".join(given) + b"]")
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        return commands if len(commands) == len(bodies) and all(commands) else None

    def _one_by_one(self, bodies: Sequence[bytes], longest: int) -> Iterator[Command]:
        head, tail = self._head, self._tail
        before, after = len(head), len(tail)
        for body in bodies:
            size = len(body)
            if not (before + after < size <= longest and body.startswith(head) and body.endswith(tail)):
                return
            given = body[before : size - after]
            if b"\\" in given:
                return
            try:
                command = _command(given)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                return
            if not command:
                return
            yield command

    def _name(self, program: str) -> str:
        assert self._names is not None
        name = self._names[program] = named_after(program)
        return name


class Same:
    """A member whose likes are told by all of their bytes."""

    __slots__ = ("_body", "_spec")

    def __init__(self, body: bytes, spec: TaskSpec) -> None:
        self._body, self._spec = body, spec

    def read(self, bodies: Sequence[bytes], begin: int, end: int, longest: int) -> list[TaskSpec]:
        same = takewhile(self._body.__eq__, bodies[begin:end])
        return [self._spec for _ in same]


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
