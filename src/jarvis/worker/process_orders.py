"""Orders to the supervisor. What those of the elements of an array have in common is made once."""

from binascii import a2b_base64, b2a_base64
from typing import Any

import msgspec

from jarvis.core.effects import Assignment
from jarvis.core.gpus import Share
from jarvis.core.task import TaskSpec
from jarvis.worker.account import Account
from jarvis.worker.machine import Work
from jarvis.worker.task_environment import Where, of_attempt, of_spec

_pack = msgspec.msgpack.Encoder().encode


class Tag(msgspec.Struct, gc=False, array_like=True):
    """What the supervisor keeps with an attempt, so that an agent that starts anew can adopt it."""

    assignment: Assignment
    shares: tuple[Share, ...] = ()
    place: str = ""


def tag_of(work: Work) -> str:
    return b2a_base64(_pack(Tag(work.assignment, work.shares, work.place)), newline=False).decode()


def work_of(tag: str) -> Work:
    """The opposite of what an order says of it."""
    read = msgspec.msgpack.decode(a2b_base64(tag), type=Tag)
    spec = msgspec.msgpack.decode(read.assignment.spec, type=TaskSpec)
    return Work(read.assignment, spec, read.shares, place=read.place)


class Pattern:
    """Orders for one spec under one account, short, because the supervisor has to read them."""

    def __init__(self, spec: TaskSpec, script: str | None, account: Account, node: str, api_url: str) -> None:
        """``script``: its path, which follows from the spec."""
        self._spec, self._account = spec, account
        self._environment = of_spec(spec, Where(node, account.home, account.name, account.shell, "", 0.0, api_url))
        rarely = {
            "stdin": spec.stdin if spec.stdin != "-" else None, "pty": [24, 80] if spec.pty else None,
            "user": account.switch, "no_new_privs": account.switch is not None,
            "memory_bytes": spec.resources.get("memory") or None, "time_limit_s": spec.time_limit,
            "soft_limit_s": spec.soft_limit, "fence": spec.on_lost == "fence",
        }  # fmt: skip
        self._order = {
            "op": "start", "argv": _argv(spec, script, account.shell), "output_limit": spec.output_limit,
            "grace_s": spec.grace, "output_as_user": spec.stdout is not None, "cwd": spec.cwd or account.home,
            **{name: value for name, value in rarely.items() if value is not None and value is not False},
        }  # fmt: skip

    def fits(self, spec: TaskSpec, account: Account) -> bool:
        return spec is self._spec and account is self._account

    def order(self, work: Work, scratch: str, now: float, entry: str | None) -> dict[str, Any]:
        """Of one attempt; where it runs and writes is added where that is not as the spec says."""
        order = {
            **self._order, "number": work.number, "tag": tag_of(work),
            "env": self._environment | of_attempt(work, scratch, now, entry),
        }  # fmt: skip
        if self._spec.stdin == "-" and not work.rank:  # a stream comes to rank 0 alone
            order["stdin"] = "pipe"
        return order


def _argv(spec: TaskSpec, script: str | None, shell: str) -> list[str]:
    command = spec.command
    if script is not None:
        return [script, *((command,) if isinstance(command, str) else command or ())]
    if isinstance(command, str):
        return [shell, "-l", "-c", command] if spec.login_shell else ["/bin/sh", "-c", command]
    return list(command or ())
