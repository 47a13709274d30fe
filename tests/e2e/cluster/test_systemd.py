"""A node that `jarvis node install` puts under a live systemd: restarted under its tasks, started anew at boot, and taken away."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.chaos.hosts import hosts, needs_hosts
from tests.e2e.cluster.harness import home, wait_for
from tests.e2e.cluster.site import ROOT, SSHD, Site, light_bundle
from tests.servers.systemd import Systemd, needs_systemd

pytestmark = [pytest.mark.soak, pytest.mark.root, pytest.mark.timeout(600)]
SSH_UNIT = "[Service]\nRuntimeDirectory=sshd\nExecStart={command}\n"
NODE, SUPERVISOR = "jarvis-node.service", "jarvis-supervisor.service"


class Node:
    """The one that is installed on a machine with systemd."""

    def __init__(self, site: Site, machine: Systemd) -> None:
        self.site, self.machine = site, machine

    def systemctl(self, *words: str, code: int | None = 0) -> str:
        return self.machine.run("systemctl", *words, code=code)

    def supervisor(self) -> int:
        """Its pid, as the machine counts."""
        return int(self.systemctl("show", "-P", "MainPID", SUPERVISOR))

    def agent(self) -> int:
        """Its pid, as this machine counts; 0 without one."""
        for pid in self.site.machines["na"].pids():
            if b"jarvis.worker.agent\0" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        return 0

    def sessions(self) -> int:
        return (self.site.state("na") / "node" / "agent.log").read_text().count("connected as node")

    def submit(self, gate: Path) -> str:
        """A task that runs until the gate is there, and says where it runs."""
        script = f"cat /proc/self/cgroup; echo begun; while [ ! -e {gate} ]; do sleep 0.1; done; echo over"
        argv = ("submit", "-q", "-C", "zone=na", "--mem", "64M", "--", "sh", "-c", script)
        task = self.site.server.jarvis(*argv).stdout.strip()
        self.runs(task, 1)
        return task

    def runs(self, task: str, attempt: int) -> None:
        wait_for(lambda: "begun" in self.log(task, attempt), f"attempt {attempt} runs there", 60)

    def log(self, task: str, attempt: int) -> str:
        return self.site.server.jarvis("logs", task, "--attempt", str(attempt), code=None).stdout

    def ended(self, task: str) -> list[str]:
        """How its attempts have, once it has."""
        self.site.server.jarvis("wait", task)
        told = json.loads(self.site.server.jarvis("show", task, "-o", "json").stdout)
        return [attempt["cause"] for attempt in told["attempts"]]


@pytest.fixture
def node() -> Iterator[Node]:
    needs_hosts()
    needs_systemd()
    if not Path(SSHD).exists():
        pytest.skip("sshd is not installed")
    with ExitStack() as stack:
        here, there = stack.enter_context(hosts("server", "na"))
        server = stack.enter_context(home())
        server.within = here.argv()
        folder = server.directory.parent / "site"
        folder.mkdir()
        site = Site(server, folder, {"na": there})
        unit = SSH_UNIT.format(command=" ".join(site.sshd_argv("na")))
        machine = Systemd(there, folder, {"sshd.service": unit}, [ROOT, Path(sys.prefix)])
        stack.callback(machine.power_off)
        machine.boot()
        server.jarvis("up", "--listen", f"{here.address}:7600", "--cpus", "1")
        yield Node(site, machine)


def test_a_node_under_systemd(node: Node, tmp_path: Path) -> None:
    bundle = light_bundle(tmp_path, "1.0.0")
    assert "start it by systemd" in node.site.node("install", "--bundle", str(bundle), "--dry-run").stdout
    assert "started by systemd" in node.site.node("install", "--bundle", str(bundle)).stdout
    assert node.systemctl("is-active", NODE, SUPERVISOR) == "active\nactive"
    assert node.systemctl("is-enabled", NODE) == "enabled"
    goes_on_over_restarts(node)
    begins_again_after_crashes(node)
    node.systemctl("stop", NODE)
    assert node.systemctl("is-active", NODE, SUPERVISOR, code=3) == "inactive\ninactive"
    assert node.agent() == 0
    node.systemctl("start", NODE)
    wait_for(lambda: node.site.listed()["na"]["state"] == "ready", "it is back", 60)
    assert "is no node any more" in node.site.node("uninstall", "--purge").stdout
    assert node.systemctl("list-unit-files", "jarvis-*", "--no-legend", code=None) == ""
    assert node.agent() == 0
    assert node.machine.run("find", "/sys/fs/cgroup", "-name", "*jarvis*") == ""
    assert not node.site.state("na").exists()


def goes_on_over_restarts(node: Node) -> None:
    """What runs does: when the unit is restarted or reloaded, and when the agent is killed."""
    gate = node.site.folder / "first"
    task, supervisor = node.submit(gate), node.supervisor()
    assert f"/{SUPERVISOR}/jarvis-" in node.log(task, 1), "its control group is below the unit's"
    for renew in (
        lambda: node.systemctl("restart", NODE),
        lambda: node.systemctl("reload", NODE),
        lambda: os.kill(node.agent(), signal.SIGKILL),
    ):
        agent, sessions = node.agent(), node.sessions()
        renew()
        wait_for(lambda sessions=sessions: node.sessions() > sessions, "the next agent is connected")  # type: ignore[misc]
        assert node.supervisor() == supervisor
        assert node.agent() not in (0, agent)
    gate.touch()
    assert node.ended(task) == ["exit"]
    assert node.log(task, 1).splitlines()[-2:] == ["begun", "over"]


def begins_again_after_crashes(node: Node) -> None:
    """When the supervisor is killed, and when the machine loses its power and boots."""
    gate = node.site.folder / "second"
    task = node.submit(gate)
    before = node.supervisor()
    node.systemctl("kill", "--kill-whom=main", "--signal=KILL", SUPERVISOR)
    node.runs(task, 2)
    assert node.supervisor() not in (0, before)
    node.machine.power_off()
    node.machine.boot()
    node.runs(task, 3)
    gate.touch()
    assert node.ended(task) == ["supervisor_lost", "node_lost", "exit"]
