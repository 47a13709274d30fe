from collections.abc import Iterator

import pytest
from tests.e2e.cluster.harness import Home, home

from jarvis.sdk.client import Client
from jarvis.sdk.functions import Executor


@pytest.fixture(scope="session")
def cluster() -> Iterator[Home]:
    """One cluster of five cores for all tests of executors."""
    with home() as made:
        made.jarvis("up", "--cpus", "5")
        yield made


@pytest.fixture
def client(cluster: Home) -> Iterator[Client]:
    with cluster.client() as made:
        yield made


@pytest.fixture
def pool(client: Client) -> Iterator[Executor]:
    with Executor(max_workers=5, client=client) as made:
        yield made
