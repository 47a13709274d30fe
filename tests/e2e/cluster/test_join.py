"""Other machines: a second state directory joins over TLS, runs tasks, is told from others, and is removed."""

import contextlib
import getpass
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.cluster.harness import Home, home, wait_for
from tests.servers.postgres import free_port

from jarvis.utils import certificates
from jarvis.worker.credentials import AUTHORITY, PAIR, Credentials

pytestmark = pytest.mark.timeout(300)
OTHER_PIN = "sha256:" + "0" * 64


class Cluster:
    """A server that listens, and machines that may join it."""

    def __init__(self, server: Home, port: int) -> None:
        self.made, self.url = server, f"https://127.0.0.1:{port}"
        said = server.jarvis("up", "--listen", f"127.0.0.1:{port}", "--node-name", "first", "--cpus", "1").stdout
        self.pin = re.findall(r"--ca-pin (sha256:[0-9a-f]{64})", said)[0]

    def token(self) -> str:
        line = self.made.jarvis("token", "create", "--join").stdout
        assert line.startswith(f"jarvis join {self.url} ")
        return str(re.findall(r"--token (\S+)", line)[0])

    def join(self, machine: Home, name: str, *more: str, code: int | None = 0) -> "subprocess.CompletedProcess[str]":
        words = ("--token", self.token(), "--ca-pin", self.pin, "--name", name)
        return machine.jarvis("join", self.url, *words, *more, code=code)

    def nodes(self) -> dict[str, dict[str, Any]]:
        found = json.loads(self.made.jarvis("node", "ls", "-o", "json").stdout)
        return {node["name"]: node for node in found}

    def ask(self, path: str, context: ssl.SSLContext, token: str = "", body: dict[str, Any] | None = None) -> int:
        """The status that it answers with."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        data = None if body is None else json.dumps(body).encode()
        try:
            request = urllib.request.Request(self.url + path, data, headers)
            with urllib.request.urlopen(request, timeout=10, context=context) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refused:
            return refused.code


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with home() as made:
        yield Cluster(made, free_port())


@pytest.fixture
def machine() -> Iterator[Home]:
    """Another one, as far as Jarvis can tell."""
    with home() as made:
        made.env["XDG_CONFIG_HOME"] = str(made.directory.parent / "config")
        yield made


def test_a_machine_joins_and_runs_tasks(cluster: Cluster, machine: Home) -> None:
    said = cluster.join(machine, "worker", "--label", "zone=b", "--cpus", "2").stdout
    assert said.startswith("worker is node ")
    node = cluster.nodes()["worker"]
    assert (node["state"], node["labels"]["zone"], node["resources"]["cpu"]) == ("ready", "b", "2")
    with cluster.made.client() as client:
        task = client.submit(command=["sh", "-c", "echo $JARVIS_NODE"], resources={"cpu": 2})
        assert client.wait(task.id, 60)["state"] == "succeeded"
    assert cluster.made.jarvis("logs", str(task.id)).stdout == "worker\n"
    there_and_back(cluster, "worker")
    assert "already" in machine.jarvis("join").stdout
    machine.jarvis("down")
    assert machine.jarvis("join").stdout.startswith("worker is node "), "the credentials are kept"
    modes = {path.name: path.stat().st_mode & 0o777 for path in (machine.directory / "credentials").iterdir()}
    assert set(modes.values()) == {0o600}


def there_and_back(cluster: Cluster, name: str) -> None:
    """Files that are sent to a node and left there, over its session."""
    folder = cluster.made.directory / "files"
    folder.mkdir()
    data = os.urandom(3_000_000)
    (folder / "in").write_bytes(data)
    with cluster.made.client() as client:
        pushed = [client.push(folder / "in")]
        task = client.submit(
            command="cp in out; pwd", push=pushed, artifacts=["out"], resources={"cpu": 2}, constraints=["zone=b"]
        )
        task.check(60)
        assert task.get_artifacts(folder) == [folder / "out"]
        assert (folder / "out").read_bytes() == data
        (attempt,) = client.connection.get(f"/tasks/{task.id}/attempts")["items"]
        assert attempt["node"] == cluster.nodes()[name]["id"]


def test_what_is_wrong_on_this_side_leaves_the_token_unused(cluster: Cluster, machine: Home) -> None:
    token = cluster.token()
    done = machine.jarvis("join", cluster.url, "--token", token, "--ca-pin", OTHER_PIN, "--name", "pinned", code=1)
    assert "stands in between" in done.stderr
    words = ("join", cluster.url, "--token", token, "--ca-pin", cluster.pin, "--name", "pinned")
    assert "NAME=VALUE" in machine.jarvis(*words, "--label", "wrong", code=2).stderr
    assert "memory" in machine.jarvis(*words, "--memory", "much", code=None).stderr
    machine.jarvis(*words, "--memory", "4G", "--gpus", "2", "--gpu-memory", "8G,24Gi")
    wait_for(lambda: cluster.nodes().get("pinned", {}).get("state") == "ready", "it is there")
    told = cluster.nodes()["pinned"]
    assert (told["resources"]["memory"], told["gpu_memory"]) == ("4Gi", ["8Gi", "24Gi"]), "as in submit --mem 4G"


def test_a_token_lets_one_in_once(cluster: Cluster, machine: Home) -> None:
    token = cluster.token()
    machine.jarvis("join", cluster.url, "--token", token, "--ca-pin", cluster.pin, "--name", "once")
    with home() as second:
        words = ("--token", token, "--ca-pin", cluster.pin, "--name", "twice")
        assert "token" in second.jarvis("join", cluster.url, *words, code=1).stderr
        assert "a node named 'once' has joined already" in cluster.join(second, "once", code=1).stderr
        assert "another cluster" not in second.jarvis("join", "https://127.0.0.1:1", *words, code=1).stderr
        assert "is not https" in second.jarvis("join", "http://127.0.0.1:1", *words, code=2).stderr
        assert "a first time needs" in second.jarvis("join", code=2).stderr


def test_a_removed_node_is_out_within_seconds_and_what_ran_there_runs_elsewhere(
    cluster: Cluster, machine: Home, tmp_path: Path
) -> None:
    cluster.join(machine, "leaver", "--cpus", "4", "--label", "kind=leaver")
    script = f"echo $JARVIS_NODE >> {tmp_path}/ran; [ $JARVIS_NODE != leaver ] || sleep 100"
    with cluster.made.client() as client:
        task = client.submit(command=["sh", "-c", script], resources={"cpu": 1})
        if "leaver" not in wait_for(lambda: (tmp_path / "ran").exists() and (tmp_path / "ran").read_text(), "it runs"):
            task = client.submit(command=["sh", "-c", script], resources={"cpu": 3})
            wait_for(lambda: "leaver" in (tmp_path / "ran").read_text(), "it runs there")
        assert "has tasks" in cluster.made.jarvis("node", "rm", "leaver", code=1).stderr
        begun = time.monotonic()
        cluster.made.jarvis("node", "rm", "leaver", "--force")
        wait_for(
            lambda: "HTTP 401" in (machine.directory / "node" / "agent.log").read_text(), "it is not let in again", 15
        )
        assert time.monotonic() - begun < 15
        assert client.show(task.id)["state"] in ("queued", "running", "succeeded")
    time.sleep(1.0)
    assert "leaver" not in cluster.nodes()
    context = Credentials(machine.directory / "credentials").context()
    assert cluster.ask("/agent/v1/servers", context) == 401


def test_a_certificate_is_renewed_while_a_task_runs(cluster: Cluster, machine: Home, tmp_path: Path) -> None:
    cluster.join(machine, "renewer")
    credentials = Credentials(machine.directory / "credentials")
    before = (credentials.directory / PAIR).read_bytes()
    assert not credentials.is_late()
    assert Credentials(credentials.directory, lambda: time.time() + 17 * 3600).is_late()
    credentials.renew()
    after = (credentials.directory / PAIR).read_bytes()
    assert after != before
    assert credentials.urls == [cluster.url]
    assert cluster.ask("/agent/v1/servers", credentials.context()) == 200


def test_each_door_takes_its_own_alone(cluster: Cluster, machine: Home, tmp_path: Path) -> None:
    cluster.join(machine, "hostile")
    kept = machine.directory / "credentials"
    node = Credentials(kept).context()
    authority = ssl.create_default_context(cafile=str(kept / AUTHORITY))
    owner, joins = cluster.made.server.token, cluster.token()
    assert cluster.ask("/api/v1/tasks", node) == 403, "a node's certificate opens nothing of people"
    assert cluster.ask("/api/v1/tasks", node, body={"command": ["true"]}) == 403
    assert cluster.ask("/agent/v1/servers", authority) == 401, "nobody without a certificate or token"
    assert cluster.ask("/api/v1/tasks", authority) == 401
    assert cluster.ask("/api/v1/tasks", authority, joins) == 403, "a join token only joins"
    assert cluster.ask("/agent/v1/servers", authority, joins) == 403
    assert cluster.ask("/agent/v1/certificate", authority, owner, {"request": "x"}) == 403
    imitated = {"role": "admin", "label": "member:hostile"}
    assert cluster.ask("/api/v1/tokens", authority, owner, imitated) == 422
    assert cluster.ask("/agent/v1/join", authority, owner, {"name": "../x", "request": "x"}) == 422
    assert cluster.ask("/agent/v1/join", authority, joins, {"name": "fine", "request": "x"}) == 422
    member = subprocess.run(
        ["openssl", "x509", "-in", str(kept / PAIR), "-noout", "-subject"], check=True, capture_output=True, text=True
    ).stdout
    secret = re.findall(r"OU\s*=\s*([0-9a-f]{32})", member)[0]
    for said in (secret, f"member:{secret}"):
        assert cluster.ask("/agent/v1/servers", authority, said) == 401, "what a certificate says is no secret"
    with pytest.raises((urllib.error.URLError, ssl.SSLError)):
        cluster.ask("/alive", ssl.create_default_context())
    stranger = tmp_path / "stranger"
    shutil.copytree(kept, stranger)
    own = certificates.new_authority(time.time())
    key, request = certificates.node_request("hostile")
    forged = certificates.node_certificate(own, request, "hostile", secret, time.time())
    (stranger / PAIR).write_bytes(key + forged)
    with pytest.raises((urllib.error.URLError, ssl.SSLError, ConnectionError)):
        cluster.ask("/agent/v1/servers", Credentials(stranger).context())


def test_people_log_in_from_another_machine(cluster: Cluster, machine: Home) -> None:
    token = cluster.made.jarvis(
        "token", "create", "--user", getpass.getuser(), "--project", "default", "--label", "laptop"
    ).stdout.strip()
    assert (
        "stands in between"
        in machine.jarvis("login", cluster.url, "--token", token, "--ca-pin", OTHER_PIN, code=1).stderr
    )
    assert "token" in machine.jarvis("login", cluster.url, "--token", "wrong", "--ca-pin", cluster.pin, code=1).stderr
    machine.jarvis("login", cluster.url, "--token", token, "--ca-pin", cluster.pin)
    assert machine.jarvis("run", "--", "echo", "from afar").stdout == "from afar\n"
    assert machine.jarvis("node", "drain", "first", "--reason", "x", code=None).returncode != 0, (
        "who holds it is no admin"
    )
    assert machine.jarvis("token", "ls", code=None).returncode != 0
    listed = json.loads(cluster.made.jarvis("token", "ls", "-o", "json").stdout)
    (ident,) = (one["id"] for one in listed if one["label"] == "laptop")
    assert token not in json.dumps(listed)
    cluster.made.jarvis("token", "rm", ident)
    wait_for(lambda: machine.jarvis("ls", code=None).returncode != 0, "the token is worth nothing", 10)


def test_a_node_finds_the_server_again_after_it_was_killed(cluster: Cluster, machine: Home, tmp_path: Path) -> None:
    cluster.join(machine, "finder", "--cpus", "8")
    with cluster.made.client() as client:
        script = f"echo x >> {tmp_path}/begun; while [ ! -e {tmp_path}/go ]; do sleep 0.1; done"
        task = client.submit(command=["sh", "-c", script], resources={"cpu": 8})
    wait_for((tmp_path / "begun").exists, "it runs")
    cluster.made.kill_server()
    cluster.made.jarvis("up", "--listen", cluster.url.removeprefix("https://"), "--node-name", "first", "--cpus", "1")
    (tmp_path / "go").touch()
    with cluster.made.client() as client:
        assert client.wait(task.id, 60)["state"] == "succeeded"
    assert (tmp_path / "begun").read_text() == "x\n"


def test_over_ipv6(machine: Home) -> None:
    with home() as made:
        port = free_port()
        made.jarvis("up", "--listen", f"[::1]:{port}", "--node-name", "first", "--cpus", "1")
        line = made.jarvis("token", "create", "--join").stdout.split()
        assert line[2] == f"https://[::1]:{port}"
        machine.jarvis(*line[1:], "--name", "six", "--cpus", "4")
        assert Credentials(machine.directory / "credentials").urls == [line[2]]
        assert made.jarvis("run", "-c", "4", "--", "sh", "-c", "echo $JARVIS_NODE").stdout == "six\n"
        machine.jarvis("down")


class ConnectProxy(threading.Thread):
    """An HTTP proxy that knows CONNECT alone, and remembers whereto."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.asked: list[str] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(4096)
        target = head.split()[1].decode()
        self.asked.append(target)
        host, _, port = target.rpartition(":")
        server = socket.create_connection((host.strip("[]"), int(port)))
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        back = threading.Thread(target=self.pump, args=(server, client), daemon=True)
        back.start()
        self.pump(client, server)
        back.join()
        client.close()
        server.close()

    def pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxy() -> Iterator[ConnectProxy]:
    made = ConnectProxy()
    made.start()
    yield made
    made.listener.close()


@pytest.mark.parametrize("how", ["environment", "settings", "not this one"])
def test_through_a_proxy(cluster: Cluster, machine: Home, proxy: ConnectProxy, how: str) -> None:
    if how == "settings":
        machine.env["JARVIS_WORKER__PROXY"] = proxy.url
    else:
        machine.env["HTTPS_PROXY"] = proxy.url
    if how == "not this one":
        machine.env["NO_PROXY"] = "127.0.0.1"
    name = how.replace(" ", "-")
    cluster.join(machine, name)
    assert cluster.nodes()[name]["state"] == "ready"
    asked = set(proxy.asked)
    assert asked == (set() if how == "not this one" else {cluster.url.removeprefix("https://")})
    if asked:
        assert len(proxy.asked) >= 3, "the authority, the token and the session"
