"""How long an answer of the health checks is kept: who waits for a start does not wait for an old answer to be forgotten."""

from collections.abc import Mapping
from typing import Any

from jarvis.api.auth import StoreAuthenticator
from jarvis.api.routes.cluster import KEEP_S, KEEP_UNWELL_S, Health
from jarvis.api.services import ApiSettings, Services
from jarvis.bus.buses.memory import MemoryBus
from jarvis.state.blob_stores.memory import MemoryBlobStore
from jarvis.state.state_manager import StateManager
from jarvis.state.stores.memory import MemoryStore
from jarvis.utils.clock import Clock


class Asked:
    """A health that is asked at times of our choice; ``looks`` counts how often the one check was made."""

    def __init__(self) -> None:
        store, blobs, bus, clock = MemoryStore(), MemoryBlobStore(), MemoryBus(), Clock()
        self.now, self.looks, self.status = 100.0, 0, "down"
        services = Services(
            store=store, blobs=blobs, state_manager=StateManager(store, blobs, bus), bus=bus, clock=clock,
            authenticator=StoreAuthenticator(store, clock), settings=ApiSettings(), health_checks={"workers": self._check},
        )  # fmt: skip
        self.health = Health(services, lambda: self.now)

    async def _check(self) -> Mapping[str, Any]:
        self.looks += 1
        return {"status": self.status, "detail": ""}

    async def after(self, seconds: float) -> str:
        self.now += seconds
        status, _ = await self.health.look()
        return status


async def test_what_is_unwell_is_looked_at_again_soon() -> None:
    asked = Asked()
    assert await asked.after(0.0) == "degraded"
    asked.status = "ok"
    assert await asked.after(KEEP_UNWELL_S / 2) == "degraded"
    assert asked.looks == 1
    assert await asked.after(KEEP_UNWELL_S / 2) == "ok"


async def test_what_is_well_is_looked_at_once_a_second_however_many_ask() -> None:
    asked = Asked()
    asked.status = "ok"
    assert await asked.after(0.0) == "ok"
    asked.status = "down"
    for _ in range(3):
        assert await asked.after(KEEP_S / 4) == "ok"
    assert asked.looks == 1
    assert await asked.after(KEEP_S / 4) == "degraded"
    assert asked.looks == 2
