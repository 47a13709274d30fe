"""``jarvis.local()``: a private server with its node that ends with its owner, however the owner ends."""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jarvis.sdk.client import Client
from jarvis.sdk.launch import start_server

STOP_S = 20.0


@contextmanager
def local(directory: Path | None = None, cpus: float | None = None) -> Iterator[Client]:
    """A :class:`Client` of a fresh embedded cluster, durable in ``directory`` (a temporary one if none is given)."""
    if directory is None:
        with tempfile.TemporaryDirectory(prefix="jarvis-local-") as temporary, local(Path(temporary), cpus) as client:
            yield client
        return
    flags: dict[str, Any] = {"state_dir": str(directory)}
    if cpus is not None:
        flags["worker"] = {"cpus": cpus}
    read_end, write_end = os.pipe()
    try:
        content, process = start_server(directory, flags, owner_fd=read_end)
        client = Client(content.url, content.token)
        try:
            yield client
        finally:
            client.close()
    finally:
        os.close(read_end)
        os.close(write_end)
    with contextlib.suppress(subprocess.TimeoutExpired):  # it ends when its owner's end of the pipe is closed
        process.wait(STOP_S)
