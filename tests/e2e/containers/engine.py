"""A real container engine for tests: the one that runs, else one of their own; and an image made without any registry."""

import contextlib
import io
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

SYSTEM_SOCKET = Path("/var/run/docker.sock")
IMAGE = "jarvis-test:1"
PATIENCE = 60.0
APPLETS = (
    "cat cut echo env false head id ip kill ls mkdir printf pwd seq sh sleep stat test touch tr true wc yes".split()
)


class NoEngine(Exception):
    """Why there is none here."""


def docker(*args: str, check: bool = True, data: bytes | None = None) -> str:
    """The engine's own command line, on the engine that DOCKER_HOST names."""
    done = subprocess.run(["docker", *args], input=data, capture_output=True, check=False, timeout=PATIENCE)
    assert not check or done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def answers(host: str) -> bool:
    if shutil.which("docker") is None:
        return False
    asked = ["docker", "--host", host, "version", "--format", "{{.Server.Version}}"]
    return subprocess.run(asked, capture_output=True, check=False, timeout=PATIENCE).returncode == 0


@contextlib.contextmanager
def engine() -> Iterator[str]:
    """DOCKER_HOST of an engine that answers; raises :class:`NoEngine`."""
    for host in (os.environ.get("DOCKER_HOST"), f"unix://{SYSTEM_SOCKET}"):
        if host and answers(host):
            yield host
            return
    program = shutil.which("dockerd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if program is None or os.geteuid() != 0:
        raise NoEngine("no container engine answers, and starting one needs root and dockerd (Debian: docker.io)")
    directory = Path(tempfile.mkdtemp(prefix="jv-engine-"))
    try:
        with own_engine(program, directory) as host:
            yield host
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def own_engine(program: str, directory: Path) -> Iterator[str]:
    """An engine below a directory; as little as the kernel grants: with a network of its own if it can be had."""
    log = directory / "log"
    for options in ([], ["--bridge=none", "--iptables=false"], ["--bridge=none", "--iptables=false", "-s", "vfs"]):
        host = f"unix://{directory}/socket"
        command = [program, "--host", host, "--data-root", f"{directory}/data", "--exec-root", f"{directory}/exec"]
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*command, "--pidfile", f"{directory}/pid", *options], stdout=out, stderr=out, start_new_session=True
            )
        try:
            if _comes_up(process, host):
                yield host
                return
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    raise NoEngine(f"dockerd does not start: {log.read_text()[-600:]}")


def _comes_up(process: "subprocess.Popen[bytes]", host: str) -> bool:
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        if answers(host):
            return True
        time.sleep(0.1)
    return False


def make_image() -> None:
    """A static busybox with a handful of its commands."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise NoEngine("the test image needs busybox (Debian: busybox-static)")
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as image:
        image.add(os.path.realpath(busybox), "bin/busybox")
        for name in APPLETS:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            image.addfile(link)
        for name, mode in (("tmp", 0o1777), ("etc", 0o755)):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, mode
            image.addfile(folder)
    docker("import", "--change", "ENV PATH=/bin", "--change", 'CMD ["echo", "own"]', "-", IMAGE, data=tar.getvalue())


def containers(label: str = "jarvis.node") -> list[str]:
    """Ids of all containers that some node of ours made."""
    return docker("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={label}").split()
