"""Tasks on several nodes: three real nodes of one machine, whose ranks meet over TCP; and one that dies in the middle."""

import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.cluster.harness import Home, wait_for

import jarvis
from jarvis.sdk.client import Client
from jarvis.sdk.errors import ClientError

MEET = """
import os, socket, time
rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
where = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
hosts = open(os.environ["JARVIS_HOSTFILE"]).read().split()
assert (len(hosts), os.environ["JARVIS_RANK"], os.environ["JARVIS_WORLD_SIZE"]) == (size, str(rank), str(size))
if rank == 0:
    with socket.create_server(where) as door:
        door.settimeout(30)
        guests = [door.accept()[0] for _ in range(size - 1)]
        total = sum(int(guest.recv(16)) for guest in guests)
        for guest in guests:
            guest.sendall(b"%d" % total)
else:
    until = time.monotonic() + 30
    while True:
        try:
            with socket.create_connection(where, 30) as door:
                door.sendall(b"%d" % rank)
                total = int(door.recv(16))
            break
        except ConnectionRefusedError:
            assert time.monotonic() < until
            time.sleep(0.02)
print("rank", rank, "of", size, "total", total)
"""


@pytest.fixture(scope="module")
def three() -> Iterator[tuple[Client, Path]]:
    """Three nodes of one CPU, which are soon missed when they fall silent."""
    with tempfile.TemporaryDirectory(prefix="jv-") as made, pytest.MonkeyPatch.context() as patch:
        for name, seconds in (("HEARTBEAT_S", "0.2"), ("SUSPECT_S", "1"), ("LOST_S", "2.5")):
            patch.setenv(f"JARVIS_SCHEDULER__{name}", seconds)
        with jarvis.local(Path(made) / "s", cpus=1, nodes=3) as client:
            yield client, Path(made) / "s"


def log(client: Client, ident: int, **which: Any) -> str:
    with client.connection.stream(f"/tasks/{ident}/logs", **which) as chunks:
        return b"".join(chunks).decode()


def attempts(client: Client, ident: int) -> list[dict[str, Any]]:
    return list(client.connection.get(f"/tasks/{ident}/attempts")["items"])


def name_of(client: Client, attempt: dict[str, Any], rank: int) -> str:
    """Of the node of a rank."""
    ident = attempt["placements"][rank]["node"]
    return next(str(node["name"]) for node in client.connection.get("/nodes")["items"] if node["id"] == ident)


def states(client: Client, ident: int) -> str:
    return str(client.show(ident)["state"])


def test_three_ranks_on_three_nodes_meet(three: tuple[Client, Path]) -> None:
    client, _ = three
    task = client.submit(command=[sys.executable, "-c", MEET], nodes=3)
    assert client.wait(task.id, 60)["state"] == "succeeded", log(client, task.id)
    (attempt,) = attempts(client, task.id)
    assert sorted(place["node"] for place in attempt["placements"]) == [1, 2, 3]
    for rank in range(3):
        assert log(client, task.id, rank=rank) == f"rank {rank} of 3 total 3\n"
    assert log(client, task.id) == log(client, task.id, rank=0)
    with pytest.raises(ClientError, match="no rank 3"):
        log(client, task.id, rank=3)


def test_it_runs_attached_and_what_is_typed_comes_to_rank_0(three: tuple[Client, Path]) -> None:
    _, directory = three
    said = Home(directory).jarvis("run", "-N", "3", "-c", "1", "sh", "-c", "cat; echo $RANK", input="typed\n")
    assert said.stdout == "typed\n0\n"


def test_one_that_fails_ends_all_and_says_which(three: tuple[Client, Path], tmp_path: Path) -> None:
    client, _ = three
    all_here = f"touch {tmp_path}/$RANK; while [ $(ls {tmp_path} | wc -l) -lt 3 ]; do sleep 0.05; done"
    task = client.submit(command=f"echo here; {all_here}; [ $RANK = 1 ] && exit 3; sleep 600", nodes=3, grace=1)
    ended = client.wait(task.id, 60)
    assert (ended["state"], ended["exit_code"]) == ("failed", 3)
    (attempt,) = attempts(client, task.id)
    assert attempt["message"] == f"rank 1 on {name_of(client, attempt, 1)}: it ended with exit code 3"
    assert [place["cause"] for place in attempt["placements"]] == ["cancelled", "exit", "cancelled"]
    assert log(client, task.id, rank=2) == "here\n"


