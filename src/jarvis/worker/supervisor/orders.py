"""What the agent asks for: a `start` message, checked. A wrong field is refused before anything is journaled."""

from __future__ import annotations

import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .protocol import Message

_OPTIONAL_INT = (int, type(None))
_OPTIONAL_NUMBER = (int, float, type(None))
# name → (accepted types, default)
FIELDS: dict[str, tuple[Any, Any]] = {
    "tag": (str, ""),
    "cwd": (str, "/"),
    "stdin": ((str, type(None)), None),
    "pty": ((list, type(None)), None),
    "stdout": (str, "/dev/null"),
    "stderr": ((str, type(None)), None),
    "append": (bool, False),
    "output_limit": (_OPTIONAL_INT, None),
    "umask": (int, 0o022),
    "memory_bytes": (_OPTIONAL_INT, None),
    "cpu_milli": (_OPTIONAL_INT, None),
    "pids_max": (_OPTIONAL_INT, None),
    "user": ((dict, type(None)), None),
    "no_new_privs": (bool, False),
    "output_as_user": (bool, True),
    "time_limit_s": (_OPTIONAL_NUMBER, None),
    "soft_limit_s": (_OPTIONAL_NUMBER, None),
    "soft_signal": (int, int(signal.SIGTERM)),
    "grace_s": ((int, float), 5.0),
    "service": (bool, False),
    "fence": (bool, False),
    "slot": ((str, int, type(None)), None),
}


class Order:
    """One `start`, every field present and of its type."""

    tag: str
    cwd: str
    stdin: str | None
    pty: list[int] | None
    stdout: str
    stderr: str | None
    append: bool
    output_limit: int | None
    umask: int
    memory_bytes: int | None
    cpu_milli: int | None
    pids_max: int | None
    user: dict[str, Any] | None
    no_new_privs: bool
    output_as_user: bool
    time_limit_s: float | None
    soft_limit_s: float | None
    soft_signal: int
    grace_s: float
    service: bool
    fence: bool
    slot: str | int | None

    def __init__(self, message: Message) -> None:
        self.message = message
        self.argv: list[str] = _strings(message.get("argv"), "argv")
        self.env = _environment(message.get("env"))
        if not self.argv:
            raise ValueError("argv is empty")
        if message.get("listen_fd_path") is not None:
            raise ValueError("listen_fd_path is not supported")
        for name, value in message.items():
            if name in FIELDS:
                if not isinstance(value, FIELDS[name][0]):
                    raise ValueError(f"{name} has the wrong type: {type(value).__name__}")
                setattr(self, name, value)
        if self.user is not None:
            self.user = _user(self.user)

    @property
    def grouped(self) -> bool:
        """Whether a limit asks for a control group."""
        return bool(self.memory_bytes or self.pids_max or self.cpu_milli)

    @property
    def holds_descriptors(self) -> bool:
        """Whether we hold some for it beyond the moment of its start: of a stream, a group or a trampoline's pipe."""
        return self.stdin == "pipe" or self.pty is not None or self.grouped or self.needs_trampoline

    @property
    def needs_trampoline(self) -> bool:
        """Whether the child must do something between fork and exec that posix_spawn cannot express."""
        return self.user is not None or self.no_new_privs


for _name, (_, _default) in FIELDS.items():
    setattr(Order, _name, _default)


def _strings(value: object, name: str) -> list[str]:
    try:
        if isinstance(value, list) and "\0" not in "".join(value):
            return value
    except TypeError:
        pass
    raise ValueError(f"{name} must be a list of strings without NUL")


def _environment(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError("env must be an object")
    _strings(list(value.values()), "env")
    names = "".join(value)
    if "" in value or "=" in names or "\0" in names:
        raise ValueError("env has an empty or illegal name")
    return value


def _user(value: dict[str, Any]) -> dict[str, Any]:
    groups = value.get("groups", [])
    numbers = [value.get("uid"), value.get("gid"), *(groups if isinstance(groups, list) else [None])]
    if not all(isinstance(item, int) for item in numbers):
        raise ValueError("user needs uid, gid and groups as numbers")
    return {"uid": value["uid"], "gid": value["gid"], "groups": groups}
