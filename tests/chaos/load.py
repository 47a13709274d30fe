"""Load for fault tests: clients that keep a ledger of what was acknowledged, and how it all ended."""

import random
import threading
import time
import urllib.request
import uuid
from http.client import HTTPException
from itertools import count
from json import dumps, loads
from pathlib import Path

import msgspec
from tests.e2e.cluster.harness import Home

from jarvis.sdk.client import Client
from jarvis.utils import server_file

BATCH = 16
"""Every so many submissions of a client one is of as many tasks, together."""
PAUSE_S = 0.04
"""Of each client between two submissions: about 150 a second for eight of them, however long it takes."""
AT_ONCE = 5000


class Load:
    """Clients that submit one by one and now and then many at once, repeat with the same key until they get an answer, and keep
    a ledger."""

    def __init__(self, homes: list[Home], file: Path, clients: int = 8, behind_most: int = 3000) -> None:
        """``homes``: of the servers, any of which is asked; ``file``: where each task writes its id; ``behind_most``: tasks that
        may wait to run, for on a machine that is slower than the clients these wait, too."""
        self.homes, self.file, self.behind_most = homes, file, behind_most
        self.acknowledged: list[int] = []
        self.to_write = 0
        """Bytes of the lines that these write."""
        self.slowest = 0.0
        """Seconds of the slowest request that was answered well."""
        self.in_flight = 0
        self.stopping = False
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.run) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def run(self) -> None:
        for turn in count(1):
            if self.stopping:
                return
            ident = self.until_answered(uuid.uuid4().hex, 1 if turn % BATCH else BATCH)
            with self.lock:
                self.acknowledged += ident
                self.to_write += sum(len(f"{one}\n") for one in ident)
            time.sleep(PAUSE_S)
            while self.behind() > self.behind_most and not self.stopping:
                time.sleep(PAUSE_S)

    def behind(self) -> float:
        """About how many have not written their line yet."""
        written = self.file.stat().st_size if self.file.exists() else 0
        return (self.to_write - written) / (self.to_write / max(len(self.acknowledged), 1) or 1)

    def until_answered(self, key: str, tasks: int) -> list[int]:
        while not self.stopping:
            if ident := self.post(key, tasks):
                return ident
        return []

    def post(self, key: str, tasks: int) -> list[int]:
        """Their ids; none when the server does not answer."""
        content = server_file.read(random.choice(self.homes).directory)
        if content is None:
            time.sleep(0.02)
            return []
        script = f"echo $JARVIS_TASK_ID >> {self.file}"
        told = [{"command": ["sh", "-c", script, str(n)], "resources": {"cpu": 0.1}} for n in range(tasks)]
        path, body = ("/tasks", told[0]) if tasks == 1 else ("/tasks/batch", {"tasks": told})
        request = urllib.request.Request(
            f"{content.url}{path}", dumps(body).encode(),
            {"Authorization": f"Bearer {content.token}", "Idempotency-Key": key, "Content-Type": "application/json"},
        )  # fmt: skip
        with self.lock:
            self.in_flight += 1
        begun = time.monotonic()
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                given = loads(answer.read())
            self.slowest = max(self.slowest, time.monotonic() - begun)
            return [int(one["id"]) for one in given.get("results", [given])]
        except (OSError, ValueError, HTTPException):
            time.sleep(0.02)
            return []
        finally:
            with self.lock:
                self.in_flight -= 1

    def stop(self) -> None:
        self.stopping = True
        for thread in self.threads:
            thread.join(60)


def ends(client: Client, tasks: list[int], patience: float = 300.0) -> dict[int, str]:
    """How each of the tasks ended, once all have. ``patience``: how long none may end."""
    found: dict[int, str] = {}
    deadline, before = time.monotonic() + patience, 0
    while len(found) < len(tasks):
        if len(found) > before:
            deadline, before = time.monotonic() + patience, len(found)
        assert time.monotonic() < deadline, f"{len(tasks) - len(found)} of {len(tasks)} tasks do not end"
        wanted = [ident for ident in tasks if ident not in found][:AT_ONCE]
        body = msgspec.msgpack.encode({"ids": wanted, "wait": 5.0})
        answer = client.connection.request("POST", "/tasks/results", content=body)
        found |= {row[0]: row[1] for row in msgspec.msgpack.decode(answer.content)["results"]}
    return found
