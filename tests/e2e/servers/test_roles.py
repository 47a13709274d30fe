"""Servers that only take requests, servers that only decide, and the process in which one server decides apart."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.cluster.harness import Home, home, wait_for
from tests.e2e.servers.harness import Servers, servers
from tests.servers.postgres import PostgresServer

from jarvis.utils import server_file

pytestmark = pytest.mark.timeout(300)
OWN = {"JARVIS_SERVER__SCHEDULER_PROCESS": "own"}


def ask(content: server_file.ServerFile, path: str, body: object = None) -> int:
    """The status that it answers with."""
    headers = {"Authorization": f"Bearer {content.token}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(content.url + path, data, headers), timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


# ------------------------------------------------------------ one role each


@contextlib.contextmanager
def running(made: Home, *args: str) -> Iterator[subprocess.Popen[bytes]]:
    """``jarvis server`` in the foreground, announced."""
    command = [sys.executable, "-m", "jarvis.cli", "server", "--log-file", str(made.directory / "server.log"), *args]
    process = subprocess.Popen(command, env=made.env, stdin=subprocess.DEVNULL)
    try:
        wait_for(lambda: (c := server_file.read(made.directory)) is not None and c.pid == process.pid, "it is there")
        yield process
    finally:
        process.terminate()
        process.wait(30)


def test_one_takes_requests_and_another_decides() -> None:
    postgres = PostgresServer()
    with contextlib.ExitStack() as stack:
        stack.callback(postgres.remove)
        postgres.create()
        api, decider = stack.enter_context(home()), stack.enter_context(home())
        for made in (api, decider):
            made.directory.mkdir()
            made.env |= {"JARVIS_STORE__KIND": "postgres", "JARVIS_STORE__URL": postgres.database()}
        api.env["JARVIS_STORE__URL"] = decider.env["JARVIS_STORE__URL"]
        stack.enter_context(running(api, "--role", "api", "--node-name", "n", "--cpus", "2"))
        with api.client() as client:
            early = client.submit(command=["true"], hold=True).id
            assert ask(api.server, "/ready") == 200, "tasks are taken in while nobody leads"
            checks = client.connection.get("/health")["checks"]
            assert checks["scheduler_queue"]["status"] == "degraded"
            stack.enter_context(running(decider, "--role", "scheduler"))
            assert client.wait(client.submit(command=["true"]).id, 30)["state"] == "succeeded"
            wait_for(lambda: client.show(early)["state"] == "held", "what came earlier is taken, too")
            roles = {s["role"]: s["leads"] for s in client.connection.get("/cluster")["servers"]}
            assert roles == {"api": False, "scheduler": True}
            assert "it is held by its user" in api.jarvis("why", str(early)).stdout
        for path in ("/alive", "/ready", "/health", "/metrics"):
            assert ask(decider.server, path) == 200
        for path in ("/tasks", "/cluster", "/nodes", "/events", "/api/v1/tasks", "/replica/v1/stream/1"):
            assert ask(decider.server, path) == 404
        assert ask(decider.server, "/tasks", {"command": ["true"]}) == 404
        assert decider.agent() is None, "it has no node"
        api.jarvis("cancel", str(early))


@pytest.mark.parametrize("role", ["api", "scheduler"])
def test_a_role_needs_other_servers(role: str) -> None:
    with home() as made:
        made.directory.mkdir()
        done = made.jarvis("server", "--role", role, code=1)
        assert f"server.role {role} needs other servers" in done.stderr
        assert "Traceback" not in done.stderr


def test_up_does_not_start_what_only_decides() -> None:
    with home() as made:
        made.directory.mkdir()
        made.env |= {"JARVIS_STORE__KIND": "postgres", "JARVIS_STORE__URL": "postgresql://nobody@127.0.0.1:1/x"}
        made.env["JARVIS_SERVER__ROLE"] = "scheduler"
        assert "jarvis server" in made.jarvis("up", code=1).stderr


# ------------------------------------------------------------ apart


@pytest.fixture(scope="module")
def one() -> Iterator[Servers]:
    with servers("na", cpus=4, more=OWN) as made:
        yield made


def decider(made: Servers) -> server_file.ServerFile:
    """What the process said about itself that decides for the only server."""
    content = server_file.read(made.homes["na"].directory / "scheduler")
    assert content is not None
    return content


def runs(made: Servers) -> bool:
    with made.homes["na"].client() as client:
        return client.wait(client.submit(command=["true"]).id, 60)["state"] == "succeeded"


def test_a_server_decides_in_a_process_of_its_own(one: Servers) -> None:
    assert runs(one)
    told = json.loads(one.homes["na"].jarvis("cluster", "show", "-o", "json").stdout)
    assert {(s["role"], s["leads"]) for s in told["servers"]} == {("api", False), ("scheduler", True)}
    content = one.homes["na"].server
    request = urllib.request.Request(content.url + "/metrics", headers={"Authorization": f"Bearer {content.token}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        families = [line.split()[2] for line in answer.read().decode().splitlines() if line.startswith("# TYPE ")]
    assert len(families) == len(set(families)), "each family once, whichever process has it"
    assert {"jarvis_scheduler_queue_length", "jarvis_task_submitted_total", "jarvis_worker_available"} <= set(families)
    with one.homes["na"].client() as client:
        held = client.submit(command=["true"], hold=True).id
        wait_for(lambda: "held by its user" in one.homes["na"].jarvis("why", str(held)).stdout, "it is explained")
        client.act(held, "cancel")


def test_one_that_is_killed_is_followed_while_requests_are_taken(one: Servers) -> None:
    before = decider(one).pid
    os.kill(before, signal.SIGKILL)
    with one.homes["na"].client() as client:
        ident = client.submit(command=["true"]).id
        assert client.wait(ident, 60)["state"] == "succeeded"
    assert decider(one).pid != before
    wait_for(lambda: one.health("na")["status"] == "ok", "all is well again")


def test_one_that_stands_still_holds_up_no_request(one: Servers) -> None:
    wait_for(one.leads, "somebody leads", 60)
    pid = decider(one).pid
    os.kill(pid, signal.SIGSTOP)
    try:
        with one.homes["na"].client() as client:
            ident = client.submit(command=["true"]).id
            wait_for(lambda: one.health("na")["checks"]["scheduler_queue"]["status"] == "degraded", "it is noticed")
            assert ask(one.homes["na"].server, "/ready") == 200
    finally:
        os.kill(pid, signal.SIGCONT)
    with one.homes["na"].client() as client:
        assert client.wait(ident, 60)["state"] == "succeeded"


def test_it_ends_with_its_parent(one: Servers) -> None:
    made = one.homes["na"]
    pid = decider(one).pid
    made.kill_server()
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), "it ends")
    made.jarvis("up", *made.up_with)
    assert runs(one)
    pid = decider(one).pid
    made.jarvis("down")
    assert not Path(f"/proc/{pid}").exists()
