"""A real S3 server of a test's own (Moto's, which keeps everything in memory), ended with the test that started it."""

import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from functools import lru_cache
from pathlib import Path

from tests.servers.postgres import free_port

PATIENCE_S = 60.0
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
"""What clients of it have in their environment."""


class S3Server:
    """One process; each bucket is empty at first."""

    def __init__(self) -> None:
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        log = Path(tempfile.mkdtemp(prefix="js3-")) / "log"
        with log.open("ab") as out:
            command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
            self._process = subprocess.Popen(command, stdout=out, stderr=out)
        deadline = time.monotonic() + PATIENCE_S
        while not self._answers():
            assert self._process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.endpoint}/moto-api/", timeout=5):
                return True
        except OSError:
            return False

    def bucket(self) -> str:
        """The URL of a new one."""
        name = f"b{uuid.uuid4().hex[:20]}"
        urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/{name}", method="PUT"), timeout=30).close()
        return f"s3://{name}/jarvis"

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(20)


@lru_cache(1)
def shared() -> S3Server:
    """One for all tests of a process."""
    import atexit

    os.environ.update(KEYS)
    server = S3Server()
    atexit.register(server.stop)
    return server
