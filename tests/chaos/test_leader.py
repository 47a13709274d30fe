"""Several servers on one PostgreSQL and Redis, whose leader is killed, frozen or replaced under load.

Nothing acknowledged is lost, nothing runs twice; the judges are the clients' ledger and a file that the tasks write.
"""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.chaos.load import Load, ends
from tests.e2e.cluster.harness import wait_for
from tests.e2e.servers.harness import Servers, servers

SOAK = bool(os.environ.get("JARVIS_SOAK"))
CYCLES = int(os.environ.get("JARVIS_CYCLES") or (200 if SOAK else 4))
LONG_TASKS = 12
pytestmark = pytest.mark.timeout(480 + 60 * CYCLES)


def kill(made: Servers, leader: str) -> float:
    """kill -9 of the leader; seconds until another one leads."""
    made.homes[leader].kill_server()
    seconds = until_another_leads(made, leader)
    made.homes[leader].jarvis("up", "--node-name", leader)
    return seconds


def freeze(made: Servers, leader: str) -> float:
    """A leader that stands still is replaced, and does no harm when it goes on."""
    made.homes[leader].signal_server(signal.SIGSTOP)
    try:
        return until_another_leads(made, leader)
    finally:
        made.homes[leader].signal_server(signal.SIGCONT)


def restart_all(made: Servers, leader: str) -> float:
    """Each server in turn, as for a new version; the seconds are those without any leader, at most."""
    longest = 0.0
    for name in made.homes:
        leads = made.leader() == name
        made.homes[name].jarvis("down", "--keep")
        if leads:
            longest = max(longest, until_another_leads(made, name))
        made.homes[name].jarvis("up", "--node-name", name)
    return longest


def lose_redis(made: Servers, leader: str) -> float:
    """Redis is emptied, killed and comes back empty: it held nothing that is not elsewhere."""
    assert made.redis is not None
    made.redis.ask("FLUSHALL")
    time.sleep(0.5)
    made.redis.stop()
    time.sleep(1.0)
    made.redis.start()
    assert made.leads(), f"{leader} leads on"
    return 0.0


def lose_database(made: Servers, leader: str) -> float:
    """kill -9 of every process of PostgreSQL: nobody is told that a task is accepted until it is back."""
    made.postgres.kill()
    time.sleep(1.0)
    made.postgres.start()
    begun = time.monotonic()
    made.leader()
    return time.monotonic() - begun


def until_another_leads(made: Servers, leader: str) -> float:
    begun = time.monotonic()
    wait_for(lambda: made.leads(but=leader), "another one leads", 60)
    return time.monotonic() - begun


@pytest.mark.parametrize(
    ("fault", "share"), [(kill, 1.0), (freeze, 0.25), (restart_all, 0.25), (lose_redis, 0.75), (lose_database, 0.75)]
)
def test_nothing_is_lost_or_doubled_whatever_befalls_the_leader(
    fault: Callable[[Servers, str], float], share: float, tmp_path: Path
) -> None:
    short, long, stop = tmp_path / "short", tmp_path / "long", tmp_path / "stop"
    seed = random.randrange(1 << 32)
    rng, gaps = random.Random(seed), []
    with servers("na", "nb", "nc", with_redis=True, sync=True, cpus=16) as made:
        script = f"echo $JARVIS_TASK_ID >> {long}; while [ ! -e {stop} ]; do sleep 0.5; done"
        with made.homes[made.leader()].client() as client:
            tasks = [client.submit(command=["sh", "-c", script]).id for _ in range(LONG_TASKS)]
        wait_for(lambda: long.exists() and len(long.read_text().split()) == LONG_TASKS, "the long tasks run")
        load = Load(list(made.homes.values()), short, clients=4)
        try:
            for _ in range(max(1, round(CYCLES * share))):
                time.sleep(rng.uniform(0.2, 2.0))
                gaps.append(fault(made, made.leader()))
        finally:
            load.stop()
        stop.touch()
        with made.homes[made.leader()].client() as client:
            assert set(ends(client, tasks + load.acknowledged).values()) == {"succeeded"}
    ran, starts = Counter(map(int, short.read_text().split())), Counter(map(int, long.read_text().split()))
    lost = [ident for ident in load.acknowledged if ident not in ran]
    doubled = [ident for ident, count in ran.items() if count > 1]
    print(  # noqa: T201 - the figure is the point
        f"{fault.__name__}: seed={seed} cycles={len(gaps)} acknowledged={len(load.acknowledged)} lost={len(lost)} "
        f"doubled={len(doubled)} takeover median {sorted(gaps)[len(gaps) // 2]:.1f} s, longest {max(gaps):.1f} s; "
        f"slowest request {load.slowest:.2f} s"
    )
    assert starts == Counter(tasks), "each long task started exactly once"
    assert lost == []
    assert doubled == []
    assert len(set(load.acknowledged)) == len(load.acknowledged)
