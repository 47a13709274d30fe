"""What this machine has, and how busy it is."""

import asyncio
import os
import platform
import socket
import sys
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from jarvis.core.gpus import room_of
from jarvis.core.resources import Resources
from jarvis.worker import gpu_devices

SOMEWHERE = ("192.0.2.1", "2001:db8::1")
"""Addresses of documentation (RFC 5737, RFC 3849): nobody is there, so the way to them is the way to anywhere."""


def detect_resources(
    cpus: float | None = None, memory: int | None = None, gpus: float | None = None, gpu_memory: Sequence[int] = ()
) -> Resources:
    """CPUs that this process may use, memory (what a cgroup allows, if that is less), GPUs; what is declared wins.
    ``gpu_memory``: bytes of each GPU, if that is known."""
    found: Resources = {
        "cpu": round((cpus or len(os.sched_getaffinity(0))) * 1000),
        "memory": memory or min(psutil.virtual_memory().total, _cgroup_memory()),
    }
    count = len(gpu_devices.names()) if gpus is None else gpus
    if count:
        found["gpu"] = round(count * 1000)
        if total := sum(room_of(found, gpu_memory).memory):
            found["gpu_memory"] = total
    return found


def _cgroup_memory() -> int:
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(path).read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            return int(text)
    return 1 << 62


def detect_labels() -> dict[str, str]:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    labels = {"arch": platform.machine(), "os": platform.system().lower(), "python": version}
    labels["hostname"] = socket.gethostname()
    gpus = gpu_devices.names()
    if gpus:
        labels["gpu.type"] = gpus[0]
    return labels


async def find_address(urls: list[str], patience_s: float = 3.0) -> str:
    """As :func:`address_towards`; where names take longer to be resolved, they are left out, for a node must not wait for them."""
    try:
        async with asyncio.timeout(patience_s):
            return await asyncio.to_thread(address_towards, urls)
    except TimeoutError:
        return address_towards([])


def address_towards(urls: list[str]) -> str:
    """The address under which other nodes reach this one: that from which it reaches the server, or where that is on this very
    machine, that from which it would reach anybody else. Loopback where there is nothing else. Nothing is sent."""
    hosts = [urlsplit(url).hostname or "" for url in urls]
    found = [address for host in [*hosts, *SOMEWHERE] if (address := _source(host))]
    return next((address for address in found if not ip_address(address).is_loopback), "127.0.0.1")


def _source(host: str) -> str:
    """The address that packets to a host would come from; empty where there is no way to it."""
    try:
        family, kind, _, _, where = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(where)
            return str(probe.getsockname()[0])
    except (OSError, IndexError, UnicodeError):
        return ""


class ResourceMonitor:
    """Figures for the heartbeat. Ratios are of one, sizes bytes; network and disk count bytes since the machine started."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        psutil.cpu_percent()

    def sample(self) -> dict[str, float]:
        memory, disk = psutil.virtual_memory(), psutil.disk_usage(str(self._directory))
        load = os.getloadavg()
        out = {
            "cpu_ratio": psutil.cpu_percent() / 100.0,
            "memory_used": float(memory.total - memory.available),
            "memory_total": float(memory.total),
            "disk_free": float(disk.free),
            "load1": load[0],
        }
        network = psutil.net_io_counters()
        if network is not None:
            out |= {"net_sent": float(network.bytes_sent), "net_received": float(network.bytes_recv)}
        disks = psutil.disk_io_counters()
        if disks is not None:
            out |= {"disk_read": float(disks.read_bytes), "disk_written": float(disks.write_bytes)}
        return out | gpu_devices.sample()


def boot_id() -> str:
    """Tells one life of the machine from the next: attempts of another life are over."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
