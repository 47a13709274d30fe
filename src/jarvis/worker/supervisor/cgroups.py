"""Control groups of attempts, version 1 or 2, from a pool: making and removing one costs more than a spawn.

A slot is one group (in version 1, one directory in each hierarchy). It goes back to the pool when its attempt has ended
and it is empty; one that still holds memory (page cache, tmpfs files) is removed instead, so that no attempt pays for
another. Where groups cannot be made the pool is `None` and the watchdog in `limits.py` enforces memory.
"""

from __future__ import annotations

import os
import signal

from .system import log, read_text, write_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .orders import Order

CONTROLLERS = ("memory", "pids", "cpu", "freezer")
KEPT_FREE = 64
LEFTOVER_BYTES = 4 << 20
# An attempt with less memory than this could make the kernel pick a victim while the supervisor is inside.
ROOMY_BYTES = 64 << 20


class Slot:
    """One group. `directories` maps a controller to its directory; version 2 has one entry, named `unified`."""

    def __init__(self, name: str, directories: dict[str, str]) -> None:
        self.name = name
        self.directories = directories
        self.joined: list[str] = list(directories)
        self.limits: dict[str, str] = {}
        self.oom_base = 0
        self._kept: dict[str, int] = {}  # files that every attempt needs stay open

    def prepare(self, order: Order) -> None:
        """Set the limits of the attempt to come and remember how many out-of-memory kills were seen before it."""
        raise NotImplementedError

    def enter(self) -> None:
        """Make the caller a member."""
        raise NotImplementedError

    def leave(self) -> None:
        """Go back to where the pool lives: of version 1, where the supervisor itself steps inside for a moment."""
        raise NotImplementedError

    def oom_kills(self) -> int:
        """Kills for want of memory in this group's life."""
        raise NotImplementedError

    def kill(self) -> None:
        """Send SIGKILL to every member at once."""
        raise NotImplementedError

    def resume(self, joined: list[str], oom_base: int) -> None:
        """Go on with an attempt that an upgrade handed over; its limits are set, but not known to us."""
        self.joined, self.oom_base = joined, oom_base

    def members(self) -> list[int]:
        """Living members."""
        path = self.directories[self.joined[0]]
        return [int(pid) for pid in read_text(f"{path}/cgroup.procs").split()]

    @property
    def counts_memory(self) -> bool:
        """Whether memory is limited here; else the watchdog has to."""
        return bool(self.directories.keys() & {"memory", "unified"})

    def oom_seen(self) -> bool:
        """Whether the present attempt met its memory limit."""
        return self.oom_kills() > self.oom_base

    def dirty(self) -> bool:
        """Whether memory of the last attempt is still charged here."""
        raise NotImplementedError

    def remove(self) -> None:
        """Remove the directories; a busy one is left to the successor's clean-up."""
        for fd in self._kept.values():
            os.close(fd)
        self._kept.clear()
        for path in self.directories.values():
            try:
                os.rmdir(path)
            except OSError:
                pass

    def _keep(self, path: str, flags: int) -> int:
        fd = self._kept.get(path)
        if fd is None:
            fd = self._kept[path] = os.open(path, flags | os.O_CLOEXEC)
        return fd

    def _join(self, path: str) -> None:
        os.write(self._keep(path, os.O_WRONLY), b"0")

    def _read(self, controller: str, file: str) -> str:
        """A control file, as it is now; not for lists of members, of which version 1 shows an open file the same for a while."""
        try:
            return os.pread(self._keep(f"{self.directories[controller]}/{file}", os.O_RDONLY), 4096, 0).decode()
        except OSError:
            return ""

    def _set(self, controller: str, file: str, value: str) -> None:
        if self.limits.get(file) != value:
            write_text(f"{self.directories[controller]}/{file}", value)
            self.limits[file] = value


