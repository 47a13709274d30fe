"""Short tasks that were given ahead to a node whose long task goes on run on another one."""

from pathlib import Path

from tests.e2e.cluster.harness import wait_for

import jarvis


def test_what_waits_behind_a_long_task_runs_elsewhere(tmp_path: Path) -> None:
    with jarvis.local(str(tmp_path / "s"), cpus=1, nodes=2) as client:
        client.submit(command=["true"], array="0-19").check(60)  # how long they take is known now
        begun, gates = tmp_path / "begun", [tmp_path / "one", tmp_path / "other"]
        begun.mkdir()
        long = [
            client.submit(
                command=f"touch {begun}/{gate.name}; while [ ! -e {gate} ]; do sleep 0.1; done", resources={"cpu": 0.9}
            )
            for gate in gates
        ]
        wait_for(lambda: len(list(begun.iterdir())) == 2, "each node has one")
        short = [client.submit(command=["true"]) for _ in range(10)]
        wait_for(lambda: {client.show(t.id)["state"] for t in short} == {"assigned"}, "all are ahead of room")
        gates[0].touch()
        for task in short:
            task.check(60)
        assert client.show(long[1].id)["state"] == "running"
        gates[1].touch()
        for task in long:
            task.check(60)
