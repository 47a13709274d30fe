"""kill -9 of server and agent at random moments under load: nothing acknowledged is lost, nothing running is restarted, and no
line of its output is missing.

The judges are the clients' own ledger of acknowledgements and a file that the tasks themselves write.
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
from tests.e2e.cluster.harness import Home, home, wait_for

SOAK = bool(os.environ.get("JARVIS_SOAK"))
CYCLES = int(os.environ.get("JARVIS_CYCLES") or (200 if SOAK else 20))
LONG_TASKS = 20
pytestmark = pytest.mark.timeout(300 + 45 * CYCLES)


def kill_server(made: Home) -> None:
    made.kill_server()
    made.jarvis("up")


def kill_agent(made: Home) -> None:
    pid = wait_for(made.agent, "an agent lives")
    before = sessions(made)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: (again := made.agent()) is not None and again != pid, "the supervisor starts another")
    wait_for(lambda: sessions(made) > before, "it is connected")


def sessions(made: Home) -> int:
    """How many sessions the agents of this node have had; its own log says so."""
    return (made.directory / "node" / "agent.log").read_text().count("connected as node")


@pytest.mark.parametrize("kill", [kill_server, kill_agent])
def test_nothing_is_lost_or_doubled(kill: Callable[[Home], None], tmp_path: Path) -> None:
    short, long, said, stop = (tmp_path / name for name in ("short", "long", "said", "stop"))
    seed = random.randrange(1 << 32)
    rng = random.Random(seed)
    with home() as made:
        made.jarvis("up", "--cpus", "64")
        count = (
            f"i=0; while [ ! -e {stop} ]; do i=$((i+1)); echo $i; sleep 0.5; done; echo $JARVIS_TASK_ID $i >> {said}"
        )
        script = f"echo $JARVIS_TASK_ID >> {long}; {count}"
        with made.client() as client:
            tasks = [client.submit(command=["sh", "-c", script]).id for _ in range(LONG_TASKS)]
        wait_for(lambda: long.exists() and len(long.read_text().split()) == LONG_TASKS, "the long tasks run")
        load = Load([made], short, behind_most=600)
        cycles, wasted, up_s, taken, back_s = 0, 0, 0.0, 0, []
        try:
            while cycles < CYCLES:
                wait_for(lambda: load.behind() < load.behind_most / 2, "clients go on that had waited for them", 120)
                begin, before = time.monotonic(), len(load.acknowledged)
                time.sleep(rng.uniform(0.05, 1.0))
                in_flight = load.in_flight > 0
                up_s, taken = up_s + time.monotonic() - begin, taken + len(load.acknowledged) - before
                begin = time.monotonic()
                kill(made)
                back_s.append(time.monotonic() - begin)
                cycles, wasted = cycles + in_flight, wasted + (not in_flight)
                assert wasted < 10 * CYCLES, "no request was ever in flight"
        finally:
            load.stop()
        stop.touch()
        with made.client() as client:
            ended = ends(client, tasks + load.acknowledged)
            others = [task for task, state in ended.items() if state != "succeeded"]
            assert [client.connection.get(f"/tasks/{task}/attempts") for task in others[:5]] == [], "they succeed"
            told = {int(task): int(last) for task, last in map(str.split, said.read_text().splitlines())}
            spoilt = [
                task for task in tasks if client.logs(task).split() != [b"%d" % i for i in range(1, told[task] + 1)]
            ]
    ran = Counter(map(int, short.read_text().split()))
    starts = Counter(map(int, long.read_text().split()))
    lost = [i for i in load.acknowledged if i not in ran]
    doubled = [i for i, n in ran.items() if n > 1]
    print(  # noqa: T201 - the figure is the point
        f"seed={seed} cycles={cycles} acknowledged={len(load.acknowledged)} ({taken / up_s:.0f}/s before kills) "
        f"lost={len(lost)} doubled={len(doubled)} logs={len(tasks)} spoilt={len(spoilt)} back after p50="
        f"{sorted(back_s)[len(back_s) // 2]:.2f}s p99={sorted(back_s)[len(back_s) * 99 // 100]:.2f}s"
    )
    assert starts == Counter(tasks), "each long task started exactly once"
    assert spoilt == [], "what they wrote is in their logs, once and in order"
    assert lost == []
    assert doubled == []
    assert len(set(load.acknowledged)) == len(load.acknowledged)
