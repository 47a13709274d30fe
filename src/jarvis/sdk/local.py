"""``jarvis.local()``: a private server with its nodes that ends with its owner, however the owner ends."""

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
def local(
    directory: str | os.PathLike[str] | None = None, cpus: float | None = None, nodes: int = 1
) -> Iterator[Client]:
    """A :class:`Client` of a fresh embedded cluster, durable in ``directory`` (a temporary one if none is given).

    Each of its ``nodes`` offers ``cpus`` processors, by default all of this machine. Several of them, to see what a cluster
    does, are called node-1, node-2 and so on. Raises :class:`ValueError` for less than one.
    """
    if nodes < 1:
        raise ValueError(f"nodes is {nodes}: a cluster has one at least")
    if directory is None:
        with (
            tempfile.TemporaryDirectory(prefix="jarvis-local-") as temporary,
            local(Path(temporary), cpus, nodes) as client,
        ):
            yield client
        return
    directory = Path(directory)
    flags: dict[str, Any] = {"state_dir": str(directory)}
    if cpus is not None:
        flags["worker"] = {"cpus": cpus}
    read_end, write_end = os.pipe()
    try:
        content, process = start_server(directory, flags, owner_fd=read_end, nodes=nodes)
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
