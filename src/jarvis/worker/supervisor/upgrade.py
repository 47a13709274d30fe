"""Upgrade by execv of ourselves: same process, same children, same sockets; only the program is new.

State travels as JSON in an anonymous file, descriptors stay open under their numbers. The new program first has to pass
a check in a process of its own; a broken one is refused while there still is somebody to refuse it.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import time

from .spawn import SOFT_FILES, raise_own_file_limit
from .system import seal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CHECK_PATIENCE = 10.0


def check(command: list[str]) -> None:
    """Run `command --check`; ValueError when it does not exit with 0 in time."""
    pid = os.posix_spawn(command[0], [*command, "--check"], os.environ, setsigmask=())
    deadline = time.monotonic() + CHECK_PATIENCE
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            if status != 0:
                raise ValueError(f"the new supervisor failed its check: {os.waitstatus_to_exitcode(status)}")
            return
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise ValueError("the new supervisor did not answer its check")


def become(command: list[str], state: dict[str, Any], fds: list[int]) -> None:
    """Replace our program. Returns only by raising; then the descriptors are sealed again and nothing has changed."""
    memory = os.memfd_create("supervisor-state", 0)
    with os.fdopen(os.dup(memory), "w") as file:
        json.dump(state, file)
    os.lseek(memory, 0, os.SEEK_SET)
    previous = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    try:
        for fd in [*fds, memory]:
            os.set_inheritable(fd, True)
        resource.setrlimit(resource.RLIMIT_NOFILE, SOFT_FILES)  # our successor takes it for that of its children
        os.execv(command[0], [*command, "--resume", str(memory)])
    finally:
        raise_own_file_limit()
        for fd in fds:
            seal(fd)
        os.close(memory)
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def take_over(memory: int) -> dict[str, Any]:
    """Read what the old program left us."""
    with os.fdopen(memory) as file:
        state: dict[str, Any] = json.load(file)
    return state


def descriptors(state: Any) -> list[int]:
    """Every descriptor named in a state: values of the keys that hold one."""
    if isinstance(state, list):
        return [fd for item in state for fd in descriptors(item)]
    if not isinstance(state, dict):
        return []
    own = [value for key, value in state.items() if key in _FD_KEYS and isinstance(value, int) and value >= 0]
    return own + [fd for value in state.values() for fd in descriptors(value)]


_FD_KEYS = {"listener", "lock", "owner", "connection", "sink", "source", "tee", "peer", "errors"}
