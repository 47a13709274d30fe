"""A recorded day on a real cluster, decided again byte for byte: a node dies under way, and a leader.

Two servers on PostgreSQL and Redis, four real agents, a process for each task. Every field of every row that was written comes out
again when the record of each server is replayed.
"""

import os
import signal
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
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
    rows,
)
from tests.e2e.cluster.harness import Home, home, wait_for
from tests.e2e.servers.harness import Servers, servers

DAY, DAY_S = int(os.environ.get("JARVIS_LOG_DAY") or 122), 86_400
"""Of the log: its busiest, 21,723 tasks."""
WITHIN_S = float(os.environ.get("JARVIS_DAY_SECONDS") or 600)
LONGEST_S = 2.0
pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]


def join(made: Servers, machine: Home, name: str) -> None:
    line = made.homes[made.leader()].jarvis("token", "create", "--join").stdout.split()
    machine.jarvis(*line[1:], "--name", name, "--cpus", str(MACHINE))


def power_off(machine: Home) -> None:
    """Everything on it at once, and nobody lives to see others die: the node is silent from then on."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in machine.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def lines_of(ledger: Path, what: str) -> int:
    return ledger.read_text().count(what) if ledger.exists() else 0


def test_a_day_with_a_lost_node_is_decided_again(tmp_path: Path) -> None:
    items = [item for item in recorded(RICC) if item.submitted // DAY_S == DAY]
    count, ledger = len(items), tmp_path / "ledger"
    settings = SETTINGS | {"JARVIS_RECORD__WHAT": "rows"}
    with (
        servers("na", "nb", with_redis=True, own_ports=True, listen=True, cpus=MACHINE, more=settings) as made,
        home() as stays,
        home() as goes,
    ):
        join(made, stays, "stays")
        join(made, goes, "goes")
        users = Users(made, items, WITHIN_S, LONGEST_S, ledger)
        submitting = threading.Thread(target=users.submit_all)
        submitting.start()
        wait_for(lambda: lines_of(ledger, "begin") > count // 4, "a quarter has begun", 1800)
        power_off(goes)
        wait_for(lambda: lines_of(ledger, "end") > count // 2, "half of them have ended", 1800)
        took = kill_leader(made)
        submitting.join()
        wait_for(lambda: not_ended(made) == 0, "all have ended", 600)
        told = judged(made, set(users.acknowledged), Seen.read(ledger), node_losses=1)
        lost = Counter(state for (state,) in rows(made, "SELECT state FROM attempt WHERE cause = 'node_lost'"))
        nodes = rows(made, "SELECT count(DISTINCT node) FROM attempt")[0][0]
        stays.jarvis("down")
        cycles, decisions = replayed(made)
    print(  # noqa: T201 - the figures are the point
        f"\ncycles={cycles} decisions={decisions} differing=0 tasks={count} terminal={told['terminal']} lost={told['lost']} "
        f"doubled={told['doubled']} nodes={nodes} attempts ended by the loss of a node={lost.total()} "
        f"begun anew={told['again']} takeover {took:.1f} s"
    )
    assert told["terminal"] == count
    assert told["lost"] == told["doubled"] == 0
    assert lost.total() > 0
    assert nodes == "4"
