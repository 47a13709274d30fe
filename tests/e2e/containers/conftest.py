import os
from collections.abc import Iterator

import pytest
from tests.e2e.containers.engine import IMAGE, NoEngine, containers, docker, engine, make_image


@pytest.fixture(scope="session")
def docker_host() -> Iterator[str]:
    """DOCKER_HOST is set for everything that the tests start; where CI is set, an engine must be there."""
    before = os.environ.get("DOCKER_HOST")
    try:
        with engine() as host:
            os.environ["DOCKER_HOST"] = host
            make_image()
            yield host
            docker("image", "rm", "--force", IMAGE)
    except NoEngine as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))
    finally:
        os.environ.pop("DOCKER_HOST", None)
        if before is not None:
            os.environ["DOCKER_HOST"] = before


@pytest.fixture(autouse=True)
def nothing_left(docker_host: str) -> Iterator[None]:
    """Every node takes its containers with it."""
    before = set(containers())
    yield
    left = set(containers()) - before
    for one in left:
        docker("rm", "--force", one)
    assert not left, f"containers are left: {left}"
