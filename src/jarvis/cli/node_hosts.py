"""node install, upgrade, uninstall: nodes on many hosts, over the system's ssh."""

import shlex
import subprocess
import tarfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click

from jarvis.cli.hosts import UNITS, Host, HostError, read_hosts, ssh_command
from jarvis.cli.join import join_line
from jarvis.cli.nodes import node
from jarvis.sdk.client import Client
from jarvis.sdk.errors import ClientError

PARALLEL = 10
READY_S = 60.0
ON_NODE = ["assigned", "starting", "running", "suspended", "cancelling"]


def _options(command: Any) -> Any:
    for option in (
        click.option("--ssh-config", type=click.Path(exists=True, path_type=Path), help="Configuration file for ssh."),
        click.option("--dry-run", is_flag=True, help="Look at the hosts and say what would be done there."),
        click.option(
            "--hosts", "file", required=True, type=click.Path(exists=True, path_type=Path), metavar="FILE",
            help="A host a line: [USER@]HOST[:PORT] [name=NAME] [label=K=V] [taint=T] [prefix=DIR] [state=DIR].",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


bundle_option = click.option(
    "--bundle", required=True, type=click.Path(exists=True, path_type=Path), help="What 'make bundle' made."
)


@node.command()
@_options
@bundle_option
@click.option("--parallel", default=PARALLEL, type=click.IntRange(1), help="Hosts at a time.")
def install(file: Path, bundle: Path, parallel: int, dry_run: bool, ssh_config: Path | None) -> None:
    """Make the hosts of FILE nodes: the program in an environment of its own, joined, started, and again after a boot.

    What is there already stays, so that it can be repeated. Without systemd the node is started as a process of its own.
    """
    version = version_of(bundle)

    def one(host: Host, say: Callable[[str], None]) -> str:
        plan = _plan(host, version)
        if dry_run or not plan:
            return f"would {', '.join(plan)}" if plan else f"is a node with {version} already"
        if "install" in plan[0]:
            say(f"copying {bundle.name}")
            host.send(bundle)
            say(f"installing {version}")
            host.act("unpack")
        if host.found["joined"] == "no":
            say("joining")
            host.act("join", **_join_variables(host))
        if host.found["runs"] == "yes":
            return _renewed(host, say)
        say("starting")
        front, supervisor = (text.format(**host.found) for text in UNITS.values())
        host.act("start", NODE_UNIT=front, SUPERVISOR_UNIT=supervisor)
        how = "by systemd" if host.found["systemd"] == "yes" else "as a process of its own: systemd does not run there"
        return f"is node {_connected(host.line.node)}, started {how}"

    _each(_hosts(file, ssh_config), one, parallel)


@node.command()
@_options
@bundle_option
@click.option("--parallel", default=1, type=click.IntRange(1), help="Hosts at a time; default: one after the other.")
def upgrade(file: Path, bundle: Path, parallel: int, dry_run: bool, ssh_config: Path | None) -> None:
    """Bring the nodes of FILE to the version of the bundle. What runs on them goes on. Ends at the first host that fails."""
    version = version_of(bundle)

    def one(host: Host, say: Callable[[str], None]) -> str:
        if host.found["joined"] == "no":
            raise HostError("it is no node: jarvis node install")
        if host.found["version"] == version:
            return f"has {version} already"
        if dry_run:
            return f"would install {version} and go on with it"
        say(f"copying {bundle.name}")
        host.send(bundle)
        say(f"installing {version}")
        host.act("unpack")
        return _renewed(host, say) if host.found["runs"] == "yes" else "is installed; the node does not run"

    _each(_hosts(file, ssh_config), one, parallel, stop_early=True)


@node.command()
@_options
@click.option("--force", is_flag=True, help="Although tasks run there: they are lost with it.")
@click.option("--purge", is_flag=True, help="Its state directory, too.")
@click.option("--timeout", default=3600.0, help="Seconds that its tasks may take to end.")
def uninstall(file: Path, force: bool, purge: bool, timeout: float, dry_run: bool, ssh_config: Path | None) -> None:
    """Take the nodes of FILE out of the cluster: drained, removed, stopped, and the program deleted."""

    def one(host: Host, say: Callable[[str], None]) -> str:
        if dry_run:
            return f"would {'' if force else 'drain and '}remove the node, stop it and delete {host.found['prefix']}"
        with Client() as client:
            known = any(found["name"] == host.line.node for found in client.connection.get("/nodes")["items"])
            if known and not force:
                say("draining")
                client.connection.post(f"/nodes/{host.line.node}/drain", {"reason": "it is being uninstalled"})
                _until_idle(client, host.line.node, timeout)
            say("stopping")
            host.act("stop")
            if known:
                client.connection.post(f"/nodes/{host.line.node}/remove", {"force": True})
        say("deleting")
        host.act("remove", PURGE="yes" if purge else "no")
        return "is no node any more"

    _each(_hosts(file, ssh_config), one, PARALLEL)


# ---------------------------------------------------------------- one host


def version_of(bundle: Path) -> str:
    """What the bundle brings; a :class:`click.UsageError` when it is none."""
    try:
        with tarfile.open(bundle) as archive:
            member = archive.extractfile("jarvis-bundle/version")
            assert member is not None
            return member.read().decode().strip()
    except (tarfile.TarError, KeyError, AssertionError, OSError) as error:
        raise click.UsageError(f"{bundle} is no bundle of Jarvis ({error}): make one with 'make bundle'") from None


def _plan(host: Host, version: str) -> list[str]:
    found = host.found
    plan = [] if found["version"] == version else [f"install {version} in {found['prefix']}"]
    if found["joined"] == "no":
        plan.append(f"join as {host.line.node}")
    if found["runs"] == "no":
        plan.append("start it by systemd" if found["systemd"] == "yes" else "start it (systemd does not run there)")
    elif plan:
        plan.append("go on with the new program")
    return plan


def _join_variables(host: Host) -> dict[str, str]:
    line = host.line
    with Client() as client:
        words = shlex.split(join_line(client, {}))
    flags = [word for label in line.labels for word in ("--label", label)]
    flags += [word for taint in line.taints for word in ("--taint", taint)]
    return {"URL": words[2], "TOKEN": words[4], "PIN": words[6], "NAME": line.node, "FLAGS": shlex.join(flags)}


def _renewed(host: Host, say: Callable[[str], None]) -> str:
    say("going on with the new program")
    host.act("renew")
    return f"goes on as node {_connected(host.line.node)} with the new program; what ran there still does"


def _connected(name: str) -> int:
    """Its id, once the cluster has seen it."""
    deadline = time.monotonic() + READY_S
    with Client() as client:
        while True:
            for found in client.connection.get("/nodes")["items"]:
                if found["name"] == name and found["state"] == "ready":
                    return int(found["id"])
            if time.monotonic() > deadline:
                raise HostError(
                    "it was started, but the cluster does not see it: look at node/agent.log in its state directory"
                )
            time.sleep(0.2)


def _until_idle(client: Client, name: str, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    ident = client.connection.get(f"/nodes/{name}")["id"]
    while _is_busy(client, ident):
        if time.monotonic() > deadline:
            raise HostError(f"its tasks did not end in {timeout:.0f} s; --force ends them")
        time.sleep(0.5)


def _is_busy(client: Client, ident: int) -> bool:
    """Whether anything is on the node."""
    for task in client.tasks(state=ON_NODE):
        elements = client.connection.get(f"/tasks/{task['id']}/elements", state=ON_NODE, limit=1000)["items"]
        if any(element["node"] == ident for element in elements):
            return True
    return False


# ---------------------------------------------------------------- all hosts


def _hosts(file: Path, ssh_config: Path | None) -> list[Host]:
    return [Host(line, ssh_command(ssh_config)) for line in read_hosts(file)]


def _each(
    hosts: Sequence[Host], work: Callable[[Host, Callable[[str], None]], str], parallel: int, stop_early: bool = False
) -> None:
    """A line for each step of each host, a summary, and exit code 1 when one failed."""
    failed: list[str] = []

    def one(host: Host) -> bool:
        def say(text: str) -> None:
            click.echo(f"{host.line.node}: {text}", err=True)

        if stop_early and failed:
            say("not begun")
            return False
        try:
            host.probe()
            click.echo(f"{host.line.node}: {work(host, say)}")
            return True
        except (HostError, ClientError, OSError, subprocess.SubprocessError) as error:
            failed.append(host.line.node)
            say(f"FAILED: {error}")
            return False

    with ThreadPoolExecutor(parallel) as pool:
        good = sum(pool.map(one, hosts))
    click.echo(f"{good} of {len(hosts)} hosts are done" + (f"; failed: {', '.join(failed)}" if failed else ""))
    if good < len(hosts):
        raise SystemExit(1)
