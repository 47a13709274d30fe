"""A whole cluster on hosts of its own: PostgreSQL and Redis on one, servers and nodes each on theirs, links that can be cut."""

import contextlib
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from http.client import HTTPException
from json import dumps
from pathlib import Path
from typing import Any

import msgspec
from tests.chaos.hosts import FREEZER, Host, hosts, needs_hosts
from tests.chaos.ledger import Request, script
from tests.e2e.cluster.harness import Home, wait_for
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

from jarvis.utils import server_file

BOOT_ID = "/proc/sys/kernel/random/boot_id"
AT_ONCE = 5000


class Machine:
    """A host with a state directory, and what runs there."""

    def __init__(self, host: Host, made: Home) -> None:
        self.host, self.home, self.name = host, made, host.namespace.rpartition("-")[2]
        made.directory.mkdir(mode=0o700, exist_ok=True)
        self._boot = made.directory.parent / "boot"
        self.reboot_id()

    def reboot_id(self) -> None:
        """From the next start on, everything there believes that the machine was started anew."""
        self._boot.write_text(f"{uuid.uuid4()}\n")

    def argv(self, *args: str) -> list[str]:
        mount = f'mount --bind "$0" {BOOT_ID} && exec "$@"'
        return ["unshare", "-m", "sh", "-c", mount, str(self._boot), sys.executable, "-m", "jarvis.cli", *args]

    def jarvis(self, *args: str, code: int | None = 0) -> str:
        """A command there; what it prints. ``code`` is what it must end with (None: anything)."""
        with self.host.inside():
            done = subprocess.run(
                self.argv(*args), env=self.home.env, capture_output=True, text=True, timeout=120, check=False
            )
        assert code is None or done.returncode == code, (
            f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.home.logs()}"
        )
        return done.stdout

    def kill(self) -> None:
        """Everything on it at once, as when its power goes: nobody lives to see others die."""
        while pids := self.host.pids():
            for pid in sorted(pids, key=_sees_others_die, reverse=True):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Nothing on it goes on, not even clocks of its own; afterwards everything does."""
        group, before = FREEZER / self.host.namespace, {pid: _freezer_of(pid) for pid in self.host.pids()}
        group.mkdir()
        try:
            for pid in before:
                with contextlib.suppress(ProcessLookupError):
                    (group / "tasks").write_text(str(pid))
            (group / "freezer.state").write_text("FROZEN")
            wait_for(lambda: (group / "freezer.state").read_text().strip() == "FROZEN", "it is frozen")
            yield
        finally:
            (group / "freezer.state").write_text("THAWED")
            for pid, home_group in before.items():
                with contextlib.suppress(OSError):  # it, or its group, is gone
                    (home_group / "tasks").write_text(str(pid))
            for pid in map(int, (group / "tasks").read_text().split()):
                with contextlib.suppress(ProcessLookupError):
                    (FREEZER / "tasks").write_text(str(pid))
            group.rmdir()

    def forget_groups(self) -> None:
        """A supervisor that was killed leaves the groups of its tasks, empty."""
        for journal in self.home.directory.glob("node/*.journal"):
            for ident in set(re.findall(rb"\b[0-9a-f]{12}\b", journal.read_bytes())):
                for group in Path("/sys/fs/cgroup").glob(f"*/jarvis-{ident.decode()}"):
                    for inner in sorted(group.rglob("*/"), reverse=True):
                        inner.rmdir()
                    group.rmdir()


def _sees_others_die(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"supervisor/__main__.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _freezer_of(pid: int) -> Path:
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        if ":freezer:" in line:
            return FREEZER / line.rpartition(":")[2].lstrip("/")
    return FREEZER


class ServerMachine(Machine):
    """One that runs ``jarvis server --no-node``."""

    process: subprocess.Popen[bytes] | None = None

    def kill(self) -> None:
        super().kill()
        if self.process is not None:
            self.process.wait(30)

    def start(self, *args: str) -> None:
        """And wait until it answers."""
        listen = ["--listen", f"{self.host.address}:7516", "--log-file", str(self.home.directory / "server.log")]
        errors = (self.home.directory / "server.err").open("ab")
        with self.host.inside(), errors:
            self.process = subprocess.Popen(
                self.argv("server", "--no-node", *listen, *args), env=self.home.env, stdin=subprocess.DEVNULL,
                stdout=errors, stderr=errors,
            )  # fmt: skip

    def ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:  # as systemd would: the database may have been away
            self.start()
        content = server_file.read(self.home.directory)
        return content is not None and content.pid == self.process.pid and self.ask("GET", "/alive")[0] == 200

    def stop(self) -> None:
        """Orderly."""
        assert self.process is not None
        self.process.terminate()
        self.process.wait(30)

    def ask(self, method: str, path: str, body: Any = None, key: str = "", timeout: float = 10.0) -> tuple[int, Any]:
        """Status and JSON; MessagePack where the body is bytes; status 0 without an answer."""
        content = server_file.read(self.home.directory)
        if content is None:
            return 0, None
        headers = {"Authorization": f"Bearer {content.token}", "Content-Type": "application/json"}
        headers |= {"Idempotency-Key": key} if key else {}
        data = body if body is None or isinstance(body, bytes) else dumps(body).encode()
        request = urllib.request.Request(content.url + path, data, headers, method=method)
        with self.host.inside():
            try:
                with urllib.request.urlopen(request, timeout=timeout) as answer:
                    return answer.status, (msgspec.msgpack if isinstance(body, bytes) else msgspec.json).decode(
                        answer.read() or b"null"
                    )
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, None
            except (OSError, ValueError, HTTPException, msgspec.DecodeError):
                return 0, None


class Bed:
    """``servers`` and ``nodes`` by name."""

    def __init__(self, db: Host, servers: list[ServerMachine], nodes: list[Machine], cpus: int) -> None:
        self.db, self.cpus = db, cpus
        self.servers = {machine.name: machine for machine in servers}
        self.nodes = {machine.name: machine for machine in nodes}
        with db.inside():
            self.postgres, self.redis = PostgresServer(True, db.address), RedisServer(db.address)

    def start(self) -> None:
        with self.db.inside():
            self.postgres.create()
            self.redis.start()
            url = self.postgres.database()
        environment = {
            "JARVIS_STORE__KIND": "postgres",
            "JARVIS_STORE__URL": url,
            "JARVIS_BUS__REDIS_URL": self.redis.url,
        }
        for server in self.servers.values():
            server.home.env |= environment
            server.start()
        for server in self.servers.values():
            wait_for(server.ready, f"{server.name} is up", 60)
        self.leader()
        pin = self.ask("GET", "/agent/v1/authority")[1]["pin"]
        for node in self.nodes.values():
            status, made = self.ask("POST", "/tokens", {"role": "join"})
            assert status == 201, made
            urls = [f"https://{server.host.address}:7516" for server in self.servers.values()]
            node.jarvis(
                "join", *urls, "--token", made["token"], "--ca-pin", pin, "--name", node.name,
                "--cpus", str(self.cpus),
            )  # fmt: skip

    def remove(self) -> None:
        self.postgres.remove()
        self.redis.remove()

    # ------------------------------------------------------------ asked

    def any(self) -> ServerMachine:
        return random.choice(list(self.servers.values()))

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Any server that answers well, one after the other, for a while."""
        key = uuid.uuid4().hex if body is not None else ""
        status, answer = 0, None
        for server in itertools.islice(itertools.cycle(self.servers.values()), 60):
            status, answer = server.ask(method, path, body, key)
            if 200 <= status < 500:
                return status, answer
            time.sleep(0.2)
        return status, answer

    def leads(self, but: str = "") -> str | None:
        """The server that leads, as its own health says."""
        for name, server in self.servers.items():
            if name == but:
                continue
            _, told = server.ask("GET", "/health", timeout=4)
            if told and "queued" in told["checks"]["scheduler_queue"]["detail"]:
                return name
        return None

    def leader(self) -> ServerMachine:
        return self.servers[str(wait_for(self.leads, "somebody leads", 90))]

    def states(self) -> dict[str, str]:
        """Of the nodes, by name."""
        return {node["name"]: node["state"] for node in self.ask("GET", "/nodes")[1]["items"]}

    def events(self, kind: str) -> list[dict[str, Any]]:
        """All of a kind."""
        found, after = [], ""
        while items := (page := self.ask("GET", f"/events?limit=1000{after and '&after='}{after}")[1])["items"]:
            found += [event for event in items if event["kind"] == kind]
            after = page["next"]
        return found

    def submit(self, file: Path, seconds: float, **more: Any) -> int:
        status, answer = self.ask("POST", "/tasks", spec(file, seconds) | more)
        assert status == 201, answer
        return int(answer["id"])

    def show(self, task: int) -> dict[str, Any]:
        return dict(self.ask("GET", f"/tasks/{task}")[1])


