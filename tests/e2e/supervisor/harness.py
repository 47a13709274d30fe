"""A supervisor under test, and the agent that talks to it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAIN = Path(__file__).parents[3] / "src/jarvis/worker/supervisor/__main__.py"
PATIENCE = 20.0
MARK = b"JARVIS_SUPERVISED="

Message = dict[str, Any]


def wait_for(predicate: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Wait until `predicate` holds and return what it returned."""
    deadline = time.monotonic() + patience
    while not (value := predicate()):
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.005)
    return value


def alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat[stat.rindex(")") + 2] not in "ZX"


def marked(text: str = "") -> list[int]:
    """Living processes that a supervisor marked, whose environment also holds `text`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            environment = (folder / "environ").read_bytes()
            if MARK in environment and text.encode() in environment and alive(int(folder.name)):
                found.append(int(folder.name))
    return found


class Agent:
    """The agent's side of the socket."""

    def __init__(self, path: Path, *, hello: bool = True) -> None:
        self.sock = connect(path)
        self.sock.settimeout(PATIENCE)
        self.seen: list[Message] = []
        self.welcome: Message = {}
        if hello:
            self.send(op="hello", version=1)
            self.welcome = self.expect("welcome")

    def send(self, **message: Any) -> None:
        """Send one frame."""
        body = json.dumps(message).encode()
        self.sock.sendall(struct.pack(">I", len(body)) + body)

    def receive(self) -> Message:
        """The next frame."""
        (size,) = struct.unpack(">I", self._exactly(4))
        message: Message = json.loads(self._exactly(size))
        return message

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.sock.recv(size - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def expect(self, op: str, number: int | None = None, **fields: Any) -> Message:
        """The first frame like this, now or later; others are kept."""
        wanted = {"op": op, **fields} if number is None else {"op": op, "number": number, **fields}
        deadline = time.monotonic() + PATIENCE
        while True:
            for message in self.seen:
                if all(message.get(key) == value for key, value in wanted.items()):
                    self.seen.remove(message)
                    return message
            assert time.monotonic() < deadline, f"no {wanted}; saw {self.seen}"
            self.seen.append(self.receive())

    def close(self) -> None:
        """Go away."""
        self.sock.close()


class Node:
    """A state directory, a supervisor on it, and places for output."""

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self.name = name
        self.state = root / "state"
        self.out = root / "out"
        self.out.mkdir()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.agents: list[Agent] = []

    @property
    def socket(self) -> Path:
        return self.state / "supervisor.sock"

    @property
    def journal(self) -> Path:
        return self.state / "supervisor.journal"

    def up(self, *options: str, **popen: Any) -> subprocess.Popen[bytes]:
        """Start a supervisor and wait until it listens."""
        command = [sys.executable, "-I", "-S", str(MAIN), "--dir", str(self.state), *options]
        process = subprocess.Popen(command, **popen)
        self.processes.append(process)
        wait_for(lambda: process.poll() is not None or can_connect(self.socket), "supervisor listens")
        return process

    def agent(self) -> Agent:
        """A new agent connection, after hello."""
        agent = Agent(self.socket)
        self.agents.append(agent)
        return agent

    def order(self, number: int, *argv: str, **fields: Any) -> Message:
        """A start message with the usual fields."""
        env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "TEST": self.name, **fields.pop("extra_env", {})}
        message = {"op": "start", "number": number, "tag": f"t{number}", "argv": list(argv), "cwd": "/", "env": env}
        return {**message, "stdout": str(self.out / f"{number}.out"), "grace_s": 5.0, **fields}

    def start(self, agent: Agent, number: int, *argv: str, **fields: Any) -> None:
        """Ask for a start."""
        agent.send(**self.order(number, *argv, **fields))

    def run(self, agent: Agent, number: int, *argv: str, **fields: Any) -> Message:
        """Start and wait for the end."""
        self.start(agent, number, *argv, **fields)
        return agent.expect("ended", number)

    def output(self, number: int) -> str:
        """What an attempt wrote."""
        path = self.out / f"{number}.out"
        return path.read_text() if path.exists() else ""

    def wait_output(self, number: int, text: str) -> str:
        """Wait until an attempt has written `text`."""
        wait_for(lambda: text in self.output(number), f"{number} writes {text!r}")
        return self.output(number)

    def down(self) -> None:
        """End everything and see that nothing is left."""
        for agent in self.agents:
            agent.close()
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(3)
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)  # the second one does not wait for graces
                process.wait(PATIENCE)
        left = marked(f"TEST={self.name}")
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert not left, f"left over: {left}"


def connect(path: Path) -> socket.socket:
    """Connect through the directory's descriptor: the path may be longer than an address."""
    directory = os.open(path.parent, os.O_PATH)
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.connect(f"/proc/self/fd/{directory}/{path.name}")
    except OSError:
        sock.close()
        raise
    finally:
        os.close(directory)
    return sock


def can_connect(path: Path) -> bool:
    """Whether somebody accepts there."""
    with contextlib.suppress(OSError):
        connect(path).close()
        return True
    return False


@contextlib.contextmanager
def node(root: Path, name: str) -> Iterator[Node]:
    """A node that is taken down at the end."""
    made = Node(root, name)
    try:
        yield made
    finally:
        made.down()
