"""Another user of the same machine, who knows where everything is, gets nothing from it."""

import contextlib
import http.client
import importlib
import io
import json
import multiprocessing
import os
import pwd
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.cluster.harness import Home, wait_for

from jarvis.cli.main import main
from jarvis.sdk.client import Client

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.root,
    pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user"),
]


def as_nobody(work: Callable[..., Any], *args: Any) -> Any:
    """What ``work`` returns in a process of the user nobody, who has no access to anything of ours by chance."""
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)

    def child() -> None:
        account = pwd.getpwnam("nobody")
        os.setgroups([])
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
        sender.send(work(*args))

    process = fork.Process(target=child)
    process.start()
    assert receiver.poll(60), "the other user's process says nothing"
    answer = receiver.recv()
    process.join(60)
    return answer


@pytest.fixture(scope="module")
def seen(up: Home) -> Home:
    """The cluster in a place where everybody may look, so that only its own modes protect it."""
    for module in ("secrets", "getpass", "logging.config", "jarvis.wiring", "jarvis.cli.cluster"):
        importlib.import_module(module)  # the other user may not be allowed to read the interpreter's files
    up.directory.parent.chmod(0o755)
    return up


def opened(directory: Path) -> list[str]:
    """Which of the files the other user could open, to read, to write or to connect to."""
    found = []
    for path in [directory, *SECRETS]:
        for mode in (os.O_RDONLY, os.O_WRONLY):
            with contextlib.suppress(OSError):
                os.close(os.open(path, mode))
                found.append(str(path))
    return found


SECRETS: list[Path] = []
HARMLESS = frozenset({"port", "node.json"})
"""Numbers that anybody can find out."""


def test_no_file_of_the_cluster_can_be_opened(seen: Home) -> None:
    """Nor what a task printed, though the name of that file is easily guessed."""
    task = seen.jarvis("submit", "-q", "--", "sh", "-c", "echo secret; sleep 60").stdout.strip()
    with seen.client() as client:
        wait_for(lambda: client.show(int(task))["state"] == "running", "it runs")
    wait_for(lambda: any(path.read_bytes() for path in seen.directory.rglob("places/*.out")), "something is printed")
    SECRETS[:] = [path for path in seen.directory.rglob("*") if path.name not in HARMLESS]
    names = {path.name for path in SECRETS}
    assert {"server.json", "token", "node.token", "jarvis.db", "server.log"} <= names
    assert any(path.parent.name == "places" for path in SECRETS)
    assert as_nobody(opened, seen.directory) == []


def command_line(directory: str, *args: str) -> tuple[int, str]:
    """The command line in this very process, with the environment of somebody who was told where the cluster is."""
    os.environ.update(JARVIS_HOME=directory, JARVIS_CONFIG="/nonexistent.yaml", HOME="/nonexistent")
    sys.argv = ["jarvis", *args]
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(errors):
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0), errors.getvalue()
        except Exception as error:  # noqa: BLE001 - a defect, told to the test
            return -1, repr(error)
    return 0, errors.getvalue()


@pytest.mark.parametrize("args", [["submit", "--", "true"], ["ls"], ["logs", "1"], ["cancel", "1"]])
def test_the_command_line_gets_nowhere(seen: Home, args: list[str]) -> None:
    with seen.client() as client:
        before = client.connection.get("/stats")["tasks"]
        code, said = as_nobody(command_line, str(seen.directory), *args)
        assert code > 0, said
        assert str(seen.directory) in said or "server" in said or "token" in said
        assert client.connection.get("/stats")["tasks"] == before


def test_the_command_line_cannot_stop_it(seen: Home) -> None:
    """To the other user it is not up, because nothing of it can be read."""
    assert as_nobody(command_line, str(seen.directory), "down") == (0, "Jarvis was not up\n")
    assert seen.server.pid in seen.processes()


def requests(port: int) -> list[tuple[str, int]]:
    """Statuses of requests without a token, with guessed ones, and of a web page that this user has open."""
    out = []
    for name, headers in (
        ("no token", {}), ("guessed", {"Authorization": "Bearer jarvis"}), ("empty", {"Authorization": "Bearer "}),
        ("page", {"Origin": "http://evil.example"}), ("rebound name", {"Host": "evil.example"}),
    ):  # fmt: skip
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("POST", "/tasks", json.dumps({"command": ["true"]}), headers)
        out.append((name, connection.getresponse().status))
        connection.close()
    return out


def test_requests_without_the_token_get_nowhere(seen: Home) -> None:
    port = int(seen.server.url.rpartition(":")[2])
    told = as_nobody(requests, port)
    assert told == [("no token", 401), ("guessed", 401), ("empty", 401), ("page", 403), ("rebound name", 421)]


def test_a_page_of_another_site_gets_nowhere_even_with_the_token(seen: Home) -> None:
    with seen.client() as client:
        before = client.connection.get("/stats")["tasks"]
        for origin in ("http://evil.example", "null", "http://127.0.0.1:1", "https://localhost.evil.example"):
            assert asked(client, {"Origin": origin}) == 403
        assert asked(client, {"Host": "evil.example"}) == 421
        assert client.connection.get("/stats")["tasks"] == before
        assert asked(client, {"Origin": seen.server.url}) == 201


def asked(client: Client, headers: dict[str, str]) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", int(client.connection.url.rpartition(":")[2]), timeout=30)
    sent = {"Authorization": f"Bearer {client.connection.token}"} | headers
    connection.request("POST", "/tasks", json.dumps({"command": ["true"]}), sent)
    status = connection.getresponse().status
    connection.close()
    return status


def arguments_of_others() -> bytes:
    """Everything that this user can see of other processes' command lines and environments."""
    found = b""
    for folder in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            with contextlib.suppress(OSError):
                found += (folder / name).read_bytes()
    return found


def test_no_process_shows_a_token(seen: Home) -> None:
    text = as_nobody(arguments_of_others)
    assert str(seen.directory).encode() in text, "the cluster's processes are seen"
    for name in ("token", "node.token"):
        assert (seen.directory / name).read_text().strip().encode() not in text
    assert seen.server.token.encode() not in text
