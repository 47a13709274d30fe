"""Fixtures: a server for each test."""

from collections.abc import AsyncIterator

import pytest
from tests.e2e.api.harness import Running, running


@pytest.fixture
async def server() -> AsyncIterator[Running]:
    """A fresh server with empty stores."""
    async with running() as made:
        yield made
