"""Images that an engine has are told by its node, for as long as they are there, and tasks go to them."""

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.cluster.harness import home, wait_for
from tests.e2e.containers.engine import IMAGE, docker
from tests.e2e.worker.harness import running

from jarvis.core.holdings import Holdings
from jarvis.worker.container_engine import images

pytestmark = [pytest.mark.docker, pytest.mark.timeout(120)]
LARGE = "jarvis-large:1"
NAME = "docker.io/library/jarvis-large:1"
SIZE = 17 << 20


@pytest.fixture
def large(docker_host: str) -> Iterator[None]:
    """The test image with so much more in it that it is told of."""
    with tarfile.open(fileobj=(tar := io.BytesIO()), mode="w") as content:
        member = tarfile.TarInfo("large")
        member.size = SIZE
        content.addfile(member, io.BytesIO(os.urandom(SIZE)))
    docker("import", "-", LARGE, data=tar.getvalue())
    docker("tag", LARGE, "registry.example:5000/own/large:v2")
    try:
        yield
    finally:
        docker("image", "rm", "--force", LARGE, "registry.example:5000/own/large:v2", check=False)


async def test_every_name_is_told_until_the_image_is_removed(large: None, tmp_path: Path) -> None:
    found = await images()
    assert found[NAME] == found["registry.example:5000/own/large:v2"] >= SIZE
    assert f"docker.io/library/{IMAGE}" in found
    async with running(tmp_path, "--cpus", "1") as (server, _):

        def told() -> Holdings | None:
            return next((beat.holds for beat in reversed(server.beats) if beat.holds is not None), None)

        both = {NAME: found[NAME], "registry.example:5000/own/large:v2": found[NAME]}
        await server.until(lambda: told() == both, "what is large is told, under each of its names")
        docker("image", "rm", LARGE)
        await server.until(lambda: NAME not in (told() or {}), "what was removed by hand is not told any more")


def test_a_server_knows_and_says_where_an_image_is(large: None) -> None:
    with home() as made:
        made.jarvis("up", "--cpus", "1")
        with made.client() as client:
            node = client.connection.get("/nodes")["items"][0]["name"]
            wait_for(lambda: client.connection.get(f"/nodes/{node}")["holds"], "the node tells it")
            asked = made.jarvis("plan", "--container", LARGE, "--pull", "never", "true").stdout
            assert f"it starts now on {node}, which holds image {LARGE} (17" in asked


async def test_nothing_is_held_where_no_engine_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none")
    assert await images() == {}
    monkeypatch.setenv("DOCKER_HOST", "tcp://localhost:1")
    assert await images() == {}
