"""Starting one process. Two ways, chosen by what is asked:

- `posix_spawn` with the working directory, umask and soft limits set on the supervisor around it. It shares memory with
  the child until exec, so it costs the same however large we are. A control group is entered by the supervisor itself
  for that moment (version 1, where moving one thread is cheap).
- fork and a trampoline in Python, when the child has to change user, privileges, or enter a group by itself. About
  2.5 times slower. An error pipe that closes on exec tells what went wrong and when it went right.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import struct
import termios

from .cgroups import ROOMY_BYTES, Slot
from .system import close, forbid_new_privileges, log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import NoReturn

    from .orders import Order

DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
# Python ignores or catches these; a task gets them as a shell would give them. In the trampoline they must be back to
# their defaults before they are unblocked, or a kill that came early would be swallowed.
DEFAULTED_SIGNALS = [signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP]
DEFAULTED_SIGNALS += [signal.SIGTERM, signal.SIGCHLD]
SOFT_FILES = resource.getrlimit(resource.RLIMIT_NOFILE)
LIMITED = SOFT_FILES[0] != SOFT_FILES[1]
"""Whether children get a lower limit than ours."""
OWN_UMASK = os.umask(0o077)
os.umask(OWN_UMASK)
SPARE_FILES = 16


def _open_nothing() -> int:
    """Never one of the standard descriptors, which may have been closed when we were started."""
    low = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    fd = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(low)
    return fd


_NOTHING = _open_nothing()


class SpawnError(Exception):
    """It could not start: 125 for its surroundings, 126 not executable, 127 not found."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class NoDescriptors(SpawnError):
    """None is left for what a child gets."""

    def __init__(self) -> None:
        super().__init__(125, "no descriptors are left")


class Files:
    """Descriptors made for a child: its 0, 1, 2 and our ends of them."""

    def __init__(self) -> None:
        self.child: list[int] = [-1, -1, -1]
        self.ours: list[int] = []  # closed when the spawn fails
        self.stdin = -1  # our end of a stdin pipe
        self.output = -1  # our end of an auxiliary process's output pipe
        self.master = -1  # our end of a terminal
        self.tty = ""
        self.tee = -1  # the output file of a terminal, which we write
        self.late: list[tuple[int, str]] = []  # opened by the trampoline, as the task's user

    def close_child_ends(self) -> None:
        for fd in set(self.child):
            if fd != _NOTHING:
                close(fd)

    def close_all(self) -> None:
        self.close_child_ends()
        for fd in self.ours:
            close(fd)


class Spawned:
    """A process that runs, or is about to: `errors` is the error pipe of a trampoline that has not reached exec."""

    def __init__(self, pid: int, errors: int = -1) -> None:
        self.pid = pid
        self.errors = errors


def raise_own_file_limit() -> None:
    """We hold pipes and terminals for many; children get the soft limit that we were started with."""
    if LIMITED:
        resource.setrlimit(resource.RLIMIT_NOFILE, (SOFT_FILES[1], SOFT_FILES[1]))


