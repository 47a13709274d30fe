"""Many calls at once: others are heard while they are read, and all of them are taken or none."""

import asyncio
import hashlib

import msgspec
import pytest

from jarvis.api import submission
from jarvis.api.auth import StoreAuthenticator
from jarvis.api.schemas.task_in import Calls
from jarvis.api.services import ApiSettings, Services
from jarvis.api.submission import Submitter
from jarvis.bus.buses.memory import MemoryBus
from jarvis.core.permissions import Principal
from jarvis.state.blob_stores.memory import MemoryBlobStore
from jarvis.state.state_manager import StateManager
from jarvis.state.stores.memory import MemoryStore
from jarvis.utils.clock import Clock


async def test_others_are_heard_while_many_calls_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "AT_ONCE", 10)
    store, blobs, bus, clock = MemoryStore(), MemoryBlobStore(), MemoryBus(), Clock()
    services = Services(
        store=store, blobs=blobs, state_manager=StateManager(store, blobs, bus), bus=bus, clock=clock,
        authenticator=StoreAuthenticator(store, clock), settings=ApiSettings(),
    )  # fmt: skip
    await blobs.put("default", b"code")
    task = {"function": {"code": hashlib.sha256(b"code").hexdigest(), "python": "3.11"}}
    given = [b"%d" % number for number in range(35)]
    body = msgspec.msgpack.encode(Calls(task=msgspec.json.encode(task), args=given))
    submitting = asyncio.create_task(Submitter(services, Principal("a", "admin", ("*",), "t")).calls(body, None))
    turns = 0
    while not submitting.done():
        await asyncio.sleep(0)
        turns += 1
        if not submitting.done():
            assert await store.task_list_submitted(100) == []
    assert turns >= 4
    kept = [task.spec.function for task in await store.task_list_submitted(100)]
    assert [call and call.args for call in kept] == given
    assert len(submitting.result().ids) == 35
