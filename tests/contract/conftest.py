from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.contract.harness import STORES, Ticking

from jarvis.state.coordination import Leadership
from jarvis.state.store import Store
from jarvis.state.stores.sqlite import SqliteStore


@pytest.fixture
def clock() -> Ticking:
    return Ticking()


@pytest.fixture(params=sorted(STORES))
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Ticking) -> AsyncIterator[Store]:
    """Each store in turn, open."""
    opened = STORES[request.param](tmp_path, clock)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """For what only a file has."""
    opened = SqliteStore(tmp_path / "state")
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def lead(store: Store) -> Leadership:
    return await store.leadership_acquire("test")
