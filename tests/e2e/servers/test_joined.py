"""A machine that has joined a cluster of several servers: it knows them all, and goes to another when its own is gone."""

import re
from pathlib import Path

import pytest
from tests.e2e.cluster.harness import home, wait_for
from tests.e2e.servers.harness import servers

from jarvis.worker.credentials import Credentials

pytestmark = pytest.mark.timeout(300)


def test_a_joined_node_outlives_its_server(tmp_path: Path) -> None:
    with servers("na", "nb", cpus=1, listen=True) as made, home() as machine:
        first, second = made.homes["na"], made.homes["nb"]
        line = first.jarvis("token", "create", "--join").stdout.split()
        wait_for(lambda: second.server.public, "the second listens")
        machine.jarvis(*line[1:], "--name", "far", "--cpus", "8")
        credentials = Credentials(machine.directory / "credentials")
        assert credentials.urls == sorted([first.server.public, second.server.public])
        script = f"echo begun; while [ ! -e {tmp_path}/go ]; do sleep 0.1; done; echo over"
        with second.client() as client:
            task = client.submit(command=["sh", "-c", script], resources={"cpu": 8}).id
            wait_for(lambda: client.show(task)["state"] == "running", "it runs there")
            wait_for(
                lambda: "begun" in second.jarvis("logs", str(task)).stdout,
                "its output comes by way of the other server",
            )
            assert second.jarvis("exec", str(task), "--", "echo", "beside").stdout == "beside\n"
            first.kill_server()
            log = machine.directory / "node" / "agent.log"
            wait_for(
                lambda: len(re.findall("connected as node", log.read_text())) > 1, "it goes to the other server", 60
            )
            (tmp_path / "go").touch()
            assert client.wait(task, 60)["state"] == "succeeded"
            assert second.jarvis("logs", str(task)).stdout == "begun\nover\n"
        machine.jarvis("down")
