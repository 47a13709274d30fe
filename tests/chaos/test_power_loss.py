"""The power of everything goes at once: servers, nodes, Redis, the database; all come back in some order, the database last.

Nothing acknowledged is lost, what ran is found out to be over and runs again, and the guard against mass loss does not stay on.
"""

import os
import random
import threading
import time
from pathlib import Path

import pytest
from tests.chaos.bed import Bed, Clients, Machine, bed, until_ended
from tests.chaos.ledger import Effects, violations
from tests.e2e.cluster.harness import wait_for

CYCLES = int(os.environ.get("JARVIS_CYCLES") or 2)
RUNNING = 20
FIRST_S = 60.0
pytestmark = [pytest.mark.soak, pytest.mark.root, pytest.mark.timeout(600 + 600 * CYCLES)]


def start_node(node: Machine) -> threading.Thread:
    """As a unit of systemd does: it goes on trying by itself, whatever the command says."""
    thread = threading.Thread(target=node.jarvis, args=("join",), kwargs={"code": None})
    thread.start()
    return thread


def lose_all_power(cluster: Bed) -> float:
    """And give it back; the instant at which the database was there again."""
    cluster.postgres.kill()
    cluster.redis.stop()
    machines: list[Machine] = [*cluster.servers.values(), *cluster.nodes.values()]
    for machine in machines:
        machine.kill()
        machine.reboot_id()
    random.shuffle(machines)
    joining = []
    for machine in machines:
        if machine.name in cluster.servers:
            cluster.servers[machine.name].start()
        else:
            joining.append(start_node(machine))
        time.sleep(random.uniform(0.0, 1.0))
    with cluster.db.inside():
        cluster.redis.start()
        cluster.postgres.start()
    there = time.time()
    for server in cluster.servers.values():
        wait_for(server.ready, f"{server.name} is up", 120)
    for thread in joining:
        thread.join(60)
    return there


def test_the_power_of_everything_goes_at_once(tmp_path: Path) -> None:
    file, longs, seconds = tmp_path / "short", tmp_path / "long", []
    tasks: list[int] = []
    acknowledged: list[int] = []
    wrong: list[str] = []
    with bed(servers=3, nodes=5) as cluster:
        for _ in range(CYCLES):
            tasks += [cluster.submit(longs, 45.0) for _ in range(RUNNING)]
            running = tasks[-RUNNING:]
            wait_for(lambda running=running: all(Effects.read(longs).of(t) for t in running), "they run", 120)  # type: ignore[misc]
            clients = Clients(cluster, file)
            time.sleep(random.uniform(1.0, 4.0))
            there = lose_all_power(cluster)
            wait_for(lambda there=there: first_after(file, there) + first_after(longs, there), "something runs", 300)  # type: ignore[misc]
            seconds.append(min(first_after(file, there) + first_after(longs, there)) - there)
            wait_for(lambda: set(cluster.states().values()) == {"ready"}, "all nodes are back", 120)
            clients.stop()
            acknowledged += clients.acknowledged
            wrong += violations(clients.history)
            told = until_ended(cluster, clients.acknowledged + running)
            failed = [cluster.show(task) for task, state in told.items() if state != "succeeded"]
            assert failed == []
            for task in running:
                causes = [attempt["cause"] for attempt in cluster.ask("GET", f"/tasks/{task}/attempts")[1]["items"]]
                assert set(causes[:-1]) == {"node_lost"}, f"task {task}: {causes}"
    effects, long_effects = Effects.read(file), Effects.read(longs)
    lost = effects.lost(acknowledged) + long_effects.lost(tasks)
    doubled = effects.repeated + long_effects.repeated
    seconds.sort()
    print(  # noqa: T201 - the figure is the point
        f"\nR6 power of everything: cycles={len(seconds)} acknowledged={len(acknowledged)} running={len(tasks)} "
        f"lost={len(lost)} doubled={len(doubled)} told_wrongly={len(wrong)} first placement p50={seconds[len(seconds) // 2]:.1f}s "
        f"longest={seconds[-1]:.1f}s (promised {FIRST_S:g}s)"
    )
    assert (lost, doubled, wrong) == ([], [], [])
    assert seconds[-1] <= FIRST_S


def first_after(file: Path, instant: float) -> list[float]:
    return sorted(run.begin for run in Effects.read(file).runs.values() if run.begin > instant)[:1]
