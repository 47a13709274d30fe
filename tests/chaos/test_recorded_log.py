"""A whole recorded log through real servers and their database, with leaders killed under way.

Every task ends, none twice: judged by what clients were told, what the nodes wrote down, and every row of the database. What was
decided meanwhile is decided again from the record of each server.
"""

import os
import threading
import time
from pathlib import Path

import pytest
from tests.chaos.pool import Pool
from tests.chaos.recorded_log import (
    MACHINE,
    RICC,
    SETTINGS,
    Seen,
    Users,
    judged,
    kill_leader,
    not_ended,
    recorded,
    replayed,
)
from tests.e2e.cluster.harness import wait_for
from tests.e2e.servers.harness import Servers, servers

TASKS = int(os.environ.get("JARVIS_LOG_TASKS") or 1_000_000)
"""Of the log, at most."""
WITHIN_S = float(os.environ.get("JARVIS_LOG_SECONDS") or 240)
"""How long its 153 days take here, if the servers keep up."""
NODES = 8
KILLS = 3
pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]


def take_no_work(made: Servers) -> None:
    """The nodes that servers come with."""
    with made.homes[made.leader()].client() as client:
        for node in client.connection.get("/nodes")["items"]:
            client.connection.post(f"/nodes/{node['id']}/cordon")


def test_a_whole_log_with_leaders_killed(tmp_path: Path) -> None:
    items = recorded(RICC)[:TASKS]
    ledger, took = tmp_path / "ledger", []
    with servers("na", "nb", with_redis=True, own_ports=True, cpus=1, more=SETTINGS) as made:
        take_no_work(made)
        users = Users(made, items, WITHIN_S)
        nodes = Pool([home.directory for home in made.homes.values()], NODES, cpus=MACHINE, ledger=ledger)
        try:
            nodes.until(NODES, 60)
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
        f"\ntasks={len(items)} kills={len(took)} lost={told['lost']} doubled={told['doubled']} terminal={told['terminal']} "
        f"seconds={seconds:.0f} attempts={told['attempts']} users={len({i.user for i in items})} "
        f"repeated requests={users.repeated} takeovers {', '.join(f'{s:.1f}' for s in took)} s; "
        f"decided again: cycles={turns} decisions={commits} differing=0"
    )
    assert told["terminal"] == len(items)
    assert told["lost"] == told["doubled"] == 0
