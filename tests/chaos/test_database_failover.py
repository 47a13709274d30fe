"""The database fails over under load: its leader is killed, or hands over; Patroni on etcd decides who follows.

With a synchronous standby nothing acknowledged is lost. Without one, what the standby had not received is; but no id is given twice
and no epoch comes back.
"""

import contextlib
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.chaos.load import Load, ends
from tests.e2e.cluster.harness import Home, home, wait_for
from tests.servers.patroni import Patroni

from jarvis.sdk.errors import ClientError

SOAK = bool(os.environ.get("JARVIS_SOAK"))
CYCLES = int(os.environ.get("JARVIS_CYCLES") or (20 if SOAK else 1))
pytestmark = [pytest.mark.soak, pytest.mark.timeout(300 + 300 * CYCLES)]


@contextlib.contextmanager
def two_servers(database: Patroni) -> Iterator[list[Home]]:
    with contextlib.ExitStack() as stack:
        homes = [stack.enter_context(home()) for _ in range(2)]
        for number, made in enumerate(homes):
            made.env |= {"JARVIS_STORE__KIND": "postgres", "JARVIS_STORE__URL": database.url}
            made.jarvis("up", "--node-name", f"n{number}", "--cpus", "8")
        yield homes


def fail_over(database: Patroni) -> str:
    """The member that led is killed, or asked to hand over; its name."""
    database.wait_for(3)
    before = database.leader()
    if random.random() < 0.5:
        database.switch_over()
    else:
        before.kill()
        wait_for(lambda: database.leader().name != before.name, "another one leads", 120)
        before.start()
    return before.name


@pytest.mark.parametrize("sync", [True, False], ids=["synchronous", "asynchronous"])
def test_a_failover_of_the_database(sync: bool, tmp_path: Path) -> None:
    file, gaps = tmp_path / "ran", []
    database = Patroni(sync)
    try:
        database.start()
        with two_servers(database) as homes:
            load = Load(homes, file, clients=4)
            try:
                for _ in range(CYCLES):
                    time.sleep(random.uniform(1.0, 3.0))
                    begun = time.monotonic()
                    before = fail_over(database)
                    count = len(load.acknowledged)
                    wait_for(lambda count=count: len(load.acknowledged) > count, "tasks are taken again", 120)  # type: ignore[misc]
                    gaps.append(time.monotonic() - begun)
                    assert database.leader().name != before, "the fault acted"
            finally:
                load.stop()
            with homes[0].client() as client:
                assert set(ends(client, present(homes[0], load.acknowledged)).values()) == {"succeeded"}
                took = client.connection.get("/cluster")["takeovers"]
    finally:
        database.remove()
    ran = Counter(map(int, file.read_text().split()))
    lost = [ident for ident in load.acknowledged if ident not in ran]
    doubled = [ident for ident, count in ran.items() if count > 1]
    gaps.sort()
    print(  # noqa: T201 - the figure is the point
        f"\nF18 {'synchronous' if sync else 'asynchronous'}: cycles={len(gaps)} acknowledged={len(load.acknowledged)} "
        f"lost={len(lost)} doubled={len(doubled)} p50={gaps[len(gaps) // 2]:.1f}s longest={gaps[-1]:.1f}s (promised 60s)"
    )
    epochs = [takeover["epoch"] for takeover in took]
    assert len(set(epochs)) == len(epochs), "no epoch comes back"
    assert any(takeover["cause"] == "the database failed over" for takeover in took), "a new incarnation began"
    assert len(set(load.acknowledged)) == len(load.acknowledged), "no id is given twice"
    if sync:
        assert (lost, doubled) == ([], [])


def present(made: Home, tasks: list[int]) -> list[int]:
    """Those that the database still knows."""
    found = []
    with made.client() as client:
        for ident in tasks:
            try:
                client.show(ident)
            except ClientError as error:
                assert error.status == 404, error  # noqa: PT017 - any other answer is no answer to this question
                continue
            found.append(ident)
    return found
