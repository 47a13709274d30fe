"""Small disks of their own, for tests that fill them, make them read-only or cut their power. They need root."""

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CUT = 0x8004587D
"""FS_IOC_SHUTDOWN: the file system stops at once."""
WITHOUT_LOG = 2
"""…and what was not synced is lost."""


def _run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True)


def _may_mount(path: Path) -> None:
    """Skip where mounting is not permitted; in the gate, as root, that would hide what it is to show."""
    path.mkdir(parents=True)
    try:
        _run("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", path)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = f"mounting is not permitted here: {error}"
        if os.environ.get("CI") and os.geteuid() == 0:
            pytest.fail(reason)
        pytest.skip(reason)
    _run("umount", path)


class SmallDisk:
    """A mounted tmpfs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self, leave: int = 0) -> None:
        """Take all the room there is but ``leave`` bytes."""
        stat = os.statvfs(self.path)
        free = stat.f_bavail * stat.f_frsize - leave
        if free > 0:
            with self._ballast.open("ab") as file:
                os.posix_fallocate(file.fileno(), file.tell(), free)

    def drain(self) -> None:
        self._ballast.unlink(missing_ok=True)

    def read_only(self) -> None:
        _run("mount", "-o", "remount,ro", self.path)


@contextmanager
def small_disk(path: Path, size: int) -> Iterator[SmallDisk]:
    """A tmpfs of some bytes."""
    _may_mount(path)
    _run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path)
    try:
        yield SmallDisk(path)
    finally:
        _run("umount", "-l", path)


class CuttableDisk:
    """An ext4 image that can lose its power."""

    def __init__(self, image: Path, path: Path) -> None:
        self._image, self.path = image, path
        self._copies = 0

    def mount(self) -> None:
        """Replays the journal, as a start after a power cut does."""
        _run("mount", "-o", "loop", self._image, self.path)

    def unmount(self) -> None:
        """The next mount is of a copy: a mount namespace that somebody made meanwhile keeps the stopped file system alive,
        and a mount of the same image would be that one again."""
        _run("umount", self.path)
        self._copies += 1
        copy = self._image.with_suffix(f".{self._copies}")
        _run("cp", "--sparse=always", self._image, copy)
        self._image.unlink()
        self._image = copy

    def cut(self) -> None:
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, CUT, struct.pack("I", WITHOUT_LOG))
        finally:
            os.close(descriptor)


@contextmanager
def cuttable_disk(folder: Path, size: int = 64 << 20) -> Iterator[CuttableDisk]:
    """A fresh one, mounted; afterwards it is unmounted whatever happened."""
    _may_mount(folder / "disk")
    image = folder / "image"
    with image.open("wb") as file:
        file.truncate(size)
    _run("mkfs.ext4", "-q", image)
    disk = CuttableDisk(image, folder / "disk")
    disk.mount()
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk.path)], check=False, capture_output=True)
