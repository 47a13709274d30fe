"""In which order the supervisor tells what happened, and when."""

import socket
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from jarvis.worker.supervisor import server as module
from jarvis.worker.supervisor.attempts import Attempt
from jarvis.worker.supervisor.children import Children
from jarvis.worker.supervisor.journal import Journal
from jarvis.worker.supervisor.loop import Loop
from jarvis.worker.supervisor.protocol import FrameReader
from jarvis.worker.supervisor.server import Connection, Server


class Told:
    """A supervisor's server with an agent that only reads."""

    def __init__(self, folder: Path) -> None:
        loop, journal = Loop(), Journal(str(folder / "journal"))
        self.children = Children(loop, journal, journal.read(), None)
        listener = socket.socket(socket.AF_UNIX)
        self.server = Server(loop, self.children, listener)
        mine, self.agent = socket.socketpair()
        self.server.adopt_agent(Connection(mine))
        self.agent.setblocking(False)
        self.sockets = [listener, mine, self.agent]

    def read(self) -> list[tuple[str, int]]:
        reader = FrameReader()
        try:
            reader.feed(self.agent.recv(1 << 16))
        except BlockingIOError:
            return []
        return [(message["op"], message["number"]) for message in reader]


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    made = Told(tmp_path)
    yield made
    for sock in made.sockets:
        sock.close()


def say(op: str, number: int) -> str:
    return f'{{"op":"{op}","number":{number}}}'


def test_a_start_is_not_told_beside_its_end_and_comes_after_the_end_that_led_to_it(told: Told) -> None:
    told.server.report_start(Attempt(1, ""))
    told.server.report_end(1, say("ended", 1))
    told.server.report_start(Attempt(2, ""))
    told.server.report(say("queued", 3))
    told.server.flush_now()
    assert told.read() == [("ended", 1), ("queued", 3), ("started", 2)]
    told.server.report_end(2, say("ended", 2))
    told.server.flush_now()
    assert told.read() == [("ended", 2)]


def test_reports_gather_for_longer_while_there_is_enough_to_begin(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(module, "now", lambda: clock[0])
    told.children.sweeping.add(1)  # something is under way
    for waits, until in ((True, module.GATHER), (False, module.QUIET)):
        told.children.lanes = {1: deque([Attempt(9, "")])} if waits else {}
        told.server.on_due(clock[0])
        told.server.report(say("ended", 1))
        clock[0] += until * 0.9
        told.server.flush()
        assert told.read() == []
        assert clock[0] < told.server.due <= clock[0] + until
        clock[0] += until * 0.2
        told.server.flush()
        assert told.read() == [("ended", 1)]
    told.children.sweeping.clear()
    told.server.report(say("ended", 1))
    told.server.flush()
    assert told.read() == [("ended", 1)], "nobody shares the processors"
