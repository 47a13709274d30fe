"""What the pools of these tests are given to run; in a module of its own, so that processes find it by its name."""

import os
import signal
import sys
import time
from pathlib import Path
from pickle import PicklingError, UnpicklingError
from typing import Any

STATUS = "nothing yet"


def initialize(value: str) -> None:
    global STATUS  # noqa: PLW0603 - what initializers are for
    STATUS = value


def status() -> str:
    return STATUS


def fail_to_initialize(reason: str) -> None:
    raise ValueError(reason)


def multiply(x: int, y: int) -> int:
    return x * y


def capture(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


def until(gate: str, result: Any = None) -> Any:
    """Wait for a file that the test makes."""
    while not Path(gate).exists():
        time.sleep(0.005)
    return result


def until_then_raise(gate: str) -> None:
    until(gate)
    raise LookupError("the gate opened")


def note(file: str, text: str) -> None:
    """Append a line; one write, so that lines of several processes stay whole."""
    with Path(file).open("a") as out:
        out.write(f"{text}\n")


def note_and_wait(file: str, gate: str, text: str) -> int:
    note(file, text)
    until(gate)
    return os.getpid()


def die() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def die_at(gate: str) -> None:
    until(gate)
    die()


def die_with(data: bytes) -> None:
    die()


def leave() -> None:
    sys.exit(3)


def go_wrong() -> None:
    raise RuntimeError(123)  # the words of this line


def make(kind: type) -> Any:
    return kind()


class Thing:
    def method(self) -> int:
        return 7


def make_thing(_: int) -> Thing:
    return Thing()


class Traced:
    """Leaves a file named for the process in which it is collected."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __del__(self) -> None:
        (Path(self.folder) / str(os.getpid())).touch()


def _raise_unpickling() -> None:
    raise UnpicklingError("spoilt")


class DiesWhenPickled:
    def __reduce__(self) -> Any:
        die()


class LeavesWhenPickled:
    def __reduce__(self) -> Any:
        leave()


class FailsWhenPickled:
    def __reduce__(self) -> Any:
        raise PicklingError("not this one")


class DiesWhenRead:
    def __reduce__(self) -> Any:
        return die, ()


class LeavesWhenRead:
    def __reduce__(self) -> Any:
        return leave, ()


class FailsWhenRead:
    def __reduce__(self) -> Any:
        return _raise_unpickling, ()


class Unsendable(Exception):
    """An exception that cannot be made from its arguments alone."""

    def __init__(self, code: int, *, where: str) -> None:
        super().__init__(f"{code} at {where}")


def raise_unsendable() -> None:
    raise Unsendable(5, where="here")