def lacks_descriptors() -> bool:
    """Whether so few are left that a start could fail half-way. While a high number is free, all is well; else it is tried."""
    high = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FILES
    tried: list[int] = []
    try:
        tried.append(fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, max(high, 0)))
        if tried[0] != high:
            tried += [os.dup(0) for _ in range(SPARE_FILES // 2)]
    except OSError:
        return True
    finally:
        for fd in tried:
            os.close(fd)
    return False


def open_files(order: Order) -> Files:
    """Open what the child gets. With a user, outputs are opened after the change of user, so that no path of theirs
    is followed with our rights. Raises SpawnError and NoDescriptors."""
    files = Files()
    try:
        if order.pty is not None:
            _open_terminal(order, files)
        else:
            _open_stdin(order, files)
            _open_outputs(order, files)
    except OSError as error:
        files.close_all()
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise NoDescriptors from None
        raise SpawnError(125, _explain(error)) from None
    return files


def open_exec_files(order: Order) -> Files:
    """What an auxiliary process gets: a terminal, or a pipe in and a pipe out."""
    if order.pty is not None:
        return open_files(order)
    files = Files()
    files.child[0], files.stdin = os.pipe2(os.O_CLOEXEC)
    files.output, files.child[1] = os.pipe2(os.O_CLOEXEC)
    files.child[2] = files.child[1]
    files.ours += [files.stdin, files.output]
    return files


def _open_terminal(order: Order, files: Files) -> None:
    assert order.pty is not None
    files.master, slave = os.openpty()
    files.ours.append(files.master)
    files.child = [slave, slave, slave]
    files.tee = _open_as_user(order)
    files.ours.append(files.tee)
    files.tty = os.ttyname(slave)
    resize(slave, *order.pty)
    if order.user is not None:
        os.fchown(slave, order.user["uid"], order.user["gid"])


def _open_as_user(order: Order) -> int:
    """Open the output file with the rights of the task's user, though it is we who write it."""
    if order.user is None or not order.output_as_user or os.geteuid() != 0:
        return _open_output(order, order.stdout)
    groups = os.getgroups()
    os.setgroups(order.user["groups"])
    os.setegid(order.user["gid"])
    os.seteuid(order.user["uid"])
    try:
        return os.open(order.stdout, _output_flags(order), 0o666 & ~order.umask)
    finally:
        os.seteuid(0)
        os.setegid(os.getgid())
        os.setgroups(groups)


def resize(fd: int, rows: int, columns: int) -> None:
    """Tell a terminal its size; its foreground group gets SIGWINCH from the kernel."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _open_stdin(order: Order, files: Files) -> None:
    if order.stdin == "pipe":
        files.child[0], files.stdin = os.pipe2(os.O_CLOEXEC)
        files.ours.append(files.stdin)
    elif order.stdin is not None and order.user is not None:
        files.late.append((0, order.stdin))
    else:
        files.child[0] = _open_input(order.stdin)


def _open_input(path: str | None) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC) if path else _NOTHING


def _open_outputs(order: Order, files: Files) -> None:
    if order.user is not None and order.output_as_user:
        files.late.append((1, order.stdout))
        if order.stderr is not None:
            files.late.append((2, order.stderr))
        return
    files.child[1] = _open_output(order, order.stdout)
    files.child[2] = files.child[1] if order.stderr is None else _open_output(order, order.stderr)


def _open_output(order: Order, path: str) -> int:
    """A file of the task's own choice gets the modes of its umask. One of ours is its owner's alone to read, because its
    name is easily guessed."""
    if order.output_as_user:
        return os.open(path, _output_flags(order), 0o666 & ~order.umask)
    links = os.O_NOFOLLOW if order.user is not None else 0
    fd = os.open(path, (_output_flags(order) & ~os.O_TRUNC) | links, 0o600)
    if not order.append and os.lseek(fd, 0, os.SEEK_END):  # to truncate what is empty takes longer than to open it
        os.ftruncate(fd, 0)
    if order.user is not None and os.geteuid() == 0:
        os.fchown(fd, order.user["uid"], order.user["gid"])
    return fd


def _output_flags(order: Order) -> int:
    # Appending always: two writers (an exec, a joined stderr) never overwrite each other. A new run starts empty.
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    return flags if order.append else flags | os.O_TRUNC


def spawn(order: Order, env: dict[str, str], files: Files, slot: Slot | None, *, crowded: bool = False) -> Spawned:
    """Start the process. SpawnError says why not; with a trampoline it may come later, through the error pipe.
    `crowded` says that others are in the group already, so that we must not step inside."""
    if order.needs_trampoline or (slot is not None and (crowded or not _may_step_inside(order, slot))):
        return _spawn_by_fork(order, env, files, slot)
    try:
        if slot is None and _fits(order):
            return Spawned(_posix_spawn(order, env, files))
        with _Surroundings(order):
            if slot is None:
                return Spawned(_posix_spawn(order, env, files))
            with _Inside(slot):
                return Spawned(_posix_spawn(order, env, files))
    except OSError as error:
        raise SpawnError(125, _explain(error)) from None


def _may_step_inside(order: Order, slot: Slot) -> bool:
    """Whether we can enter the group for a moment: not where that lock is dear (version 2), nor where our presence
    would meet the limit or could get us killed."""
    roomy = order.memory_bytes is None or order.memory_bytes >= ROOMY_BYTES
    returns = os.geteuid() == 0  # others may be let in and not out again
    return returns and "unified" not in slot.directories and roomy and (order.pids_max or 2) > 1


def _fits(order: Order) -> bool:
    """Whether a child gets the surroundings that we have."""
    return order.cwd == "/" and order.umask == OWN_UMASK and not LIMITED


class _Surroundings:
    """Working directory, umask and soft limits of the child, set on us for the moment of the spawn where they are others."""

    def __init__(self, order: Order) -> None:
        self.order = order

    def __enter__(self) -> None:
        order = self.order
        try:
            if order.cwd != "/":
                os.chdir(order.cwd)
        except OSError as error:
            raise SpawnError(125, f"working directory {order.cwd}: {error.strerror}") from None
        if order.umask != OWN_UMASK:
            os.umask(order.umask)
        if LIMITED:
            resource.setrlimit(resource.RLIMIT_NOFILE, SOFT_FILES)

    def __exit__(self, *_: object) -> None:
        if LIMITED:
            resource.setrlimit(resource.RLIMIT_NOFILE, (SOFT_FILES[1], SOFT_FILES[1]))
        if self.order.umask != OWN_UMASK:
            os.umask(OWN_UMASK)
        if self.order.cwd != "/":
            os.chdir("/")


class _Inside:
    """Us as a member of a group, so that the child is born in it."""

    def __init__(self, slot: Slot) -> None:
        self.slot = slot

    def __enter__(self) -> None:
        try:
            self.slot.enter()
        except OSError:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        try:
            self.slot.leave()
        except OSError as error:  # the child runs: too late to refuse it
            log(f"could not leave {self.slot.name}: {error}")


def _posix_spawn(order: Order, env: dict[str, str], files: Files) -> int:
    actions: list[tuple[int, int, int] | tuple[int, int, str, int, int]] = []
    if files.tty:  # a session leader that opens a terminal gets it as its controlling one
        actions.append((os.POSIX_SPAWN_OPEN, 0, files.tty, os.O_RDWR, 0))
        actions += [(os.POSIX_SPAWN_DUP2, 0, 1), (os.POSIX_SPAWN_DUP2, 0, 2)]
    else:
        actions += [(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(files.child)]

    def run(path: str) -> int:
        return os.posix_spawn(
            path, order.argv, env, file_actions=actions, setsid=True, setsigdef=DEFAULTED_SIGNALS, setsigmask=()
        )

    return _first_that_runs(order.argv[0], env, run)


def _first_that_runs(name: str, env: dict[str, str], run: Callable[[str], int]) -> int:
    """Try the places where `name` may be, in the order of the task's own PATH."""
    failure: OSError | None = None
    for path in _candidates(name, env):
        try:
            return run(path)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.ENOMEM):
                raise
            if os.path.isdir(path) and "/" not in name:  # nobody looks for a program and means a directory of its name
                continue
            if failure is None or error.errno != errno.ENOENT:
                failure = error
    if failure is None or failure.errno in (errno.ENOENT, errno.ENOTDIR):
        missing = "its interpreter was not found" if "/" in name and os.path.exists(name) else "not found"
        raise SpawnError(127, f"{name}: {missing}")
    raise SpawnError(126, f"{name}: {failure.strerror}")


def _candidates(name: str, env: dict[str, str]) -> Iterator[str]:
    if "/" in name:
        yield name
        return
    for directory in env.get("PATH", DEFAULT_PATH).split(":"):
        path = f"{directory or '.'}/{name}"
        if os.access(path, os.F_OK):  # to try one that is not there costs a process
            yield path


def _spawn_by_fork(order: Order, env: dict[str, str], files: Files, slot: Slot | None) -> Spawned:
    errors, report = os.pipe2(os.O_CLOEXEC)
    previous = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _trampoline(order, env, files, slot, report)
    except OSError as error:
        close(errors)
        raise SpawnError(125, _explain(error)) from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
        os.close(report)
    os.set_blocking(errors, False)
    return Spawned(pid, errors)


def _trampoline(order: Order, env: dict[str, str], files: Files, slot: Slot | None, report: int) -> NoReturn:
    """In the child: become what was asked, then exec. Whatever fails is written to the pipe as `code text`."""
    try:
        _become(order, files, slot)
        _first_that_runs(order.argv[0], env, lambda path: os.execve(path, order.argv, env))
    except SpawnError as error:
        os.write(report, f"{error.code} {error}".encode(errors="replace"))
    except OSError as error:
        os.write(report, f"125 {_explain(error)}".encode(errors="replace"))
    except BaseException as error:  # noqa: BLE001 - a forked child must never return into our loop
        os.write(report, f"125 {error!r}".encode(errors="replace"))
    finally:
        os._exit(125)


def _become(order: Order, files: Files, slot: Slot | None) -> None:
    os.setsid()
    if slot is not None:
        slot.enter()
    if files.tty:
        fcntl.ioctl(files.child[0], termios.TIOCSCTTY, 0)
    for target, fd in enumerate(files.child):
        if fd >= 0:
            os.dup2(fd, target)
    if order.user is not None:
        _change_user(order.user["uid"], order.user["gid"], order.user["groups"])
    os.umask(order.umask)
    _open_late(order, files)
    if order.no_new_privs:
        forbid_new_privileges()
    _enter_directory(order)
    _reset_signals()
    resource.setrlimit(resource.RLIMIT_NOFILE, SOFT_FILES)


def _change_user(uid: int, gid: int, groups: list[int]) -> None:
    if os.geteuid() == 0:
        os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def _open_late(order: Order, files: Files) -> None:
    for target, path in files.late:
        fd = os.open(path, os.O_RDONLY if target == 0 else _output_flags(order), 0o666)
        os.dup2(fd, target)
    if files.child[2] < 0 and order.stderr is None:
        os.dup2(1, 2)


def _enter_directory(order: Order) -> None:
    try:
        os.chdir(order.cwd)
    except OSError as error:
        raise SpawnError(125, f"working directory {order.cwd}: {error.strerror}") from None


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for signum in DEFAULTED_SIGNALS:
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _explain(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
