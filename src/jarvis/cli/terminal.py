"""This terminal and standard input, connected to a stream of a task."""

import os
import queue
import shutil
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jarvis.sdk.errors import ClientError
from jarvis.sdk.streams import PIECE, TaskStream


def has_input() -> bool:
    """Whether standard input is something to read: not closed, and not the null device."""
    try:
        status = os.fstat(0)
    except OSError:
        return False
    return not (stat.S_ISCHR(status.st_mode) and status.st_rdev == os.stat(os.devnull).st_rdev)


def size() -> tuple[int, int]:
    """(rows, columns)"""
    found = shutil.get_terminal_size((80, 24))
    return found.lines, found.columns


def feed(stream: TaskStream) -> None:
    """Standard input into the stream, up to its end or the stream's."""
    try:
        while data := os.read(0, PIECE):
            stream.send(data)
        stream.end()
    except (OSError, ClientError):
        return


def feed_in_background(stream: TaskStream) -> None:
    threading.Thread(target=feed, args=(stream,), daemon=True).start()


@contextmanager
def raw_mode() -> Iterator[None]:
    """Every key goes to the task as it is; the terminal is put back at the end. Without a terminal, nothing."""
    if not os.isatty(0):
        yield
        return
    import termios
    import tty

    before = termios.tcgetattr(0)
    try:
        tty.setraw(0)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextmanager
def following_size(resize: Callable[[int, int], None]) -> Iterator[None]:
    """Tell the stream whenever this terminal changes its size; by a thread, because a signal may come in mid-send."""
    changes: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def tell() -> None:
        while changes.get():
            try:
                resize(*size())
            except ClientError:
                return

    threading.Thread(target=tell, daemon=True).start()
    before = signal.signal(signal.SIGWINCH, lambda signum, frame: changes.put(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
        changes.put(False)


def show(stream: TaskStream) -> int:
    """The stream's bytes to standard output until it ends; how many."""
    shown = 0
    for data in stream:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        shown += len(data)
    return shown
