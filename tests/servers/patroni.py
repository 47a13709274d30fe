"""A replicated PostgreSQL of a test's own: Patroni on etcd, three members on ports of their own, ended with their test."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.servers.postgres import as_unprivileged, binaries, free_port

PATIENCE_S = 120.0
NEEDED = ("patroni", "etcd")
TTL_S = 20


def needs_patroni() -> None:
    """Skips, or fails where nothing may be skipped, when it is not here."""
    binaries()
    missing = [program for program in NEEDED if shutil.which(program) is None]
    reason = f"not installed: {missing} (Debian: apt-get install patroni etcd-server)" if missing else ""
    if reason and os.environ.get("CI"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


class Member:
    """One PostgreSQL with its Patroni."""

    def __init__(self, folder: Path, name: str, etcd: int, sync: bool) -> None:
        self.name, self.port, self.api = name, free_port(), free_port()
        self._folder = folder / name
        self._folder.mkdir()
        self._process: subprocess.Popen[bytes] | None = None
        (self._folder / "patroni.yaml").write_text(yaml.safe_dump(self._settings(etcd, sync)))

    def _settings(self, etcd: int, sync: bool) -> dict[str, Any]:
        return {
            "scope": "jarvis", "name": self.name,
            "restapi": {"listen": f"127.0.0.1:{self.api}", "connect_address": f"127.0.0.1:{self.api}"},
            "etcd3": {"host": f"127.0.0.1:{etcd}"},
            "bootstrap": {
                "dcs": {
                    "ttl": TTL_S, "loop_wait": 5, "retry_timeout": 5, "synchronous_mode": sync,
                    "postgresql": {
                        "use_pg_rewind": True,
                        "parameters": {"max_connections": 100, "wal_keep_size": "64MB", "shared_buffers": "32MB"},
                    },
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, "data-checksums"],
                "pg_hba": ["host replication all 127.0.0.1/32 trust", "host all all 127.0.0.1/32 trust"],
            },
            "postgresql": {
                "listen": f"127.0.0.1:{self.port}", "connect_address": f"127.0.0.1:{self.port}",
                "data_dir": str(self._folder / "data"), "bin_dir": str(binaries()), "pgpass": str(self._folder / "pgpass"),
                "authentication": {
                    "superuser": {"username": "jarvis", "password": "x"},
                    "replication": {"username": "replicator", "password": "x"},
                },
                "parameters": {"unix_socket_directories": ""},
            },
        }  # fmt: skip

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["patroni", str(self._folder / "patroni.yaml")], stdout=log, stderr=log, **as_unprivileged()
            )

    def kill(self) -> None:
        """Patroni and every process of its PostgreSQL, with -9."""
        for pid in self._pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait(30)
            self._process = None

    def _pids(self) -> list[int]:
        found = [] if self._process is None else [self._process.pid]
        try:
            first = (self._folder / "data" / "postmaster.pid").read_text().split("\n")[0]
            found += [*map(int, Path(f"/proc/{first}/task/{first}/children").read_text().split()), int(first)]
        except (OSError, ValueError):
            return found
        return found

    def log(self) -> str:
        return (self._folder / "log").read_text()[-3000:]


class Patroni:
    """``sync``: whether a commit waits for a standby, so that a failover loses nothing."""

    def __init__(self, sync: bool) -> None:
        needs_patroni()
        self.directory = Path(tempfile.mkdtemp(prefix="jpat-"))
        user = as_unprivileged()
        if user:
            os.chown(self.directory, user["user"], user["group"])
        self._sync = sync
        self._etcd_port, self._peer_port = free_port(), free_port()
        self._etcd: subprocess.Popen[bytes] | None = None
        self.members = [Member(self.directory, f"p{n}", self._etcd_port, sync) for n in range(3)]
        for member in self.directory.iterdir():
            if user:
                os.chown(member, user["user"], user["group"])
                member.chmod(0o700)

    @property
    def url(self) -> str:
        """All members: whoever connects finds the one that takes writes."""
        hosts = ",".join(f"127.0.0.1:{member.port}" for member in self.members)
        return f"postgresql://jarvis@{hosts}/postgres"

    def start(self) -> None:
        """And wait until one leads and the others follow it."""
        client, peer = (f"http://127.0.0.1:{port}" for port in (self._etcd_port, self._peer_port))
        command = ["etcd", "--data-dir", str(self.directory / "etcd"), "--listen-client-urls", client]
        command += ["--advertise-client-urls", client, "--listen-peer-urls", peer]
        command += ["--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}", "--unsafe-no-fsync"]
        with (self.directory / "etcd.log").open("ab") as log:
            self._etcd = subprocess.Popen(command, stdout=log, stderr=log)
        for member in self.members:
            member.start()
        self.wait_for(3)

    def wait_for(self, healthy: int) -> None:
        """So many members are there, one of which leads, and another one may follow it without a loss."""
        deadline = time.monotonic() + PATIENCE_S
        wanted = {"leader", "sync_standby"} if self._sync else {"leader"}
        while len(states := self.states()) < healthy or wanted - set(states.values()):
            assert time.monotonic() < deadline, f"{states}: {[member.log() for member in self.members]}"
            time.sleep(0.2)

    def states(self) -> dict[str, str]:
        """Role of each member that runs, by name."""
        for member in self.members:
            with contextlib.suppress(OSError, ValueError, KeyError):
                with urllib.request.urlopen(f"http://127.0.0.1:{member.api}/cluster", timeout=2) as answer:
                    told = json.loads(answer.read())["members"]
                return {m["name"]: m["role"] for m in told if m["state"] in ("running", "streaming")}
        return {}

    def leader(self) -> Member:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            name = next((name for name, role in self.states().items() if role == "leader"), None)
            if name is not None:
                return next(member for member in self.members if member.name == name)
            assert time.monotonic() < deadline, "no member leads"
            time.sleep(0.2)

    def switch_over(self) -> None:
        """The leader hands over, as for maintenance."""
        body = json.dumps({"leader": self.leader().name}).encode()
        for _ in range(30):
            request = urllib.request.Request(
                f"http://127.0.0.1:{self.leader().api}/switchover", body, {"Content-Type": "application/json"}
            )
            try:
                with urllib.request.urlopen(request, timeout=60):
                    return
            except urllib.error.HTTPError as error:  # no standby is ready for it yet
                error.close()
                time.sleep(1.0)
        raise AssertionError("no switchover")

    def remove(self) -> None:
        """Nothing is left of it."""
        for member in self.members:
            member.kill()
        if self._etcd is not None:
            self._etcd.kill()
            self._etcd.wait(30)
        shutil.rmtree(self.directory, ignore_errors=True)
