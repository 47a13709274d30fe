"""A stream to a server that has said all it has to say before the client looks."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import ServerConnection, serve

from jarvis.sdk.connection import Connection
from jarvis.sdk.errors import WrongState
from jarvis.sdk.streams import TaskStream


def refuse(connection: ServerConnection) -> None:
    connection.send(json.dumps({"status": 409, "code": "not_running", "title": "the task is not running"}))


@pytest.fixture
def refusing() -> Iterator[str]:
    with serve(refuse, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join()


def test_a_refusal_is_heard_however_fast_it_comes(refusing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is over before the client goes on after the handshake."""

    def slow(*args: Any, **options: Any) -> ClientConnection:
        connection = connect(*args, **options)
        connection.recv_events_thread.join(10)
        return connection

    monkeypatch.setattr("jarvis.sdk.streams.connect", slow)
    with (
        TaskStream(Connection(refusing, "token"), "/tasks/1/exec") as stream,
        pytest.raises(WrongState, match="not running"),
    ):
        list(stream)


def test_why_the_server_closed_it_is_told() -> None:
    def mistaken(connection: ServerConnection) -> None:
        connection.close(1011, "the server made a mistake")

    with serve(mistaken, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        with TaskStream(Connection(url, "token"), "/tasks/1/exec") as stream:
            assert list(stream) == []
        assert stream.error == "the server made a mistake"
        server.shutdown()
        thread.join()
