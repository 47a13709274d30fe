"""What a real server decided is decided again from its record, and says why a task waited then."""

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.chaos.pool import Pool
from tests.e2e.cluster.harness import Home, home, wait_for

from jarvis.scheduler.replay.recording import Deed
from jarvis.scheduler.replay.replaying import Diverged, Replay
from jarvis.sdk.client import Client, TaskHandle
from jarvis.utils.record_file import frames, segments

pytestmark = pytest.mark.timeout(180)
WINDOWS = {"HEARTBEAT_S": "0.5", "SUSPECT_S": "2", "LOST_S": "3", "FENCE_S": "6"}


def recorded_to(made: Home) -> float:
    """The last instant at which a turn began that is in the file: a kill cuts off what is not."""
    (path,) = segments(made.directory / "record")
    deeds = [msgspec.msgpack.decode(frame, type=Deed) for frame in list(frames(path))[1:]]
    return max((deed.times[0] for deed in deeds if deed.times), default=0.0)


def lose_a_node(made: Home, client: Client) -> TaskHandle:
    """A task that ran on a node which is lost."""
    gone = Pool([made.directory], 1, cpus=2, name="gone")
    try:
        gone.until(1, 60)
        task = client.submit(command=["sleep", "300"], resources={"cpu": 2})
        wait_for(lambda: task.show()["state"] == "running", "it runs there")
    finally:
        gone.kill()
    path = f"/tasks/{task.id}/attempts"
    wait_for(lambda: client.connection.get(path)["items"][0].get("cause") == "node_lost", "the node is lost", 60)
    return task


@pytest.fixture(scope="module")
def recorded() -> Iterator[tuple[Home, int, float]]:
    """A life with a kill -9 and the loss of a node, tasks that wait, fail and are cancelled, an array and a workflow: (home, task,
    when it waited)."""
    with home() as made:
        made.env |= {f"JARVIS_SCHEDULER__{name}": value for name, value in WINDOWS.items()}
        made.jarvis("up", "--cpus", "2")
        with made.client() as client:
            first = client.submit(command=["sleep", "300"], resources={"cpu": 2})
            wait_for(lambda: first.show()["state"] == "running", "it runs")
            lost = lose_a_node(made, client)
            second = client.submit(command=["true"], resources={"cpu": 1}, name="second").id
            wait_for(lambda: client.show(second)["state"] == "queued", "the leader knows it")
            waited_at = time.time()
            client.submit(command=["false"], array="0-9")
        wait_for(lambda: recorded_to(made) > waited_at, "that instant is in the file")
        made.kill_server()
        made.jarvis("up")
        with made.client() as client:
            for task in (first, lost):
                client.act(task.id, "cancel", grace=0)
            steps = [{"id": "a", "command": "true"}, {"id": "b", "command": "true", "depends_on": ["a"]}]
            assert client.submit_workflow({"steps": steps}).wait(60)["state"] == "succeeded"
            assert client.wait(second, 60)["state"] == "succeeded"
        made.jarvis("down")
        yield made, second, waited_at


def test_every_commit_comes_out_again(recorded: tuple[Home, int, float]) -> None:
    made, _, _ = recorded
    told = made.jarvis("replay").stdout
    assert len(segments(made.directory / "record")) == 2
    assert "decided again, all the same" in told
    assert int(told.splitlines()[-1].split()[0]) > 10


def test_why_a_task_waited_then(recorded: tuple[Home, int, float]) -> None:
    made, second, waited_at = recorded
    told = made.jarvis("why", str(second), "--at", f"{waited_at}").stdout
    assert "cpu" in told
    kept = str(made.directory / "record")
    assert made.jarvis("why", str(second), "--at", f"{waited_at}", "--record", kept).stdout == told
    assert "name it with --at" in made.jarvis("why", str(second), "--record", kept, code=2).stderr
    after = made.jarvis("why", str(second), "--at", f"{time.time()}", code=1).stderr
    assert f"task {second} did not wait" in after
    early = made.jarvis("why", str(second), "--at", f"{waited_at - 3600}", code=1).stderr
    assert "the record begins later than that" in early
    for wrong in ("yesterday", "-soon"):
        assert "or -10m" in made.jarvis("why", str(second), "--at", wrong, code=2).stderr


async def test_another_decision_is_noticed(recorded: tuple[Home, int, float]) -> None:
    """Here: another policy than the one that decided."""
    made, _, _ = recorded
    replay = Replay(segments(made.directory / "record")[0])
    replay.scheduler.policy = lambda: replay.policy.__class__(budget=0)
    with pytest.raises(Diverged, match="deed"):
        await replay.run()


def test_a_record_that_is_cut_off_is_read_as_far_as_it_goes(recorded: tuple[Home, int, float], tmp_path: Path) -> None:
    made, _, _ = recorded
    whole = segments(made.directory / "record")[-1]
    (tmp_path / whole.name).write_bytes(whole.read_bytes()[:-40])
    assert "all the same" in made.jarvis("replay", "--record", str(tmp_path)).stdout


def test_without_a_record(recorded: tuple[Home, int, float], tmp_path: Path) -> None:
    made, _, _ = recorded
    told = made.jarvis("replay", "--record", str(tmp_path), code=1).stderr
    assert "no record of decisions is there" in told
    assert "record.what" in told
