"""A whole recorded log through real servers and their database, with leaders killed and a node lost under way.

Every task ends, none twice: judged by what clients were told, what the nodes wrote down, and every row of the database. What was
decided meanwhile is decided again from the record of each server.
"""

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.chaos.recorded_log import Pool, Users, recorded
from tests.e2e.cluster.harness import wait_for
from tests.e2e.servers.harness import Servers, servers

from jarvis.scheduler.replay.replaying import check

RICC = "ricc/RICC-2010-2.swf.gz"
MACHINE = 8192
"""Processors of RICC: each node has as many, so that what asked for the whole machine finds one."""
TASKS = int(os.environ.get("JARVIS_LOG_TASKS") or 1_000_000)
"""Of the log, at most."""
WITHIN_S = float(os.environ.get("JARVIS_LOG_SECONDS") or 240)
"""How long its 153 days take here, if the servers keep up."""
NODES = 8
KILLS = 3
DAY, DAY_S = 19, 86_400
"""Of the log, and what is replayed of it: 5,495 tasks."""
LONGEST_S = 2.0
pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]
SETTINGS = {"JARVIS_RECORD__MAX_BYTES": f"{4 << 30}", "JARVIS_SERVER__BODY_LIMIT": f"{32 << 20}"}


@contextmanager
def control_plane(**more: str) -> Iterator[Servers]:
    """Two servers; the nodes that they come with take no work."""
    with servers("na", "nb", with_redis=True, own_ports=True, cpus=1, more=SETTINGS | more) as made:
        with made.homes[made.leader()].client() as client:
            for node in client.connection.get("/nodes")["items"]:
                client.connection.post(f"/nodes/{node['id']}/cordon")
        yield made


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
    made.homes[leader].jarvis("up", *made.homes[leader].up_with)
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


def test_a_whole_log_with_leaders_killed(tmp_path: Path) -> None:
    items = recorded(RICC)[:TASKS]
    ledger, took = tmp_path / "ledger", []
    with control_plane() as made:
        users = Users(made, items, WITHIN_S)
        nodes = Pool(list(made.homes.values()), NODES, MACHINE, ledger)
        try:
            begun = time.monotonic()
            submitting = threading.Thread(target=users.submit_all)
            submitting.start()
            for kill in range(1, KILLS + 1):
                reached = len(items) * kill // (KILLS + 1)
                wait_for(lambda at=reached: nodes.figures["ended"] >= at, f"{reached} have ended", 1800)  # type: ignore[misc]
                took.append(kill_leader(made))
            submitting.join()
            wait_for(lambda: nodes.figures["ended"] >= len(items), "all have ended", 1800)
            wait_for(lambda: not_ended(made) == 0, "all ends are recorded", 300)
            seconds = time.monotonic() - begun
        finally:
            nodes.end()
        assert len(users.acknowledged) == len(items)
        told = judged(made, set(users.acknowledged), Seen.read(ledger), node_losses=0)
        turns, commits = replayed(made)
    print(  # noqa: T201 - the figures are the point
        f"\ntasks={len(items)} terminal={told['terminal']} lost={told['lost']} doubled={told['doubled']} kills={len(took)} "
        f"seconds={seconds:.0f} attempts={told['attempts']} users={len({i.user for i in items})} "
        f"repeated requests={users.repeated} takeovers {', '.join(f'{s:.1f}' for s in took)} s; "
        f"decided again: cycles={turns} decisions={commits} differing=0"
    )
    assert told["terminal"] == len(items)
    assert told["lost"] == told["doubled"] == 0


def test_a_day_with_a_lost_node_is_decided_again(tmp_path: Path) -> None:
    items = [item for item in recorded(RICC) if item.submitted // DAY_S == DAY]
    count, ledgers = len(items), [tmp_path / "stays", tmp_path / "goes"]
    with control_plane(JARVIS_RECORD__WHAT="rows") as made:
        homes = list(made.homes.values())
        users = Users(made, items, 60, LONGEST_S)
        stays, goes = Pool(homes, NODES - 1, MACHINE, ledgers[0]), Pool(homes, 1, MACHINE, ledgers[1], "gone")
        try:
            submitting = threading.Thread(target=users.submit_all)
            submitting.start()
            wait_for(lambda: goes.figures["begun"] > count // 50, "the node has work", 300)
            goes.kill()
            wait_for(lambda: stays.figures["ended"] > count // 2, "half of them have ended", 300)
            kill_leader(made)
            submitting.join()
            wait_for(lambda: not_ended(made) == 0, "all have ended", 600)
        finally:
            stays.end()
        told = judged(made, set(users.acknowledged), Seen.read(*ledgers), node_losses=1)
        kinds = Counter(cause for _, cause in rows(made, "SELECT task, cause FROM attempt WHERE cause = 'node_lost'"))
        turns, commits = replayed(made)
    print(  # noqa: T201 - the figures are the point
        f"\ncycles={turns} decisions={commits} differing=0 tasks={count} terminal={told['terminal']} lost={told['lost']} "
        f"begun anew={told['again']} after node_lost={kinds['node_lost']}"
    )
    assert told["terminal"] == count
    assert told["lost"] == told["doubled"] == 0
    assert kinds["node_lost"] > 0
