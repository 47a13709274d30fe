"""A disk that fills up under a running server: it refuses politely, loses nothing, and goes on by itself when there is room."""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.cluster.harness import Home, wait_for

from jarvis.sdk.errors import ClientError

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system needs uid 0"),
]


@contextlib.contextmanager
def small_disk() -> Iterator[Path]:
    """A tmpfs of 48 MB."""
    with tempfile.TemporaryDirectory(prefix="jv-") as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", folder], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


def fill(path: Path) -> None:
    """Until not a byte is left."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)


def test_nothing_is_lost_and_it_recovers_by_itself() -> None:
    with small_disk() as disk, tempfile.TemporaryDirectory() as elsewhere:
        made, gate, filler = Home(disk / "s"), Path(elsewhere) / "gate", disk / "filler"
        try:
            made.jarvis("up")
            with made.client() as client:
                before = [client.submit(command=["echo", str(i)]).id for i in range(20)]
                running = client.submit(
                    command=["sh", "-c", f"while [ ! -e {gate} ]; do sleep 0.1; done; echo over"]
                ).id
                wait_for(lambda: client.show(running)["state"] == "running", "it runs")
                for ident in before:
                    client.wait(ident, 30)
                fill(filler)
                acknowledged, error = [], None
                for _ in range(20_000):
                    try:
                        acknowledged.append(client.submit(command=["true"], env={"PAD": "x" * 2000}).id)
                    except ClientError as problem:
                        error = problem
                        break
                assert error is not None, "the disk never became full"
                assert error.status == 503
                assert "full" in str(error), str(error)
                refused = refused_on_the_command_line(made, acknowledged)
                assert "full" in refused
                assert "Traceback" not in refused
                gate.touch()
                wait_for(lambda: client.connection.get("/health").get("status"), "it still answers")
                filler.unlink()
                wait_for(lambda: submits(made), "it takes work again by itself")
                assert client.wait(running, 60)["state"] == "succeeded"
                for ident in acknowledged:
                    assert client.wait(ident, 120)["state"] == "succeeded", ident
                for i, ident in enumerate(before):
                    assert client.logs(ident) == f"{i}\n".encode()
                assert client.connection.get("/health")["status"] == "ok"
        finally:
            made.jarvis("down", code=None)
            wait_for(lambda: not made.processes(), "all processes are gone")


def refused_on_the_command_line(made: Home, acknowledged: list[int]) -> str:
    """What ``jarvis submit`` says when it is refused; a smaller task may still find room once or twice."""
    for _ in range(50):
        done = made.jarvis("submit", "-q", "--env", "PAD=" + "x" * 2000, "--", "true", code=None)
        if done.returncode:
            return done.stderr
        acknowledged.append(int(done.stdout))
    raise AssertionError("the command line was never refused")


def submits(made: Home) -> bool:
    try:
        with made.client() as client:
            return bool(client.submit(command=["true"]).id)
    except ClientError:
        return False
