"""What the kernel offers and the standard library lacks: the clock of deadlines, prctl, the boot id, hygiene of fds."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import sys
import time

NICENESS = -10
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_libc = ctypes.CDLL(None, use_errno=True)


def now() -> float:
    """Seconds since boot, suspended time included: a deadline must not stretch because a laptop slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Name this boot; a process id means nothing in another one."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl {option}: {os.strerror(error)}")


def child_ends() -> int:
    """A descriptor that is readable when a child has ended. Nothing else is done with that signal: a handler of ours
    would run for each of them."""
    mask = (1 << signal.SIGCHLD - 1).to_bytes(8, sys.byteorder) + bytes(120)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    fd: int = _libc.signalfd(-1, mask, os.O_CLOEXEC | os.O_NONBLOCK)
    if fd < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"signalfd: {os.strerror(error)}")
    return fd


def become_subreaper() -> None:
    """Make orphans of a task our children, so that none is lost to init."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def go_before_tasks() -> None:
    """Be scheduled before what we start, where we may: who ends what runs for too long must not wait for it. Children begin
    without this. The kernel may group by session (sched(7), autogroup), and then goes by the niceness of the group."""
    if os.getpriority(os.PRIO_PROCESS, 0) != 0:  # somebody chose another, or we are an upgrade
        return
    try:
        os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
        if os.getsid(0) == os.getpid():
            write_text("/proc/self/autogroup", str(NICENESS))
    except OSError:  # not root, or a kernel without groups
        pass


def forbid_new_privileges() -> None:
    """Disarm set-uid programs for this process and all it starts (called in the trampoline only)."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def seal_inherited_fds(keep: set[int]) -> None:
    """Mark every inherited descriptor close-on-exec: what our own parent left open is no business of a task."""
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd > 2 or fd in keep:
            seal(fd)


def seal(fd: int) -> None:
    """Close `fd` on exec; a descriptor that is gone already needs nothing."""
    try:
        flags = fcntl.fcntl(fd, fcntl.F_GETFD)
        fcntl.fcntl(fd, fcntl.F_SETFD, flags | fcntl.FD_CLOEXEC)
    except OSError:
        pass


def log(text: str) -> None:
    """Say something to whoever keeps our stderr; never fail because nobody does."""
    try:
        sys.stderr.write(f"supervisor[{os.getpid()}]: {text}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass


def write_text(path: str, text: str) -> None:
    """Write a control file in one call, as cgroup and proc files want it."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def read_text(path: str) -> str:
    """Read a small control file; empty when it is gone, because what it described is gone too."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    data = b""
    try:
        while part := os.read(fd, 1 << 16):
            data += part
    except OSError:
        return ""
    finally:
        os.close(fd)
    return data.decode(errors="replace")


def close(fd: int | None) -> None:
    """Close a descriptor that may be absent or closed."""
    if fd is not None and fd >= 0:
        try:
            os.close(fd)
        except OSError:
            pass
