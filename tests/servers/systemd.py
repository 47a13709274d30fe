"""A systemd of a test's own: pid 1 of its own namespaces on a host of the test's, on an overlay of this machine's root that
forgets at each boot what was written there. Killing it ends all that runs in it.
"""

import errno
import os
import shutil
import subprocess
import uuid
from contextlib import suppress
from pathlib import Path

import pytest
from tests.chaos.hosts import Host
from tests.e2e.cluster.harness import wait_for

SYSTEMD = Path("/lib/systemd/systemd")
GROUPS = Path("/sys/fs/cgroup")
MASKED = """dbus getty@ getty-static systemd-logind systemd-networkd systemd-resolved systemd-timesyncd systemd-tmpfiles-clean
systemd-tmpfiles-setup systemd-tmpfiles-setup-dev systemd-udevd systemd-udev-trigger""".split()
"""Units of a whole machine: they look for devices, or clear directories."""
ENTER = 'for group in $GROUPS; do echo $$ >"$group/cgroup.procs"; done\n'
ENTER += (
    'exec "$@" unshare --cgroup --mount --propagation private --ipc --uts --pid --fork --kill-child sh -euc "$BOOT"'
)
BOOT = """
hostname "$NAME"
mount -t tmpfs tmpfs "$ROOT"
mkdir "$ROOT/work" "$ROOT/root" "$ROOT/upper"
mount -t overlay -o "lowerdir=/,upperdir=$ROOT/upper,workdir=$ROOT/work" overlay "$ROOT/root"
cd "$ROOT/root"
mount --bind "$UNITS" etc/systemd/system
mount -t proc proc proc
mount --bind "$BOOT_ID" proc/sys/kernel/random/boot_id
mount -t sysfs sysfs sys
mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
for names in $HIERARCHIES; do
    folder="sys/fs/cgroup/${names#name=}"
    mkdir "$folder"
    case "$names" in
    unified) mount -t cgroup2 cgroup2 "$folder" ;;
    name=*) mount -t cgroup -o "none,$names" cgroup "$folder" ;;
    *) mount -t cgroup -o "$names" cgroup "$folder" ;;
    esac
done
for folder in run dev; do mount -t tmpfs -o mode=755 tmpfs "$folder"; done
mount -t tmpfs -o mode=1777 tmpfs tmp
for device in null zero full random urandom tty; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs tmpfs dev/shm
for folder in $SEEN; do
    mkdir -p "$ROOT/root$folder"
    mount --bind "$folder" "$ROOT/root$folder"
done
pivot_root . mnt
cd /
umount -l /mnt
exec env -i container=test PATH="$PATH" LANG=C.UTF-8 /lib/systemd/systemd --system --unit=multi-user.target --show-status=0
"""


def needs_systemd() -> None:
    """Skip, saying why, where none can be booted."""
    reason = ""
    if not SYSTEMD.exists() or shutil.which("unshare") is None:
        reason = "systemd is not installed (Debian: apt-get install systemd)"
    elif os.geteuid():
        reason = "booting systemd needs root"
    elif not (GROUPS / "systemd").is_dir():
        reason = "this machine has no control groups of version 1, in which a systemd can be booted beside another"
    if reason:
        pytest.skip(reason)


class Systemd:
    """``folder`` is seen within at the same path; so are ``seen``. ``units`` by name are started at boot, and kept in ``folder``
    together with those that are installed later."""

    def __init__(self, host: Host, folder: Path, units: dict[str, str], seen: list[Path]) -> None:
        self._host, self._folder, self._seen = host, folder, [folder, *seen]
        self._groups = [path / host.namespace for path in _own_groups().values()]
        self._process: subprocess.Popen[bytes] | None = None
        self._units = folder / "units"
        wanted = self._units / "multi-user.target.wants"
        wanted.mkdir(parents=True)
        for name, text in units.items():
            (self._units / name).write_text(text)
            (wanted / name).symlink_to(f"../{name}")
        for name in MASKED:
            (self._units / f"{name}.service").symlink_to("/dev/null")

    def boot(self) -> None:
        """And wait until everything is started."""
        for group in self._groups:
            group.mkdir(exist_ok=True)
            for name in ("cpuset.cpus", "cpuset.mems"):  # have to be given before anybody may enter
                if (group / name).exists():
                    (group / name).write_text((group.parent / name).read_text())
        root, boot_id = self._folder / "root", self._folder / "boot_id"
        root.mkdir(exist_ok=True)
        boot_id.write_text(f"{uuid.uuid4()}\n")
        env = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "BOOT": BOOT, "NAME": self._host.namespace, "ROOT": str(root),
            "UNITS": str(self._units), "BOOT_ID": str(boot_id), "SEEN": " ".join(map(str, self._seen)),
            "HIERARCHIES": " ".join(_own_groups()), "GROUPS": " ".join(map(str, self._groups)),
        }  # fmt: skip
        with (self._folder / "boot.log").open("ab") as log:
            argv = ["sh", "-euc", ENTER, "enter", *self._host.argv()]  # a host of its own sees no control groups
            self._process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for(lambda: self._state() in ("running", "degraded"), "it boots", 60)
        assert self._state() == "running", self.run("systemctl", "--failed")

    def _state(self) -> str:
        return self.run("systemctl", "is-system-running", code=None)

    def run(self, *command: str, code: int | None = 0) -> str:
        """What a command within prints; ``code`` is what it must end with (None: anything)."""
        pid = self._first()
        if pid is None:
            assert code is None, "it does not run"
            return ""
        done = subprocess.run(
            ["nsenter", "-t", str(pid), "-a", *command], capture_output=True, text=True, check=False, timeout=90,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )  # fmt: skip
        assert code is None or done.returncode == code, f"{command}: {done.returncode} {done.stdout} {done.stderr}"
        return done.stdout.strip()

    def _first(self) -> int | None:
        """Its process 1, as this machine counts."""
        for pid in self._host.pids():
            with suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                if "\nName:\tsystemd\n" in f"\n{status}" and "\t1\n" in status[status.index("NSpid:") :]:
                    return pid
        return None

    def power_off(self) -> None:
        """All of it at once, as when its power goes."""
        for pid in self._host.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, 9)
        if self._process is not None:
            self._process.wait(30)
        wait_for(lambda: all(_removed(group) for group in self._groups), "it is off, and its groups are empty")


def _removed(group: Path) -> bool:
    """Whether nothing is left of it; False while somebody in it still dies."""
    with suppress(FileNotFoundError):
        for inner in [*sorted(group.rglob("*/"), reverse=True), group]:
            try:
                inner.rmdir()
            except OSError as error:
                if error.errno == errno.EBUSY:
                    return False
                raise
    return True


def _own_groups() -> dict[str, Path]:
    """Hierarchy, as it is mounted → our group in it."""
    found = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        found[names or "unified"] = GROUPS / (names.removeprefix("name=") or "unified") / path.lstrip("/")
    return found