class SlotV1(Slot):
    """Version 1: only the hierarchies that the attempt needs are entered, and the freezer for membership."""

    def prepare(self, order: Order) -> None:
        wanted = {"memory": order.memory_bytes, "pids": order.pids_max, "cpu": order.cpu_milli}
        self.joined = [name for name in ("freezer", "memory", "pids", "cpu") if self._usable(name, wanted)]
        if order.memory_bytes and "memory" in self.directories:
            self._limit_memory(order.memory_bytes)
        if order.pids_max and "pids" in self.directories:
            self._set("pids", "pids.max", str(order.pids_max))
        if order.cpu_milli and "cpu" in self.directories:
            self._set("cpu", "cpu.shares", str(max(2, order.cpu_milli * 1024 // 1000)))
        self.oom_base = self.oom_kills()

    def _usable(self, name: str, wanted: dict[str, int | None]) -> bool:
        return name in self.directories and bool(wanted.get(name, True))

    def _limit_memory(self, limit: int) -> None:
        if self.limits.get("memory.limit_in_bytes") == str(limit):
            return
        swap_too = os.path.exists(f"{self.directories['memory']}/memory.memsw.limit_in_bytes")
        if swap_too:  # it may never be below the limit, so it steps aside first
            self._set("memory", "memory.memsw.limit_in_bytes", "-1")
        self._set("memory", "memory.limit_in_bytes", str(limit))
        if swap_too:
            self._set("memory", "memory.memsw.limit_in_bytes", str(limit))

    def enter(self) -> None:
        # `tasks` moves one thread and spares the lock over all processes that `cgroup.procs` takes.
        for name in self.joined:
            self._join(f"{self.directories[name]}/tasks")

    def leave(self) -> None:
        for name in self.joined:
            self._join(f"{os.path.dirname(os.path.dirname(self.directories[name]))}/tasks")

    def oom_kills(self) -> int:
        return _field(self._read("memory", "memory.oom_control"), "oom_kill") if "memory" in self.directories else 0

    def kill(self) -> None:
        freezer = self.directories.get("freezer")
        if freezer:  # nothing can fork away between reading the list and killing it
            write_text(f"{freezer}/freezer.state", "FROZEN")
        for pid in self.members():
            _kill(pid)
        if freezer:
            write_text(f"{freezer}/freezer.state", "THAWED")

    def dirty(self) -> bool:
        if "memory" not in self.directories:
            return False
        return int(self._read("memory", "memory.usage_in_bytes") or 0) > LEFTOVER_BYTES


class SlotV2(Slot):
    """Version 2: one directory; a whole group dies together when memory runs out."""

    def prepare(self, order: Order) -> None:
        self._set("unified", "memory.max", str(order.memory_bytes or "max"))
        self._try("memory.swap.max", "0" if order.memory_bytes else "max")
        self._try("memory.oom.group", "1")
        self._set("unified", "pids.max", str(order.pids_max or "max"))
        self._set("unified", "cpu.weight", str(min(10_000, max(1, (order.cpu_milli or 1000) // 10))))
        self.oom_base = self.oom_kills()

    def _try(self, file: str, value: str) -> None:
        try:
            self._set("unified", file, value)
        except OSError:  # a kernel without swap accounting
            pass

    def enter(self) -> None:
        self._join(f"{self.directories['unified']}/cgroup.procs")

    def oom_kills(self) -> int:
        return _field(self._read("unified", "memory.events"), "oom_kill")

    def kill(self) -> None:
        try:
            write_text(f"{self.directories['unified']}/cgroup.kill", "1")
        except OSError:  # before Linux 5.14
            for pid in self.members():
                _kill(pid)

    def dirty(self) -> bool:
        return int(self._read("unified", "memory.current") or 0) > LEFTOVER_BYTES


class Pool:
    """Gives slots out and takes them back. `bases` maps a controller to our directory in its hierarchy."""

    def __init__(self, version: int, bases: dict[str, str]) -> None:
        self.version = version
        self.bases = bases
        self.free: list[Slot] = []
        self.made = 0

    def lacks(self, order: Order) -> list[str]:
        """Which asked-for limits cannot be kept here (memory has the watchdog)."""
        if self.version == 2:
            return []
        wanted = {"pids": order.pids_max, "cpu": order.cpu_milli}
        return [name for name, value in wanted.items() if value and name not in self.bases]

    def take(self, order: Order) -> Slot:
        """A slot with the limits of `order`; OSError when the kernel refuses them."""
        slot = self.free.pop() if self.free else self._make()
        try:
            slot.prepare(order)
        except OSError:
            slot.remove()
            raise
        return slot

    def named(self, name: str) -> Slot:
        """The slot of an attempt that was taken over by an upgrade."""
        self.made = max(self.made, int(name.removeprefix("slot")))
        kind = SlotV2 if self.version == 2 else SlotV1
        return kind(name, {key: f"{base}/{name}" for key, base in self.bases.items()})

    def give(self, slot: Slot, empty: bool) -> None:
        """Take a slot back."""
        if len(self.free) >= KEPT_FREE or not empty or slot.dirty():
            slot.remove()
        else:
            self.free.append(slot)

    def _make(self) -> Slot:
        slot = self.named(f"slot{self.made + 1}")
        for path in slot.directories.values():
            os.makedirs(path, exist_ok=True)
        return slot

    def leftovers(self) -> list[Slot]:
        """Groups that an earlier supervisor of the same directory left."""
        base = next(iter(self.bases.values()))
        names = [entry.name for entry in os.scandir(base) if entry.name.startswith("slot")]
        return [self.named(name) for name in names]

    def close(self) -> None:
        """Remove everything that is empty."""
        for slot in self.free:
            slot.remove()
        self.free.clear()
        for base in self.bases.values():
            try:
                os.rmdir(base)
            except OSError:
                pass


def open_pool(identity: str) -> Pool | None:
    """A pool under our own group, or None where groups cannot be made."""
    mounts, own = _mounts(), _own_groups()
    bases = {}
    for name in CONTROLLERS:
        path = _base(mounts.get(name), own.get(name), identity)
        if path:
            bases[name] = path
    if bases:
        return Pool(1, bases)
    return _open_unified(mounts.get("unified"), own.get("unified"), identity)


def _open_unified(mount: str | None, own: str | None, identity: str) -> Pool | None:
    path = _base(mount, own, identity)
    if path is None:
        return None
    parent = os.path.dirname(path)
    try:
        if parent != mount:  # a group with children may hold no processes itself, so we step down into a leaf
            leaf = f"{parent}/supervisor"
            os.makedirs(leaf, exist_ok=True)
            write_text(f"{leaf}/cgroup.procs", str(os.getpid()))
        for directory in (parent, path):
            write_text(f"{directory}/cgroup.subtree_control", "+memory +pids +cpu")
    except OSError as error:
        log(f"cgroup v2 is not delegated here: {error}")
        return None
    return Pool(2, {"unified": path})


def _base(mount: str | None, own: str | None, identity: str) -> str | None:
    """Our directory in a hierarchy: below our own group, or below the mount where that group cannot be seen."""
    if mount is None or own is None:
        return None
    inside = mount + own.rstrip("/")
    parent = inside if os.path.isdir(inside) else mount
    path = f"{parent}/jarvis-{identity}"
    try:
        os.makedirs(path, exist_ok=True)
    except OSError:
        return None
    return path


def _mounts() -> dict[str, str]:
    found = {}
    for line in read_text("/proc/self/mounts").splitlines():
        _, path, kind, options, *_ = line.split()
        if kind == "cgroup2":
            found["unified"] = path
        elif kind == "cgroup":
            found.update({name: path for name in options.split(",") if name in CONTROLLERS})
    return found


def _own_groups() -> dict[str, str]:
    found = {}
    for line in read_text("/proc/self/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        found.update({name or "unified": path for name in names.split(",")})
    return found


def _field(text: str, name: str) -> int:
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass
