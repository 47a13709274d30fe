"""Who owns a state directory: one process for life, by ``flock``."""

import fcntl
import os
from pathlib import Path

from jarvis.core.errors import StateDirectoryInUse, StoreUnavailable


def claim(directory: Path) -> int:
    """Own the state directory for life; raises :class:`StateDirectoryInUse` naming who does, or StoreUnavailable."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _lock(directory)
    except OSError as error:
        unusable = StoreUnavailable(f"the state directory {directory} cannot be used: {error.strerror}")
        unusable.hint = "make it a directory that can be written, or choose another with JARVIS_HOME"
        raise unusable from None


def _lock(directory: Path) -> int:
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
    except BlockingIOError:
        owner = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        error = StateDirectoryInUse(f"{directory} is in use by the server with pid {owner}")
        error.hint = "use that server (jarvis ls), stop it (jarvis down), or choose another directory with JARVIS_HOME"
        raise error from None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
