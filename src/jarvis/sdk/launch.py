"""Starting a server as a process of its own, and seeing whether one lives; knows nothing of what is in it."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from jarvis.sdk.errors import ClientError
from jarvis.utils import server_file

READY_S = 20.0


def alive(content: server_file.ServerFile | None) -> bool:
    """Whether that server runs and answers."""
    if content is None or not server_file.lives(content):
        return False
    try:
        with urllib.request.urlopen(f"{content.url}/alive", timeout=2) as answer:  # noqa: S310 - our own file's URL
            return int(answer.status) == 200
    except (OSError, ValueError):
        return False


def _nodes_ready(content: server_file.ServerFile, nodes: int) -> bool:
    """Whether the server takes tasks and, if there are to be several nodes, all of them are there."""
    request = urllib.request.Request(f"{content.url}/health", headers={"Authorization": f"Bearer {content.token}"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=2) as answer:  # noqa: S310 - our own file's URL
            checks = json.loads(answer.read()).get("checks", {})
    except (OSError, ValueError):
        return False
    well = all(checks.get(name, {}).get("status") == "ok" for name in ("database", "scheduler_queue"))
    workers = checks.get("workers", {})
    enough = nodes == 1 or workers.get("detail", "").startswith(f"{nodes} of ")
    return well and enough and workers.get("status") in ("ok", "degraded")  # others may be away


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def start_server(
    directory: Path, flags: dict[str, Any], owner_fd: int | None = None, nodes: int = 1
) -> tuple[server_file.ServerFile, subprocess.Popen[bytes]]:
    """Start a server in the background and wait until it takes tasks. Raises ClientError with what it said."""
    errors = directory / "server.err"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(errors, "wb", opener=_private) as err:
            err.write(bytes(4096))  # on a full disk what the server says would be lost
    except OSError as error:
        raise ClientError(f"the state directory {directory} cannot be used: {error.strerror}") from None
    command = [sys.executable, "-m", "jarvis.cli", "server", "--flags", json.dumps(flags)]
    command += ["--log-file", str(directory / "server.log")]
    if owner_fd is not None:
        command += ["--owner-fd", str(owner_fd), "--own-nodes", str(nodes)]
    with open(errors, "wb", opener=_private) as err:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=err, stderr=err, start_new_session=True,
            pass_fds=() if owner_fd is None else (owner_fd,), env={**os.environ, "JARVIS_HOME": str(directory)},
        )  # fmt: skip
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        content = server_file.read(directory)
        if content is not None and content.pid == process.pid and _nodes_ready(content, nodes):
            return content, process
        if process.poll() is not None:
            text = errors.read_text(encoding="utf-8", errors="replace").strip()
            raise ClientError(text.removeprefix("jarvis: ") or f"the server ended with {process.returncode}")
        time.sleep(0.02)
    raise ClientError(f"the server did not get ready in {READY_S:g} s: see {directory}/server.log")
