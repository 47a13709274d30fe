"""A server of today on a database of the first version, with a node of the first version: what runs there goes on.

``first_version.json`` was written by that version itself: the frames of its agent, which messages it understood and what it needed
in them, and a database in which a task runs, one waits, one is an array, and one waits for the first. It is never to be changed.
"""

import contextlib
import json
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.e2e.cluster.harness import Home, home, wait_for
from websockets.sync.client import ClientConnection, connect

from jarvis.sdk.errors import ClientError
from jarvis.utils import server_file

FIRST: dict[str, Any] = json.loads((Path(__file__).parent / "first_version.json").read_text())
SEQ, NUMBER, TOKEN = b"\xcd\x44\x55", b"\xcd\x22\x33", bytes.fromhex("cf0011223344556677")
"""What stands for these in the frames."""
pytestmark = pytest.mark.timeout(120)


class FirstAgent:
    """A node that says the recorded frames, and understands what was understood then."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._seq = socket, 0
        self.told: list[dict[str, Any]] = []

    def say(self, frame: str, number: int = 0, token: int = 0) -> None:
        self._seq += 1
        data = bytes.fromhex(FIRST["frames"][frame])
        assert data.count(SEQ) == 1
        data = data.replace(SEQ, b"\xcd" + struct.pack("!H", self._seq))
        data = data.replace(NUMBER, b"\xcd" + struct.pack("!H", number))
        self._socket.send(data.replace(TOKEN, b"\xcf" + struct.pack("!Q", token)))

    def hear(self) -> None:
        """One frame; every message in it was known to the first version, with all that it needed."""
        data = self._socket.recv(timeout=30)
        assert isinstance(data, bytes)
        _, _, messages = msgspec.msgpack.decode(data)
        for message in messages:
            assert message["t"] in FIRST["understood"], message
            assert set(FIRST["understood"][message["t"]]) <= set(message), message
        self.told += messages

    def heard(self, kind: str) -> dict[str, Any]:
        """The next message of that kind."""
        while not (found := [message for message in self.told if message["t"] == kind]):
            self.hear()
        self.told.remove(found[0])
        return found[0]


@contextlib.contextmanager
def server(made: Home) -> Iterator[None]:
    """A server without a node, on the database of the first version."""
    made.directory.mkdir(mode=0o700)
    database = sqlite3.connect(made.directory / "jarvis.db")
    database.executescript("\n".join(FIRST["database"]))
    database.execute(f"PRAGMA user_version = {FIRST['user_version']}")
    database.close()
    command = [sys.executable, "-m", "jarvis.cli", "server", "--no-node"]
    process = subprocess.Popen(command, env=made.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: server_file.read(made.directory) or process.poll() is not None, "it serves")
        assert process.poll() is None, process.communicate()[1]
        yield
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_what_the_first_version_left_goes_on() -> None:
    with home() as made, server(made), made.client() as client:
        wait_for(lambda: _answers(made), "it answers")
        token = (made.directory / "node.token").read_text().strip()
        url = made.server.url.replace("http", "ws") + "/agent/v1/session"
        with connect(url, additional_headers={"Authorization": f"Bearer {token}"}) as socket:
            agent = FirstAgent(socket)
            agent.say("hello", number=1, token=FIRST["token"])
            welcome = agent.heard("welcome")
            assert welcome["node"] == 1, "it is known by its id"
            assert not welcome.get("stop"), "what runs there goes on"
            agent.say("ended", number=1, token=FIRST["token"])
            assert 1 in agent.heard("recorded")["numbers"]
            late = client.submit(command=["true"], resources={"cpu": 0.1}).id
            begun: list[tuple[int, int]] = []
            while len(begun) < 1 + 3 + 1 + 1:
                agent.say("beat")
                for given in agent.heard("assign")["assignments"]:
                    number, its_token, _, task, index, *_ = given
                    agent.say("started", number=number, token=its_token)
                    agent.say("ended", number=number, token=its_token)
                    begun.append((task, index))
            assert sorted(begun) == [(2, -1), (3, 0), (3, 2), (3, 4), (4, -1), (late, -1)]
            for task in (1, 2, 3, 4, late):
                assert client.connection.get(f"/tasks/{task}", wait="30s")["state"] == "succeeded"
        assert client.logs(1) == b"hello\n"


def _answers(made: Home) -> bool:
    with contextlib.suppress(ClientError), made.client() as client:
        return bool(client.connection.get("/ready"))
    return False
