"""A real cluster of one machine in a directory of its own, driven by the real command line."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jarvis import scheduler_process
from jarvis.sdk.client import Client
from jarvis.utils import server_file

PATIENCE = 30.0


def wait_for(predicate: Callable[[], Any], what: str | Callable[[], str], patience: float = PATIENCE) -> Any:
    deadline = time.monotonic() + patience
    while not (value := predicate()):
        assert time.monotonic() < deadline, f"never happened: {what() if callable(what) else what}"
        time.sleep(0.01)
    return value


class Home:
    """One state directory and the commands on it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.up_with: list[str] = []
        """What it was brought up with, to do so again."""
        self.within: list[str] = []
        """What commands begin with, to be run on a host of their own."""
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("JARVIS")}
        self.env |= {"JARVIS_HOME": str(directory), "JARVIS_CONFIG": str(directory / "none.yaml"), "NO_COLOR": "1"}

    def jarvis(self, *args: str, code: int | None = 0, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        """Run the command line; ``code`` is what it must end with (None: anything)."""
        done = subprocess.run(
            [*self.within, sys.executable, "-m", "jarvis.cli", *args], env=self.env, capture_output=True, text=True, timeout=120,
            check=False, **{"cwd": self.directory.parent} | kwargs,
        )  # fmt: skip
        said = f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert code is None or done.returncode == code, said + self.logs()
        return done

    def logs(self) -> str:
        """The ends of the logs, for the message of a test that fails."""
        paths = sorted(self.directory.glob("**/*.log"))
        return "\n".join(f"--- {path}\n{path.read_bytes()[-4000:].decode(errors='replace')}" for path in paths)

    def client(self) -> Client:
        return Client(directory=self.directory)

    @property
    def server(self) -> server_file.ServerFile:
        content = server_file.read(self.directory)
        assert content is not None, "no server.json"
        return content

    def kill_server(self) -> None:
        """The hard way; it is gone afterwards, so that nobody takes it for one that lives."""
        server = self.server
        os.kill(server.pid, signal.SIGKILL)
        wait_for(lambda: not server_file.lives(server), "the killed server is gone")

    def signal_server(self, number: int) -> None:
        """To its process and, where it decides in another one, to that as well, as to a machine's."""
        child = server_file.read(self.directory / scheduler_process.DIRECTORY)
        for content in (self.server, child):
            if content is not None and server_file.lives(content):
                os.kill(content.pid, number)

    def processes(self) -> list[int]:
        """Living processes that name this directory in their command line or environment."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                text = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
                state = (folder / "stat").read_text()
                mine = int(folder.name) != os.getpid() and state[state.rindex(")") + 2] not in "ZX"
                if mine and os.fsencode(str(self.directory)) in text:
                    found.append(int(folder.name))
        return found

    def agent(self) -> int | None:
        """The pid of the agent, if one lives."""
        for pid in self.processes():
            with contextlib.suppress(OSError):
                if b"jarvis.worker.agent" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                    return pid
        return None


@contextlib.contextmanager
def home() -> Iterator[Home]:
    """A fresh directory (short, because sockets live in it); afterwards nothing is left running."""
    directory = Path(tempfile.mkdtemp(prefix="jv-"))
    made = Home(directory / "s")
    try:
        yield made
        made.jarvis("down", code=None)
        wait_for(lambda: not made.processes(), f"processes are left: {made.processes()}", 20)
    finally:
        for pid in made.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(directory, ignore_errors=True)
