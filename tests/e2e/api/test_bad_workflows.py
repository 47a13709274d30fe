"""Documents with mistakes over HTTP: each is told, none is a mistake of the server, and nothing of them is kept."""

from random import Random
from typing import Any

import httpx2 as httpx
from tests.e2e.api.harness import Running
from tests.unit.dag.test_documents import BAD, mutated

from jarvis.state.workflow_store import WorkflowFilter

MUTATED = 1000


async def kept(server: Running) -> list[Any]:
    """Whatever is left in the store of workflows, tasks and steps."""
    workflows = await server.store.workflow_list(WorkflowFilter(), None, 10_000)
    steps = [step for workflow in workflows for step in await server.store.step_list(workflow.id, "", 10)]
    return [*workflows, *steps, *await server.store.task_list_submitted(10)]


async def post(client: httpx.AsyncClient, text: str, verb: str = "") -> httpx.Response:
    params = {"s": "v"} if "s: {type: string}" in text else {}
    return await client.post(f"/workflows{verb}", json={"document": text, "params": params})


async def test_bad_documents_are_refused_with_their_lines_and_leave_nothing(server: Running) -> None:
    client, near = server.client("alice"), 0
    for text, line, said in BAD:
        answer = await post(client, text)
        assert answer.status_code == 422, (text, answer.text)
        told = answer.json()["errors"]
        assert any(said in problem["message"] for problem in told), (text, told)
        near += any(problem["line"] is not None and abs(problem["line"] - line) <= 1 for problem in told)
    assert await kept(server) == []
    print(f"bad documents: {len(BAD)}, line within one: {near / len(BAD):.1%}")  # noqa: T201 - the figure is the point
    assert len(BAD) >= 30 and near / len(BAD) >= 0.95


async def test_mutated_documents_end_well_and_what_is_refused_leaves_nothing(server: Running) -> None:
    client, draw = server.client("alice"), Random(11)
    refused = near = 0
    taken = []
    for _ in range(MUTATED):
        text, line = mutated(draw)
        answer = await post(client, text)
        assert answer.status_code in (201, 422), (answer.status_code, text, answer.text)
        if answer.status_code == 201:
            taken.append(answer.json()["id"])
            continue
        refused += 1
        near += any(p["line"] is not None and abs(p["line"] - line) <= 1 for p in answer.json()["errors"])
    left = await kept(server)
    assert sorted(row.id for row in left) == taken, "a row for each that was taken, and none else"
    print(f"mutated documents: refused {refused} of {MUTATED}, line within one: {near / refused:.1%}")  # noqa: T201
    assert refused > MUTATED / 2 and near / refused >= 0.95
