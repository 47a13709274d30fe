"""A new leader and what was asked of a workflow while nobody led."""

import pytest
from tests.unit.scheduler.test_corners import Leader

from jarvis.api.workflow_documents import Given, Rules, compiled
from jarvis.core.command import NewCommand
from jarvis.core.states import State
from jarvis.core.workflow import NewWorkflow
from jarvis.state.stores.memory import MemoryStore

DOCUMENT = {
    "steps": [{"id": "ask", "approval": True}, {"id": "nap", "sleep": 60, "depends_on": ["ask"]}],
}


@pytest.mark.parametrize(
    ("verb", "args", "state", "step"),
    [
        ("workflow_decide", {"step": "ask", "yes": True}, State.RUNNING, State.SUCCEEDED),
        ("workflow_decide", {"step": "ask", "yes": False}, State.FAILED, State.FAILED),
        ("workflow_pause", {}, State.SUSPENDED, State.HELD),
        ("workflow_cancel", {}, State.CANCELLED, State.CANCELLED),
    ],
)
async def test_what_was_asked_while_nobody_led_is_done(
    verb: str, args: dict[str, object], state: State, step: State
) -> None:
    """The command is there at the first turn already, when no step has come up again yet."""
    store = MemoryStore(lambda: 1000.0)
    old = Leader(store)
    await old.scheduler.start()
    new = NewWorkflow(uuid="u", project="p", user="ann", spec=compiled(Given(DOCUMENT), Rules(0.0)))
    ident = (await store.workflow_insert(new)).ids[0]
    await old.scheduler.run_once([])
    assert [s.state for s in await store.step_list(ident, "", 10)] == [State.HELD]
    await store.command_insert_many([NewCommand(verb=verb, user="ann", workflow=ident, args=args)])  # type: ignore[arg-type]
    following = Leader(store)
    await following.scheduler.start()
    await following.scheduler.run_once([])
    (workflow,) = await store.workflow_get_many([ident])
    assert (workflow.state, (await store.step_list(ident, "", 1))[0].state) == (state, step)
