"""Where a node looks for its server, and when it looks again at once."""

import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from jarvis.sdk.connection import as_json, find_server
from jarvis.sdk.errors import Unreachable
from jarvis.utils import server_file
from jarvis.utils.server_file import ServerFile, born
from jarvis.worker.resource_monitor import address_towards, find_address
from jarvis.worker.server_address import ServerAddress


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "node.token"
    path.write_text("secret\n")
    return path


def test_urls_take_turns(token: Path) -> None:
    address = ServerAddress(["http://a:1", "https://b:2/"], token, None)
    assert [address.next() for _ in range(3)] == [
        ("ws://a:1/agent/v1/session", "secret"),
        ("wss://b:2/agent/v1/session", "secret"),
        ("ws://a:1/agent/v1/session", "secret"),
    ]
    assert not address.moved()


def server(pid: int) -> ServerFile:
    return ServerFile("http://127.0.0.1:7", "t", pid, "1", born(pid))


def test_the_server_of_this_machine_comes_first_and_its_restart_is_seen(token: Path, tmp_path: Path) -> None:
    address = ServerAddress(["http://a:1"], token, tmp_path)
    assert address.next()[0].startswith("ws://a:1/")
    assert not address.moved()
    server_file.write(tmp_path, server(os.getppid()))
    assert address.moved()
    assert address.next()[0].startswith("ws://127.0.0.1:7/")
    assert not address.moved()
    server_file.write(tmp_path, server(os.getpid()))
    assert address.moved(), "another process on the same port"


def test_a_server_that_is_gone_is_not_asked_and_not_told_the_token(token: Path, tmp_path: Path) -> None:
    child = subprocess.Popen(["sleep", "60"])
    gone = server(child.pid)
    child.kill()
    child.wait()
    assert not server_file.lives(gone)
    assert not server_file.lives(ServerFile("u", "t", os.getpid(), "1", "12345")), "another process of the same pid"
    server_file.write(tmp_path, gone)
    address = ServerAddress(["http://a:1"], token, tmp_path)
    with pytest.raises(OSError, match="does not run"):
        address.next()
    assert not address.moved()
    with pytest.raises(Unreachable):
        find_server(directory=tmp_path)


@pytest.mark.parametrize("kind", [str, Path])
def test_a_client_takes_a_directory_as_text_and_as_a_path(kind: Callable[[Path], str | Path], tmp_path: Path) -> None:
    server_file.write(tmp_path, server(os.getpid()))
    assert find_server(directory=kind(tmp_path)).token == server(os.getpid()).token
    assert as_json({"cwd": kind(Path("/data"))}) == b'{"cwd":"/data"}'
    with pytest.raises(TypeError):
        as_json({"cwd": {1}})


def test_without_a_token_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="absent"):
        ServerAddress(["http://a:1"], tmp_path / "absent", None).next()


def test_where_others_reach_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' machine may have a network or none; loopback towards the server tells nothing then."""
    ways = {"203.0.113.9": "10.0.0.7", "127.0.0.1": "127.0.0.1", "192.0.2.1": "192.168.1.5"}
    monkeypatch.setattr("jarvis.worker.resource_monitor._source", lambda host: ways.get(host, ""))
    assert address_towards(["https://203.0.113.9:7517"]) == "10.0.0.7"
    assert address_towards(["http://127.0.0.1:7517", "https://203.0.113.9:7517"]) == "10.0.0.7"
    assert address_towards(["http://127.0.0.1:7517"]) == "192.168.1.5"
    del ways["192.0.2.1"]
    assert address_towards(["http://127.0.0.1:7517"]) == "127.0.0.1"
    assert address_towards([]) == "127.0.0.1"


async def test_names_that_nobody_resolves_keep_no_node_from_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent adopts what runs before it asks anybody: without a name server, too."""
    over, here = threading.Event(), "192.168.1.5"
    monkeypatch.setattr(
        "jarvis.worker.resource_monitor._source", lambda host: over.wait(60) and "" if host == "silent" else here
    )
    try:
        assert await find_address(["https://silent:7517"], patience_s=0.05) == here
        assert over.is_set() is False
    finally:
        over.set()


def test_the_way_to_a_host_is_asked_of_the_system() -> None:
    from jarvis.worker.resource_monitor import _source

    assert _source("127.0.0.1") == "127.0.0.1"
    assert _source("no such host") == ""
