"""Hosts on one machine: network namespaces on a bridge, whose links can be cut, cut one way, made lossy, or taken away."""

import ctypes
import fcntl
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import pytest

Direction = Literal["in", "out", "both"]
NEEDED = ("ip", "iptables")
CLONE_NEWNET = 0x40000000
NAMESPACES = Path("/run/netns")
FREEZER = Path("/sys/fs/cgroup/freezer")


def needs_hosts() -> None:
    """Skip, or fail where nothing may be skipped, unless hosts can be made here."""
    missing = [tool for tool in NEEDED if shutil.which(tool) is None]
    reason = "making network namespaces needs root" if os.geteuid() else f"not installed: {missing}" if missing else ""
    if reason and os.environ.get("CI"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Host:
    """A namespace with one address. Programs start in it with :meth:`argv` before their own."""

    def __init__(self, namespace: str, address: str) -> None:
        self.namespace, self.address = namespace, address

    def argv(self, *command: str) -> list[str]:
        return ["ip", "netns", "exec", self.namespace, *command]

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Sockets that this thread makes meanwhile, and processes that it starts, are on that host."""
        with Path("/proc/thread-self/ns/net").open() as own:
            with (NAMESPACES / self.namespace).open() as there:
                _enter(there.fileno())
            try:
                yield
            finally:
                _enter(own.fileno())

    def run(self, *command: str) -> None:
        """Something short that must succeed."""
        _run(*self.argv(*command))

    def cut(self, way: Direction = "both", other: "Host | None" = None) -> None:
        """Nothing passes any more, not even what would say so; to and from everybody, or one other host."""
        for chain, side in _chains(way):
            self.run(
                "iptables", "-A", chain, "!", "-i" if chain == "INPUT" else "-o", "lo", *_who(side, other), "-j", "DROP"
            )

    def lose(self, share: float, way: Direction = "both") -> None:
        """Of the packets, at random."""
        for chain, _ in _chains(way):
            rule = ["-m", "statistic", "--mode", "random", "--probability", f"{share:.3f}", "-j", "DROP"]
            self.run("iptables", "-A", chain, "!", "-i" if chain == "INPUT" else "-o", "lo", *rule)

    def dropped(self) -> int:
        """Packets that the faults of this host have taken so far."""
        told = subprocess.run(self.argv("iptables", "-nvxL"), capture_output=True, text=True, check=True).stdout
        return sum(int(line.split()[0]) for line in told.splitlines() if " DROP " in line)

    def heal(self) -> None:
        """Everything passes again."""
        self.run("iptables", "-F")

    def pids(self) -> list[int]:
        """Whatever runs in it."""
        told = subprocess.run(["ip", "netns", "pids", self.namespace], capture_output=True, text=True, check=True)
        return [int(pid) for pid in told.stdout.split()]


def _chains(way: Direction) -> list[tuple[str, str]]:
    both = [("INPUT", "-s"), ("OUTPUT", "-d")]
    return {"in": both[:1], "out": both[1:], "both": both}[way]


def _who(side: str, other: Host | None) -> list[str]:
    return [] if other is None else [side, other.address]


@contextmanager
def hosts(*names: str) -> Iterator[list[Host]]:
    """As many hosts as names, which reach each other and nothing else; all that runs in them ends with them."""
    sweep()
    prefix, subnet = f"jv{os.getpid()}", f"10.{77 + os.getpid() % 100}.{os.getpid() // 100 % 250}"
    switch = f"{prefix}-switch"
    made: list[str] = []
    try:
        _run("ip", "netns", "add", switch)
        made.append(switch)
        _run("ip", "-n", switch, "link", "add", "bridge", "type", "bridge")
        _run("ip", "-n", switch, "link", "set", "bridge", "up")
        found = []
        for number, name in enumerate(names, 1):
            namespace = f"{prefix}-{name}"
            _run("ip", "netns", "add", namespace)
            made.append(namespace)
            found.append(Host(namespace, f"{subnet}.{number}"))
            _plug(switch, found[-1], number)
        yield found
    finally:
        for namespace in reversed(made):
            _end(namespace)


def _plug(switch: str, host: Host, number: int) -> None:
    port = f"port{number}"
    _run("ip", "-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
    _run("ip", "-n", switch, "link", "set", port, "master", "bridge", "up")
    _run("ip", "-n", host.namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
    for device in ("lo", "eth0"):
        _run("ip", "-n", host.namespace, "link", "set", device, "up")


def sweep() -> None:
    """End the hosts of test runs that were cut off: those whose maker, named by its pid, is gone."""
    if not NAMESPACES.exists():
        return
    one_at_a_time = os.open(NAMESPACES, os.O_RDONLY)
    try:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        for path in NAMESPACES.glob("jv*-*"):
            maker = re.match(r"jv(\d+)-", path.name)
            if maker is not None and not Path(f"/proc/{maker[1]}").exists():
                _thaw(path.name)
                _end(path.name)
    finally:
        os.close(one_at_a_time)


def _thaw(namespace: str) -> None:
    """A host that was left frozen could not end; its group goes once it is empty."""
    group = FREEZER / namespace
    if group.exists():
        (group / "freezer.state").write_text("THAWED")
        for pid in (group / "tasks").read_text().split():
            with suppress(ProcessLookupError):
                (FREEZER / "tasks").write_text(pid)
        group.rmdir()


def _end(namespace: str) -> None:
    """What runs in it is of this test alone."""
    for pid in Host(namespace, "").pids():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _run("ip", "netns", "delete", namespace)