def spec(file: Path, seconds: float) -> dict[str, Any]:
    return {"command": script(file, seconds), "resources": {"cpu": 0.1}, "cwd": "/"}


class Clients:
    """Threads that submit to any server, repeat with the same key until they are answered, look at what they submitted, and
    keep the whole history."""

    def __init__(self, bed: Bed, file: Path, count: int = 3, pause: float = 0.1, seconds: float = 0.3) -> None:
        self._bed, self._file, self._pause, self._seconds = bed, file, pause, seconds
        self.history: list[Request] = []
        self.acknowledged: list[int] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        mine: list[int] = []
        while not self._over.is_set():
            key = uuid.uuid4().hex
            while not self._over.is_set() and (ident := self._submit(key)) is None:
                self._over.wait(0.1)
            if not self._over.is_set() and ident is not None:
                mine.append(ident)
            if mine and random.random() < 0.5:
                self._show(random.choice(mine[-20:]))
            self._over.wait(self._pause)

    def _submit(self, key: str) -> int | None:
        begun = time.monotonic()
        body = spec(self._file, random.uniform(0.0, 2 * self._seconds))
        body["command"][2] += f"; : {key}"
        status, answer = self._bed.any().ask("POST", "/tasks", body | {"name": key}, key)
        ident = int(answer["id"]) if status == 201 else None
        assert status in (0, 201, 409, 503), f"a submission was answered with {status}"
        self.history.append(Request("submit", key, begun, time.monotonic(), ident))
        if ident is not None:
            self.acknowledged.append(ident)
        return ident

    def _show(self, ident: int) -> None:
        begun = time.monotonic()
        status, answer = self._bed.any().ask("GET", f"/tasks/{ident}")
        told = answer["state"] if status == 200 else "absent" if status == 404 else None
        self.history.append(Request("show", str(ident), begun, time.monotonic(), told))

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)


