"""A real HAProxy of a test's own before several servers, as docs/operations.md sets it up; ended with its test."""

import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from tests.servers.postgres import free_port

PATIENCE_S = 20.0
CONFIG = """
global
    maxconn 2000

defaults
    mode http
    timeout connect 1s
    timeout client 70s
    timeout server 70s
    timeout check 2s
    option redispatch 1
    retries 3
    retry-on conn-failure empty-response response-timeout 503

frontend jarvis
    bind 127.0.0.1:{port}
    default_backend servers

backend servers
    balance roundrobin
    option httpchk
    http-check send meth GET uri /ready ver HTTP/1.1 hdr Host localhost
    default-server check inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions
"""


def binary() -> str:
    """Skips, or fails where nothing may be skipped, when it is not here."""
    found = shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if found is not None:
        return found
    reason = "HAProxy is not installed (Debian: apt-get install haproxy)"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


class HaProxy:
    """``servers``: host and port of each."""

    def __init__(self, servers: list[str]) -> None:
        self._binary, self.port = binary(), free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="jha-"))
        lines = [f"    server s{n} {address}\n" for n, address in enumerate(servers)]
        (self.directory / "cfg").write_text(CONFIG.format(port=self.port) + "".join(lines))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """And wait until a server answers through it."""
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binary, "-db", "-f", str(self.directory / "cfg")], stdout=log, stderr=log
            )
        deadline = time.monotonic() + PATIENCE_S
        while not self._answers():
            assert self._process.poll() is None, (self.directory / "log").read_text()
            assert time.monotonic() < deadline, "HAProxy does not get ready"
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/alive", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.HTTPError, OSError) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            return False

    def remove(self) -> None:
        """Nothing is left of it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE_S)
        shutil.rmtree(self.directory, ignore_errors=True)
