"""What a container has used so far, from the control group of its first process."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ROOT = Path("/sys/fs/cgroup")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Use:
    """The newest figures that could be read; a container that is over has no control group any more."""

    user_s: float = 0.0
    sys_s: float = 0.0
    peak_bytes: int = 0

    def look(self, pid: int) -> bool:
        """Read them again; False when there is nothing to read (any more)."""
        try:
            lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii").splitlines()
            places = {
                name: path for _, names, path in (line.split(":", 2) for line in lines) for name in names.split(",")
            }
            if "memory" in places:
                self._look_v1(places)
            else:
                self._look_v2(_ROOT / places[""].lstrip("/"))
        except (OSError, ValueError, KeyError):
            return False
        return True

    def report(self) -> dict[str, Any]:
        """As in the supervisor's report of an end."""
        return {"cpu_user_s": self.user_s, "cpu_sys_s": self.sys_s, "max_rss_bytes": self.peak_bytes}

    def _look_v1(self, places: dict[str, str]) -> None:
        memory = _ROOT / "memory" / places["memory"].lstrip("/")
        self.peak_bytes = max(self.peak_bytes, int((memory / "memory.max_usage_in_bytes").read_text()))
        times = _table(_ROOT / "cpuacct" / places["cpuacct"].lstrip("/") / "cpuacct.stat")
        self.user_s, self.sys_s = times["user"] / _TICKS, times["system"] / _TICKS

    def _look_v2(self, place: Path) -> None:
        times = _table(place / "cpu.stat")
        self.user_s, self.sys_s = times["user_usec"] / 1e6, times["system_usec"] / 1e6
        peak = place / "memory.peak"  # since Linux 5.19
        now = peak if peak.exists() else place / "memory.current"
        self.peak_bytes = max(self.peak_bytes, int(now.read_text()))


def _table(path: Path) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split() for line in path.read_text().splitlines())}
