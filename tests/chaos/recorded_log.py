"""A recorded workload, submitted to real servers by its users at its times, which pass many times faster; and its judge.

The judge believes what clients were told and what the nodes (or the tasks themselves) wrote down, and holds every row of the
database against it.
"""

import http.client
import json
import os
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.cluster.harness import Home, wait_for
from tests.e2e.servers.harness import Servers

from jarvis.scheduler.replay.replaying import check
from jarvis.sim.traces.formats import read
from jarvis.sim.traces.workload import Recorded
from jarvis.utils import server_file

CLIENTS = 4
AT_ONCE = 1000
"""Tasks in a request, at most."""
SLICE_S = 0.5
"""What is submitted within so long goes out together."""
RICC = "ricc/RICC-2010-2.swf.gz"
MACHINE = 8192
"""Processors of RICC: each node has as many, so that what asked for the whole machine finds one."""
SETTINGS = {"JARVIS_RECORD__MAX_BYTES": f"{4 << 30}", "JARVIS_SERVER__BODY_LIMIT": f"{32 << 20}"}


def recorded(name: str) -> list[Recorded]:
    """A log below ``JARVIS_TRACES``; without it the test is skipped and says so."""
    path = Path(os.environ.get("JARVIS_TRACES", "")) / name
    if not path.is_file():
        pytest.skip(f"set JARVIS_TRACES to the directory that holds {name} (of the Parallel Workloads Archive)")
    return read(path).items


