"""Nodes on other hosts by ssh: real sshd in network namespaces, without systemd, from a bundle and without an index."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.chaos.hosts import hosts, needs_hosts
from tests.e2e.cluster.harness import home, wait_for
from tests.e2e.cluster.site import ROOT, SSHD, Site, light_bundle

from jarvis.cli.hosts import UNITS, HostLine, read_hosts

pytestmark = pytest.mark.timeout(600)


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


def test_the_units_are_ones_that_systemd_understands(tmp_path: Path) -> None:
    texts = {name: text.format(state="/var/lib/jarvis", prefix="/opt/jarvis") for name, text in UNITS.items()}
    assert "Delegate=yes" in texts["jarvis-supervisor"] and "KillMode=process" in texts["jarvis-supervisor"]
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    units = [tmp_path / f"{name}.service" for name in texts]
    for unit, text in zip(units, texts.values(), strict=True):
        unit.write_text(text.replace("/opt/jarvis/current/bin/python", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert not any(unit.name in done.stderr for unit in units), done.stderr


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