def until_ended(bed: Bed, tasks: list[int], patience: float = 300.0) -> dict[int, str]:
    """How each has ended, once all have. ``patience``: how long none may end."""
    found: dict[int, str] = {}

    def some_more() -> bool:
        wanted = [ident for ident in tasks if ident not in found][:AT_ONCE]
        ended = bed.ask("POST", "/tasks/results", msgspec.msgpack.encode({"ids": wanted, "wait": 5.0}))[1] or {}
        found.update({row[0]: row[1] for row in ended.get("results", ())})
        return len(found) > before

    while (before := len(found)) < len(set(tasks)):
        wait_for(some_more, f"another of {len(tasks) - before} of {len(tasks)} tasks ends", patience)
    return found


def timed(predicate: Callable[[], Any], what: str, patience: float = 120.0) -> float:
    """Seconds until it holds."""
    begun = time.monotonic()
    wait_for(predicate, what, patience)
    return time.monotonic() - begun


@contextlib.contextmanager
def _directory() -> Iterator[Home]:
    """Short, because sockets live in it; what used it has been killed before it goes."""
    with tempfile.TemporaryDirectory(prefix="jv-", ignore_cleanup_errors=True) as directory:
        made = Home(Path(directory) / "s")
        yield made
        wait_for(lambda: not made.processes(), f"processes are left: {made.processes()}", 20)


@contextlib.contextmanager
def bed(servers: int = 3, nodes: int = 3, cpus: int = 8) -> Iterator[Bed]:
    """Up, with all nodes connected; afterwards nothing is left."""
    needs_hosts()
    names = [f"s{n}" for n in range(servers)] + [f"n{n}" for n in range(nodes)]
    with contextlib.ExitStack() as stack:
        db, *others = stack.enter_context(hosts("db", *names))
        homes = [stack.enter_context(_directory()) for _ in others]
        machines = [ServerMachine(host, at) for host, at in zip(others[:servers], homes, strict=False)]
        workers = [Machine(host, at) for host, at in zip(others[servers:], homes[servers:], strict=True)]
        made = Bed(db, machines, workers, cpus)
        stack.callback(made.remove)
        for worker in workers:
            stack.callback(worker.forget_groups)
        for machine in [*machines, *workers]:
            stack.callback(machine.kill)
            stack.callback(machine.host.heal)
        made.start()
        yield made
