"""A real Redis of a test's own, on a port of its own, ended with the test that started it."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from tests.servers.postgres import free_port

PATIENCE_S = 20.0


def binary() -> str:
    """Skips, or fails where nothing may be skipped, when it is not here."""
    found = shutil.which("redis-server")
    if found is not None:
        return found
    reason = "Redis is not installed (Debian: apt-get install redis-server)"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


class RedisServer:
    """Keeps nothing on disk, as messages need not survive."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self._binary, self.port, self.address = binary(), free_port(), address
        self.directory = Path(tempfile.mkdtemp(prefix="jredis-"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://{self.address}:{self.port}"

    def start(self) -> None:
        """And wait until it answers."""
        command = [
            self._binary,
            "--port",
            str(self.port),
            "--bind",
            self.address,
            "--protected-mode",
            "no",
            "--save",
            "",
            "--dir",
            str(self.directory),
        ]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE_S
        while self.ask("PING") != "+PONG":
            assert self._process.poll() is None, (self.directory / "log").read_text()
            assert time.monotonic() < deadline, "Redis does not get ready"
            time.sleep(0.02)

    def ask(self, *words: str) -> str:
        """The first line that it answers to a command; empty when it does not."""
        request = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        try:
            with socket.create_connection((self.address, self.port), timeout=2) as connection:
                connection.sendall(request.encode())
                return connection.recv(4096).decode(errors="replace").split("\r\n")[0]
        except OSError:
            return ""

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(how)
            self._process.wait(PATIENCE_S)
            self._process = None

    def pause(self, on: bool) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP if on else signal.SIGCONT)

    def remove(self) -> None:
        """Nothing is left of it."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)
