"""Tasks go where what they need lies already: two real nodes, real files, as long as these are kept and no longer."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.cluster.harness import Home, wait_for

import jarvis
from jarvis.core.manifest import PIECE
from jarvis.sdk.client import Client

pytestmark = pytest.mark.timeout(180)
SIZE = 17 * PIECE
CACHE = 60 * PIECE


@pytest.fixture(scope="module")
def two() -> Iterator[tuple[Client, Home, str, str]]:
    """Two nodes, whose caches hold three files of the size: the one that is taken where nothing speaks for another comes first."""
    with tempfile.TemporaryDirectory(prefix="jv-") as made, pytest.MonkeyPatch.context() as patch:
        patch.setenv("JARVIS_SCHEDULER__LOCALITY", "16MiB")
        patch.setenv("JARVIS_SCHEDULER__HEARTBEAT_S", "0.2")
        patch.setenv("JARVIS_WORKER__FILE_CACHE", str(CACHE))
        with jarvis.local(Path(made) / "s", cpus=4, nodes=2) as client:
            wait_for(lambda: len(client.connection.get("/nodes")["items"]) == 2, "both are there")
            near, far = (
                str(n["name"]) for n in sorted(client.connection.get("/nodes")["items"], key=lambda n: n["id"])
            )
            yield client, Home(Path(made) / "s"), near, far


@contextmanager
def only_on(client: Client, name: str) -> Iterator[None]:
    others = [node["name"] for node in client.connection.get("/nodes")["items"] if node["name"] != name]
    for other in others:
        client.connection.post(f"/nodes/{other}/cordon", None)
    wait_for(lambda: all(_node(client, other)["cordoned"] for other in others), "they are cordoned")
    try:
        yield
    finally:
        for other in others:
            client.connection.post(f"/nodes/{other}/uncordon", None)
        wait_for(lambda: not any(_node(client, other)["cordoned"] for other in others), "they are not")


def _node(client: Client, name: str) -> dict[str, Any]:
    found: dict[str, Any] = client.connection.get(f"/nodes/{name}")
    return found


def holds(client: Client, name: str) -> list[str]:
    return [one["what"] for one in _node(client, name)["holds"]]


def ran_on(client: Client, ident: int) -> str:
    attempt = client.connection.get(f"/tasks/{ident}/attempts")["items"][-1]
    return next(str(n["name"]) for n in client.connection.get("/nodes")["items"] if n["id"] == attempt["node"])


def pushed(client: Client, directory: Path, name: str) -> str:
    (directory / name).write_bytes(os.urandom(SIZE))
    return client.push(directory / name)


def run(client: Client, digest: str) -> str:
    """Where it ran."""
    task = client.submit(command="ls -l", push=[digest])
    task.check(60)
    return ran_on(client, task.id)


def test_files_draw_tasks_until_they_had_to_go(two: tuple[Client, Home, str, str], tmp_path: Path) -> None:
    client, home, near, far = two
    digest = pushed(client, tmp_path, "data")
    first = client.submit(command="true")
    first.check(60)
    assert ran_on(client, first.id) == near
    with only_on(client, far):
        assert run(client, digest) == far
    wait_for(lambda: holds(client, far) == [f"files {digest[:12]}"], "the node tells it")
    assert run(client, digest) == far
    asked = client.connection.post("/plan", {"command": "ls", "push": [digest]})
    assert asked["summary"] == f"it starts now on {far}, which holds files {digest[:12]} (17Mi)"
    assert f"holds  files {digest[:12]} (17Mi)" in home.jarvis("node", "show", far).stdout
    task = client.submit(command="sleep 600", push=[digest])
    wait_for(lambda: client.show(task.id)["state"] == "running", "it runs")
    assert f"{far}, where 17Mi of what it needs were already" in home.jarvis("why", str(task.id)).stdout
    client.act(task.id, "cancel", grace=0)
    with client.connection.stream("/metrics") as chunks:
        assert b"jarvis_scheduler_near_placements_total 2.0\n" in b"".join(chunks)
    with only_on(client, far):
        for name in ("a", "b", "c"):
            run(client, pushed(client, tmp_path, name))
    wait_for(lambda: f"files {digest[:12]}" not in holds(client, far), "it had to go, and the node tells it")
    assert run(client, digest) == near


def test_a_step_runs_where_its_input_was_made(two: tuple[Client, Home, str, str], tmp_path: Path) -> None:
    client, _, _, far = two
    go = tmp_path / "go"
    make = f"while ! [ -e {go} ]; do sleep 0.02; done; head -c {SIZE} /dev/urandom > made"
    steps = [
        {"id": "make", "command": make, "artifacts": ["made"]},
        {"id": "use", "depends_on": ["make"], "command": "cksum made", "push": ["${{ steps.make.artifacts }}"]},
    ]
    with only_on(client, far):
        flow = client.submit_workflow({"steps": steps})
        wait_for(lambda: [step["state"] for step in flow.steps()][:1] == ["running"], "the first step runs")
    go.touch()
    assert flow.wait(60)["state"] == "succeeded"
    assert [ran_on(client, step["task"]) for step in flow.steps()] == [far, far]