class Users:
    """Those of the log, each with a token of their own, asking one server after the other until one answers."""

    def __init__(
        self, made: Servers, items: list[Recorded], within_s: float, bound_s: float = 0.0, ledger: Path | None = None
    ) -> None:
        """``within_s``: how long the whole log takes here; ``bound_s``: what a task takes here at most; ``ledger``: tasks are
        real processes, which write there when they begin and end, and go out almost singly. The owner of the servers asks for
        all of them, as users of the log have no accounts here."""
        self.made, self.items, self._bound, self._ledger = made, items, bound_s, ledger
        self.acknowledged: dict[int, Recorded] = {}
        self.repeated = 0
        """Requests that were not answered the first time."""
        self._slice_s = SLICE_S if ledger is None else SLICE_S / 25
        self._faster = max((items[-1].submitted - items[0].submitted) / within_s, 1e-9)
        self._lock = threading.Lock()
        self._tokens = self._made_tokens()

    def _made_tokens(self) -> dict[str, str]:
        projects: dict[str, set[str]] = {}
        for item in self.items:
            projects.setdefault(item.user, set()).add(item.project)
        home = self.made.homes[self.made.leader()]
        if self._ledger is not None:
            return dict.fromkeys(projects, home.server.token)
        with home.client() as client:
            return {
                user: client.connection.post("/tokens", {"role": "user", "user": user, "projects": sorted(named)})[
                    "token"
                ]
                for user, named in projects.items()
            }

    def submit_all(self) -> None:
        """At the times of the log, or as fast as the servers take it."""
        begun, first = time.monotonic(), self.items[0].submitted
        with ThreadPoolExecutor(CLIENTS) as clients:
            for at, together in groupby(
                self.items, lambda i: int((i.submitted - first) / self._faster / self._slice_s)
            ):
                time.sleep(max(begun + at * self._slice_s - time.monotonic(), 0.0))
                list(clients.map(self._submit, self._requests(list(together))))

    @staticmethod
    def _requests(items: list[Recorded]) -> Iterator[list[Recorded]]:
        for _, mine in groupby(sorted(items, key=lambda item: item.user), lambda item: item.user):
            rows = list(mine)
            yield from (rows[at : at + AT_ONCE] for at in range(0, len(rows), AT_ONCE))

    def _spec(self, item: Recorded) -> dict[str, Any]:
        seconds = min(item.run / self._faster, self._bound)
        return {
            "name": item.name, "project": item.project, "cwd": "/", "time_limit": item.limit,
            "resources": {"cpu": item.resources["cpu"] // 1000}, "command": self._command(f"{seconds:.3f}"),
        }  # fmt: skip

    def _command(self, seconds: str) -> list[str]:
        if self._ledger is None:
            return ["sleep", seconds]
        line = f'echo "%s $JARVIS_TASK_ID 0 $JARVIS_ATTEMPT $JARVIS_FENCING_TOKEN" >> {self._ledger}'
        return ["sh", "-c", f"{line % 'begin'}; sleep {seconds}; {line % 'end'}"]

    def _submit(self, items: list[Recorded]) -> None:
        body = json.dumps({"tasks": [self._spec(item) for item in items]}).encode()
        key = uuid.uuid4().hex
        deadline, homes = time.monotonic() + 120, list(self.made.homes.values())
        while (answer := self._ask(homes[0], items[0].user, body, key)) is None:
            assert time.monotonic() < deadline, "no server answers"
            homes.append(homes.pop(0))
            self.repeated += 1
            time.sleep(0.1)
        with self._lock:
            for item, row in zip(items, answer, strict=True):
                assert row["id"] not in self.acknowledged, "an id was given twice"
                self.acknowledged[row["id"]] = item

    def _ask(self, home: Home, user: str, body: bytes, key: str) -> list[dict[str, Any]] | None:
        content = server_file.read(home.directory)
        if content is None or not server_file.lives(content):
            return None
        link = http.client.HTTPConnection(content.url.removeprefix("http://"), timeout=60)
        headers = {"Authorization": f"Bearer {self._tokens[user]}", "Content-Type": "application/json"}
        try:
            link.request("POST", "/tasks/batch", body, headers | {"Idempotency-Key": key})
            answer = link.getresponse()
            told = json.loads(answer.read())
        except (OSError, ValueError, http.client.HTTPException):
            return None
        finally:
            link.close()
        assert answer.status < 300 or answer.status in (409, 503), told
        return list(told["results"]) if answer.status < 300 else None


def rows(made: Servers, query: str) -> list[list[str]]:
    url = made.homes["na"].env["JARVIS_STORE__URL"]
    return [line.split("|") for line in made.postgres.psql(query, url.rpartition("/")[2]).splitlines()]


def not_ended(made: Servers) -> int:
    return int(rows(made, "SELECT count(*) FROM task_now WHERE ended_at IS NULL")[0][0])


def kill_leader(made: Servers) -> float:
    """With -9; seconds until the other one leads. It comes back as a standby."""
    leader, begun = made.leader(), time.monotonic()
    made.homes[leader].kill_server()
    wait_for(lambda: made.leads(but=leader), "the other one leads", 60)
    took = time.monotonic() - begun
    made.homes[leader].jarvis("up", *made.homes[leader].up_with, code=None)  # it may need longer than that waits
    return took


@dataclass(slots=True)
class Seen:
    """What the nodes wrote down, by task: the attempts (with their tokens) that began and that came to their end there."""

    began: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    ended: dict[int, list[tuple[int, int]]] = field(default_factory=dict)

    @classmethod
    def read(cls, *ledgers: Path) -> "Seen":
        found = cls()
        for ledger in ledgers:
            for line in ledger.read_text().splitlines():
                what, task, _, attempt, token = line.split()
                into = found.began if what == "begin" else found.ended
                into.setdefault(int(task), []).append((int(attempt), int(token)))
        return found


def judged(made: Servers, acknowledged: set[int], seen: Seen, node_losses: int) -> dict[str, int]:
    """Every row against what clients were told and nodes saw; the figures of it."""
    tasks = {int(ident): state for ident, state in rows(made, "SELECT id, state FROM task_now")}
    assert tasks.keys() == acknowledged, "the rows are those that were acknowledged"
    attempts: dict[int, list[tuple[int, int, str]]] = {}
    for row in rows(made, "SELECT task, attempt, token, state FROM attempt ORDER BY task, attempt"):
        attempts.setdefault(int(row[0]), []).append((int(row[1]), int(row[2]), row[3]))
    for ident, tried in attempts.items():
        assert [attempt for attempt, _, _ in tried] == list(range(1, len(tried) + 1)), (ident, tried)
        tokens = [token for _, token, _ in tried]
        assert tokens == sorted(set(tokens)), (ident, tried)
        assert [state for _, _, state in tried].count("succeeded") == 1, (ident, tried)
        assert tried[-1][2] == "succeeded", (ident, tried)
        attempt, token, _ = tried[-1]
        assert (attempt, token) in seen.ended[ident], f"task {ident} succeeded with an attempt that no node ended"
    again = sum(len(tried) > 1 for tried in attempts.values())
    assert node_losses or not again, f"{again} tasks were begun anew although no node was lost"
    twice = [ident for ident, began in seen.began.items() if len(began) > len(set(began))]
    ended_twice = [ident for ident, ended in seen.ended.items() if len(ended) > 1]
    return {
        "terminal": sum(state == "succeeded" for state in tasks.values()),
        "lost": len(acknowledged) - len(attempts),
        "doubled": len(twice) + (0 if node_losses else len(ended_twice)),
        "again": again,
        "attempts": sum(map(len, attempts.values())),
    }


def replayed(made: Servers) -> tuple[int, int]:
    """Turns and commits of all servers, decided again; raises when one differs. The servers are down afterwards."""
    for home in made.homes.values():
        home.jarvis("down", "--keep")
    done = [segment for home in made.homes.values() for segment in check(home.directory / "record")]
    return sum(segment.turns for segment in done), sum(segment.commits for segment in done)
