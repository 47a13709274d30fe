"""How soon the next task is placed after a leader was killed, frozen or stopped, and after all servers were, with many queued.

``JARVIS_QUEUED`` (100,000 under ``make soak``) tasks wait for a node that takes none. The instants are what a task writes.
"""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.chaos.ledger import Effects, script
from tests.e2e.cluster.harness import wait_for
from tests.e2e.servers.harness import Servers, servers

from jarvis.sdk.errors import ClientError
from jarvis.utils import server_file

SOAK = bool(os.environ.get("JARVIS_SOAK"))
QUEUED = int(os.environ.get("JARVIS_QUEUED") or (100_000 if SOAK else 3_000))
CYCLES = int(os.environ.get("JARVIS_CYCLES") or (20 if SOAK else 1))
BATCH = 5000
pytestmark = [pytest.mark.soak, pytest.mark.timeout(300 + QUEUED / 50 + 180 * CYCLES)]


@pytest.fixture(scope="module")
def made() -> Iterator[Servers]:
    """Three servers with nodes; the third node is cordoned, and all that is queued wants it."""
    with servers("na", "nb", "nc", with_redis=True, sync=True, cpus=8) as cluster:
        with cluster.homes[cluster.leader()].client() as client:
            nodes = {node["name"]: node["id"] for node in client.connection.get("/nodes")["items"]}
            client.connection.post(f"/nodes/{nodes['nc']}/cordon")
            wait_for(lambda: client.connection.get(f"/nodes/{nodes['nc']}")["cordoned"], "it takes no more")
            for at in range(0, QUEUED, BATCH):
                spec = {"command": ["true"], "constraints": ["zone=znc"], "name": f"queued-{at}"}
                client.submit_many([spec] * min(BATCH, QUEUED - at))
            wait_for(lambda: waiting(cluster) >= QUEUED, "all are queued", 300)
        yield cluster


def waiting(cluster: Servers) -> int:
    with cluster.homes[cluster.leader()].client() as client:
        return int(client.connection.get("/stats")["tasks"].get("queued", 0))


def next_placement(cluster: Servers, file: Path, strike: Callable[[], None], but: str) -> tuple[float, int]:
    """Strike, and ask another server at once for one more task: seconds until it runs, and its id."""
    others = [home for name, home in cluster.homes.items() if name != but]
    begun = time.time()
    threading.Thread(target=strike).start()
    key = f"probe-{begun}"
    ident = 0
    while not ident:
        try:
            with random.choice(others).client() as client:
                body = {"command": script(file, 0), "resources": {"cpu": 0.1}, "cwd": "/"}
                response = client.connection.request("POST", "/tasks", json_body=body, idempotency_key=key)
                ident = int(response.json()["id"])
        except (ClientError, AssertionError):
            time.sleep(0.02)
        assert time.time() - begun < 120, "nobody takes a task"
    wait_for(lambda: Effects.read(file).of(ident), "it runs", 120)
    return Effects.read(file).of(ident)[0].begin - begun, ident


def kill(cluster: Servers, leader: str) -> None:
    cluster.homes[leader].kill_server()


def stop(cluster: Servers, leader: str) -> None:
    os.kill(cluster.homes[leader].server.pid, signal.SIGTERM)


def freeze(cluster: Servers, leader: str) -> None:
    cluster.homes[leader].signal_server(signal.SIGSTOP)


def explain(cluster: Servers, since: float) -> str:
    """Who took over when and why, and what the servers said last."""
    with cluster.homes[cluster.leader()].client() as client:
        took = client.connection.get("/cluster")["takeovers"][:3]
        page = client.connection.get("/events", after="", limit=1000)
        while len(page["items"]) == 1000:
            page = client.connection.get("/events", after=page["next"], limit=1000)
    said = [f"{name}: {(home.directory / 'server.log').read_text()[-2500:]}" for name, home in cluster.homes.items()]
    return "\n".join([f"struck at {since}", str(took), *(str(event) for event in page["items"][-40:]), *said])


def again(cluster: Servers, leader: str) -> None:
    """It is as before the fault."""
    home = cluster.homes[leader]
    if server_file.read(home.directory) is not None:
        home.signal_server(signal.SIGCONT)
    wait_for(lambda: home.jarvis("up", *home.up_with, code=None).returncode == 0, "it is up again", 120)


@pytest.mark.parametrize(("fault", "promised"), [(kill, 5.0), (stop, 1.0), (freeze, 15.0)])
def test_the_next_placement_after_a_leader(
    fault: Callable[[Servers, str], None], promised: float, made: Servers, tmp_path: Path
) -> None:
    seconds, file = [], tmp_path / "probes"
    for _ in range(CYCLES):
        leader = made.leader()
        time.sleep(random.uniform(0.5, 2.0))
        begun = time.time()
        took, _ = next_placement(made, file, lambda leader=leader: fault(made, leader), leader)  # type: ignore[misc]
        assert made.leader() != leader, "the fault acted"
        seconds.append(took)
        if took > promised:
            print(explain(made, begun))  # noqa: T201 - to go on with
        again(made, leader)
    told("R2", fault.__name__, seconds, promised)
    assert waiting(made) == QUEUED, "nothing of what waits is lost"


def test_the_next_placement_after_all_servers(made: Servers, tmp_path: Path) -> None:
    seconds, file = [], tmp_path / "probes"
    for _ in range(max(1, CYCLES // 4)):
        for home in made.homes.values():
            home.jarvis("down", "--keep")
        begun = time.time()
        starting = [threading.Thread(target=home.jarvis, args=("up", *home.up_with)) for home in made.homes.values()]
        for thread in starting:
            thread.start()
        _, ident = next_placement(made, file, lambda: None, "")
        seconds.append(Effects.read(file).of(ident)[0].begin - begun)
        for thread in starting:
            thread.join()
    told("R6", "restart of all servers", seconds, 30.0)
    assert waiting(made) == QUEUED, "nothing of what waits is lost"


def told(row: str, what: str, seconds: list[float], promised: float) -> None:
    seconds.sort()
    print(  # noqa: T201 - the figure is the point
        f"\n{row} {what}: cycles={len(seconds)} queued={QUEUED} next placement p50={seconds[len(seconds) // 2]:.2f}s "
        f"p99={seconds[len(seconds) * 99 // 100]:.2f}s (promised {promised:g}s)"
    )
