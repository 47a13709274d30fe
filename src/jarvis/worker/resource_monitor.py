"""What this machine has, and how busy it is."""

import os
import platform
import socket
import sys
from pathlib import Path

import psutil

from jarvis.core.resources import Resources
from jarvis.worker import gpu_devices


def detect_resources(cpus: float | None = None, memory: int | None = None, gpus: float | None = None) -> Resources:
    """CPUs that this process may use, memory (what a cgroup allows, if that is less), GPUs; what is declared wins."""
    found: Resources = {
        "cpu": round((cpus or len(os.sched_getaffinity(0))) * 1000),
        "memory": memory or min(psutil.virtual_memory().total, _cgroup_memory()),
    }
    count = len(gpu_devices.names()) if gpus is None else gpus
    if count:
        found["gpu"] = round(count * 1000)
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
