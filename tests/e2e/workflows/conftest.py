from collections.abc import Iterator

import pytest
from tests.e2e.cluster.harness import Home, home

from jarvis.sdk.client import Client


@pytest.fixture(scope="module")
def up() -> Iterator[Home]:
    """A cluster that the tests of a module share."""
    with home() as made:
        made.jarvis("up", "--cpus", "4")
        yield made


@pytest.fixture
def client(up: Home) -> Iterator[Client]:
    with up.client() as made:
        yield made
