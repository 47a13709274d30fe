"""Nodes on other hosts by ssh: real sshd in network namespaces, without systemd, from a bundle and without an index."""

import json
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.chaos.hosts import Host, hosts, needs_hosts
from tests.e2e.cluster.harness import Home, home, wait_for

from jarvis.cli.hosts import SERVICE, HostLine, read_hosts

pytestmark = pytest.mark.timeout(600)
ROOT = Path(__file__).parents[3]
SSHD = shutil.which("sshd") or "/usr/sbin/sshd"


INSTALL = f"""#!/bin/sh
set -e
version="$(cat "$(dirname "$0")/version")" prefix="$2"
{sys.executable} -m venv --without-pip "$prefix/versions/$version"
cd "$prefix/versions/$version"/lib/python*/site-packages
printf '%s\\n' {ROOT}/src {sysconfig.get_paths()["purelib"]} >here.pth
ln -sfn "versions/$version" "$prefix/current"
"""
"""In the place of the one that installs wheels, which takes its time: an environment that finds what is installed here."""


def light_bundle(folder: Path, version: str) -> Path:
    inner = folder / version / "jarvis-bundle"
    inner.mkdir(parents=True)
    (inner / "version").write_text(version + "\n")
    (inner / "install").write_text(INSTALL)
    (inner / "install").chmod(0o755)
    path = folder / f"{version}.tar.gz"
    subprocess.run(["tar", "-C", str(inner.parent), "-czf", str(path), "jarvis-bundle"], check=True)
    return path