def test_what_does_not_fit_waits_as_a_whole_and_says_why(three: tuple[Client, Path]) -> None:
    client, _ = three
    one = client.submit(command=["sleep", "600"])
    wait_for(lambda: states(client, one.id) == "running", "it runs")
    gang = client.submit(command="echo together", nodes=3)
    wait_for(lambda: states(client, gang.id) == "queued", "the leader knows it")
    why = client.connection.get(f"/tasks/{gang.id}/why")
    assert why["reason"] == "GangIncomplete"
    assert "2 nodes have room for a rank, 3 are wanted at once" in why["summary"]
    assert attempts(client, gang.id) == []
    client.act(one.id, "cancel", grace=0)
    assert client.wait(gang.id, 60)["state"] == "succeeded"


def test_each_rank_is_looked_into_while_it_runs_and_a_cancel_reaches_all(three: tuple[Client, Path]) -> None:
    client, directory = three
    home = Home(directory)
    task = client.submit(command="echo rank $RANK; exec sleep 613", nodes=3)
    ident = str(task.id)
    wait_for(lambda: states(client, task.id) == "running", "it runs")
    wait_for(lambda: log(client, task.id, rank=2) == "rank 2\n", "what a rank has written so far")
    assert home.jarvis("logs", ident).stdout == "rank 0\n"
    assert home.jarvis("exec", "--rank", "1", ident, "--", "sh", "-c", "echo $JARVIS_RANK").stdout == "1\n"
    assert "no rank 3" in home.jarvis("exec", "--rank", "3", ident, "--", "true", code=None).stderr
    table = home.jarvis("show", ident).stdout
    (attempt,) = attempts(client, task.id)
    assert "RANK" in table and ",".join(name_of(client, attempt, rank) for rank in range(3)) in table
    assert "nodes node-" in home.jarvis("why", ident).stdout
    wait_for(lambda: len(pids(directory, "613")) == 3, "all of them live")
    client.act(task.id, "cancel", grace=1)
    assert client.wait(task.id, 60)["state"] == "cancelled"
    assert not pids(directory, "613")


def test_the_node_of_a_rank_dies_and_all_run_again_elsewhere(three: tuple[Client, Path]) -> None:
    client, directory = three
    task = client.submit(
        command="echo $JARVIS_ATTEMPT; [ $JARVIS_ATTEMPT = 1 ] && exec sleep 617; true", nodes=2, grace=1
    )
    wait_for(lambda: states(client, task.id) == "running", "it runs")
    (attempt,) = attempts(client, task.id)
    name = name_of(client, attempt, 1)
    for pid in pids(directory / name):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert client.wait(task.id, 60)["state"] == "succeeded"
    first, again = attempts(client, task.id)
    assert first["cause"] in {"node_lost", "supervisor_lost"}
    assert f"on {name}" in first["message"]
    assert first["placements"][0]["cause"] == "cancelled"
    assert len({place["node"] for place in again["placements"]}) == 2
    assert not pids(directory, "617")


def pids(directory: Path, word: str = "") -> list[int]:
    """Processes of this directory, with a word in their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_bytes()
            text = command + (folder / "environ").read_bytes()
            if os.fsencode(str(directory)) in text and word.encode() in command and int(folder.name) != os.getpid():
                found.append(int(folder.name))
    return found


# ---------------------------------------------------------------- the command line


def test_what_cannot_be_on_several_nodes_is_refused(up: Home) -> None:
    too_many = up.jarvis("submit", "-N", "2", "true", code=1).stderr
    assert "nodes: 2 are wanted, and 1 of the 1 registered could ever hold a rank" in too_many
    assert "nodes: 2 are wanted" in up.jarvis("plan", "--nodes", "2", "true", code=2).stdout
    assert "no terminal on several nodes" in up.jarvis("run", "--pty", "-N", "2", "true", code=1).stderr
    up.jarvis("submit", "-N", "0", "true", code=2)
    script = up.directory.parent / "gang.sh"
    script.write_text("#!/bin/sh\n#SBATCH -N 3\n#SBATCH --mem 1\ntrue\n", encoding="utf-8")
    assert "nodes: 3 are wanted" in up.jarvis("submit", str(script), code=1).stderr
    spec = up.directory.parent / "gang.yaml"
    spec.write_text('command: ["true"]\nnodes: 1\n', encoding="utf-8")
    ident = up.jarvis("submit", "-q", str(spec)).stdout.strip()
    up.jarvis("wait", ident)
    assert "nodes" not in json.loads(up.jarvis("show", ident, "-o", "json").stdout)["spec"]
    with up.client() as client, pytest.raises(ClientError, match="a call has one answer"):
        client.submit(function={"code": "0" * 64, "python": "3.11"}, nodes=2)
