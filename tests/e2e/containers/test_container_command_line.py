"""Containers from the command line, on a whole cluster."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.cluster.harness import Home, home, wait_for
from tests.e2e.containers.engine import IMAGE, containers

pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]
INSIDE = ("--container", IMAGE, "--pull", "never", "--network", "none")


@pytest.fixture
def up(docker_host: str) -> Iterator[Home]:
    with home() as made:
        made.jarvis("up", "--cpus", "4")
        yield made


def test_run_submit_kill_agent_and_down(up: Home, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("one\ntwo\n")
    mount = ("--mount", f"{tmp_path}:/d:ro")
    done = up.jarvis(
        "run", *INSIDE, *mount, "--env", "X=1", "--", "sh", "-c", "wc -l < /d/in; echo $X $PATH; exit 3", code=3
    )
    assert done.stdout == "2\n1 /bin\n"
    assert "no-such:1" in up.jarvis("run", "--container", "no-such:1", "--pull", "never", "--", "true", code=125).stderr
    up.jarvis("run", *INSIDE, "-t", "1s", "--", "sleep", "60", code=124)

    files = ("--push", "in", "--pull", "out")
    done = up.jarvis("run", *INSIDE, *files, "--", "sh", "-c", "pwd; mkdir out; wc -l < in > out/n", cwd=tmp_path)
    assert done.stdout == "/jarvis/work\n"
    assert (tmp_path / "out" / "n").read_text() == "2\n"

    many = up.jarvis(
        "submit", "-q", "--wait", *INSIDE, "-a", "0-2", "--", "sh", "-c", "echo $JARVIS_ARRAY_INDEX"
    ).stdout
    assert [up.jarvis("logs", f"{many.split()[0]}_{i}").stdout for i in range(3)] == ["0\n", "1\n", "2\n"]

    ident = up.jarvis("submit", "-q", *INSIDE, "--", "sh", "-c", "echo up; sleep 120").stdout.strip()
    wait_for(lambda: "up" in up.jarvis("logs", ident).stdout, "its log is shown while it runs")

    inside = up.jarvis("exec", ident, "--", "sh", "-c", "echo $JARVIS_TASK_ID; cat /proc/1/comm; exit 7", code=7)
    assert inside.stdout.split()[0] == ident
    fed = up.jarvis("exec", ident, "--", "wc", "-c", input="12345")
    assert fed.stdout.strip() == "5", "the end of the input arrives"
    unread = up.jarvis("exec", ident, "--", "sh", "-c", "seq 5; exit 3", input="line\n" * 1_000_000, code=3)
    assert (unread.stdout, unread.stderr) == ("1\n2\n3\n4\n5\n", "")
    missing = up.jarvis("exec", ident, "--", "no-such-program", code=None)
    assert missing.returncode in (126, 127)
    assert "no-such-program" in missing.stdout + missing.stderr
    up.jarvis("down")
    assert not containers()


def test_why_says_that_no_node_has_an_engine(docker_host: str, tmp_path: Path) -> None:
    with home() as made:
        made.env["DOCKER_HOST"] = f"unix://{tmp_path}/none.sock"
        made.jarvis("up", "--cpus", "2")
        ident = made.jarvis("submit", "-q", *INSIDE, "--", "true").stdout.strip()
        explained = wait_for(lambda: _why(made, ident), "the queue says why")
        assert "has no container engine" in explained["summary"] and explained["reason"] == "NoMatchingLabel"
        assert f"{tmp_path}/none.sock" in made.jarvis("doctor").stdout


def _why(made: Home, ident: str) -> dict[str, str] | None:
    found: dict[str, str] = json.loads(made.jarvis("why", ident, "-o", "json").stdout)
    return found if found.get("reason") else None


def test_the_doctor_finds_the_engine(docker_host: str, tmp_path: Path) -> None:
    with home() as made:
        line = next(line for line in made.jarvis("doctor", code=None).stdout.splitlines() if "containers" in line)
        assert line.startswith("ok") and docker_host.removeprefix("unix://") in line


def test_without_the_client_library_it_says_what_to_install(docker_host: str) -> None:
    """A library that cannot be imported stands for an installation without the extra."""
    code = (
        "import asyncio, sys; sys.modules['aiodocker'] = None; "
        "from jarvis.worker.container_engine import probe; print(asyncio.run(probe()))"
    )
    env = {"DOCKER_HOST": docker_host}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert "pip install 'jarvis-cluster[docker]'" in done.stdout