class Site:
    """A server, hosts with sshd, and the file that names them."""

    def __init__(self, server: Home, folder: Path, machines: dict[str, Host]) -> None:
        self.server, self.folder, self.machines = server, folder, machines
        self.config, self.file = folder / "ssh_config", folder / "hosts"
        self.key()
        self.names(*machines)

    def key(self) -> None:
        for name in ("host_key", "key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / name], check=True)
        (self.folder / "authorized").write_text((self.folder / "key.pub").read_text())
        self.config.write_text(
            f"IdentityFile {self.folder}/key\nUserKnownHostsFile /dev/null\nStrictHostKeyChecking no\nLogLevel ERROR\n"
        )

    def names(self, *names: str, more: str = "") -> None:
        """Write the file."""
        lines = [
            f"root@{self.machines[name].address} name={name} label=zone={name} "
            f"prefix={self.folder}/{name}/program state={self.state(name)}"
            for name in names
        ]
        self.file.write_text("# the site\n" + "\n".join(lines) + f"\n{more}\n")

    def state(self, name: str) -> Path:
        return self.folder / name / "state"

    def sshd(self, name: str) -> "subprocess.Popen[bytes]":
        settings = [
            "-o", f"HostKey={self.folder}/host_key", "-o", f"AuthorizedKeysFile={self.folder}/authorized",
            "-o", "StrictModes=no", "-o", "UsePAM=no", "-o", "PidFile=none",
        ]  # fmt: skip
        Path("/run/sshd").mkdir(exist_ok=True)
        return subprocess.Popen(
            self.machines[name].argv(SSHD, "-D", "-E", f"{self.folder}/{name}.log", "-f", "/dev/null", *settings)
        )

    def node(self, verb: str, *args: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
        options = ("--hosts", str(self.file), "--ssh-config", str(self.config))
        return self.server.jarvis("node", verb, *options, *args, code=code)

    def listed(self) -> dict[str, dict[str, Any]]:
        return {node["name"]: node for node in json.loads(self.server.jarvis("node", "ls", "-o", "json").stdout)}

    def pid(self, name: str) -> int:
        return int((self.state(name) / "node" / "supervisor.pid").read_text())


@pytest.fixture
def site() -> Iterator[Site]:
    needs_hosts()
    if not Path(SSHD).exists():
        pytest.skip("sshd is not installed")
    with ExitStack() as stack:
        made = stack.enter_context(hosts("server", "na", "nb"))
        machines = dict(zip(("server", "na", "nb"), made, strict=True))
        server = stack.enter_context(home())
        server.within = machines.pop("server").argv()
        folder = server.directory.parent / "site"
        folder.mkdir()
        found = Site(server, folder, machines)
        for name in machines:
            daemon = found.sshd(name)
            stack.callback(daemon.wait)
            stack.callback(daemon.terminate)
        server.jarvis("up", "--listen", f"{made[0].address}:7600", "--cpus", "1")
        yield found
        for name in machines:
            found.server.env["JARVIS_HOME"] = str(found.state(name))
            found.server.jarvis("down", code=None)
        found.server.env["JARVIS_HOME"] = str(server.directory)


def test_hosts_become_nodes_are_upgraded_and_leave(site: Site, tmp_path: Path) -> None:
    bundle = light_bundle(tmp_path, "1.0.0")
    said = site.node("install", "--bundle", str(bundle), "--dry-run").stdout
    assert said.count("would install") == 2
    assert "start it (systemd does not run there)" in said
    assert not site.state("na").exists(), "nothing was done"

    site.names("na", "nb", more="root@192.0.2.1:9 name=nowhere")
    done = site.node("install", "--bundle", str(bundle), code=1)
    assert "na: is node" in done.stdout and "nb: is node" in done.stdout
    assert "as a process of its own: systemd does not run there" in done.stdout
    assert "2 of 3 hosts are done; failed: nowhere" in done.stdout
    assert "nowhere: FAILED: ssh: connect to host 192.0.2.1 port 9" in done.stderr
    nodes = site.listed()
    assert {nodes[name]["labels"]["zone"] for name in ("na", "nb")} == {"na", "nb"}

    site.names("na", "nb")
    again = site.node("install", "--bundle", str(bundle)).stdout
    assert again.count("already") == 2, again

    ticks = tmp_path / "go"
    script = f"echo begun; while [ ! -e {ticks} ]; do sleep 0.1; done; echo over"
    task = site.server.jarvis("submit", "-q", "-C", "zone=na", "--", "sh", "-c", script).stdout.strip()
    wait_for(lambda: "begun" in site.server.jarvis("logs", task).stdout, "it runs there")
    before = site.pid("na")
    newer = light_bundle(tmp_path, "9.9.9")
    upgraded = site.node("upgrade", "--bundle", str(newer)).stdout
    assert upgraded.count("goes on as node") == 2, upgraded
    assert site.pid("na") == before, "the supervisor is the same process"
    assert (site.folder / "na/program/current").readlink() == Path("versions/9.9.9")
    assert site.node("upgrade", "--bundle", str(newer)).stdout.count("has 9.9.9 already") == 2

    site.names("na")
    busy = site.node("uninstall", "--timeout", "1", code=1)
    assert "its tasks did not end in 1 s" in busy.stderr
    ticks.touch()
    site.server.jarvis("wait", task)
    assert site.server.jarvis("logs", task).stdout == "begun\nover\n", "it ran through all of that"
    site.names("na", "nb")
    gone = site.node("uninstall", "--purge").stdout
    assert gone.count("is no node any more") == 2, gone
    wait_for(lambda: set(site.listed()) & {"na", "nb"} == set(), "they are removed")
    assert not (site.folder / "na/program").exists() and not site.state("na").exists()


@pytest.mark.soak
def test_a_bundle_installs_without_an_index(tmp_path: Path) -> None:
    """Making it needs one; that takes a minute."""
    bundle = tmp_path / "jarvis-bundle.tar.gz"
    made = subprocess.run(
        [ROOT / "scripts/bundle", sys.executable, bundle], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    subprocess.run(["tar", "-C", str(tmp_path), "-xzf", str(bundle)], check=True)
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PIP_INDEX_URL": "http://127.0.0.1:1/", "PIP_RETRIES": "0"}
    script = str(tmp_path / "jarvis-bundle/install")
    install = [script, "--prefix", str(tmp_path / "p"), "--python", sys.executable]
    done = subprocess.run(install, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    program = tmp_path / "p/current/bin/jarvis"
    said = subprocess.run([program, "--version"], env=env, capture_output=True, text=True, check=True).stdout
    assert said.startswith("jarvis ")
    assert subprocess.run(install, env=env, capture_output=True, check=True, timeout=10).returncode == 0, (
        "again, at once"
    )
    wrong = subprocess.run([script, "--what"], env=env, capture_output=True, text=True, check=False)
    assert (wrong.returncode, "unknown: --what" in wrong.stderr) == (2, True)


def test_the_unit_is_one_that_systemd_understands(tmp_path: Path) -> None:
    text = SERVICE.format(state="/var/lib/jarvis", prefix="/opt/jarvis")
    assert "Delegate=yes" in text and "KillMode=process" in text
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "jarvis-node.service"
    unit.write_text(text.replace("/opt/jarvis/current/bin/python", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert str(unit.name) not in done.stderr, done.stderr


def test_a_file_of_hosts_is_read_with_care(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text("# all\nadmin@h1:2222 name=a label=x=y taint=gpu\n\n[fd00::1]:22\nfd00::2  # plain\nh4\n")
    assert read_hosts(path) == [
        HostLine("admin@h1", "2222", "a", labels=("x=y",), taints=("gpu",)), HostLine("fd00::1", "22"),
        HostLine("fd00::2"), HostLine("h4"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "wrong"),
    [("", "names no host"), ("h1\nh1", "h1 is there twice"), ("h:x", ":1: 'x' is no port"), ("-oProxy h", "is no host"),
     ("h colour=red", ":1: 'colour=red' is none of")],
)  # fmt: skip
def test_what_is_wrong_in_it_is_named(tmp_path: Path, text: str, wrong: str) -> None:
    (tmp_path / "hosts").write_text(text)
    with home() as made:
        (tmp_path / "b").write_text("no bundle")
        args = ("node", "upgrade", "--hosts", str(tmp_path / "hosts"), "--bundle", str(tmp_path / "b"))
        assert "is no bundle of Jarvis" in made.jarvis(*args, code=2).stderr
    with pytest.raises(Exception, match=wrong.replace("(", "\\(")):
        read_hosts(tmp_path / "hosts")
